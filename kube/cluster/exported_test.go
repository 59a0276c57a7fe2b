package cluster

import (
	"strings"
	"testing"

	"slicewire/kube"
	"slicewire/overlay"
)

// Labels and annotations of an export go along to the import that stands for it,
// and cannot stand in for slicewire's own.
func TestExportedLabelsGoAlong(t *testing.T) {
	o := read(t, namespace("shop"), strings.Replace(mcs("web"), "}}", "}, spec: {exportedLabels: {tier: front}, exportedAnnotations: {example.com/note: hello world}}}", 1),
		service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"))
	list := exports(o, red(), findReplicas(o, "slicewire-system", here().self))
	if len(list) != 1 || list[0].export == nil {
		t.Fatalf("exports %+v", list)
	}
	v := view(overlay.Virtual, "west/web-x7k2p")
	v.Exported = overlay.DecodeExported(list[0].export.Terms.Exported)
	p := work(read(t, namespace("shop")), red(v), here(), nil)
	u := p.wanted(KindMCSImport, "shop", "web").whole()
	if l, a := u.GetLabels(), u.GetAnnotations(); l["tier"] != "front" || l[kube.LabelManagedBy] != kube.ManagedBy || a["example.com/note"] != "hello world" || a[kube.AnnotationSlice] != "red" {
		t.Errorf("labels %v, annotations %v", l, a)
	}
}
