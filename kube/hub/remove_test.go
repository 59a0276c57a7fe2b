package hub

import (
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slicewire/overlay"
)

// What nodes have written into a project goes, statuses of what people wrote
// included; that itself stays, and so do objects of others.
func TestRemoveLeavesWhatPeopleWrote(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(extras)
	n := p.node("one", nil, nil)
	web := Export{Slice: "red", Namespace: "red-app", Name: "web", Ports: []overlay.ServicePort{{Port: 80, Protocol: "TCP"}}, Endpoints: []overlay.Endpoint{{Name: "pod-1"}}}
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Exports: []Export{web}})
	p.until("what is worked out", func() bool {
		return p.get("ServiceExportConfig", "web-red-app-one") != nil && p.count("WorkerSliceGateway") == 2 && p.count("WorkerServiceImport") == 2 && p.count("VpnKeyRotation") == 1
	})
	p.until("conditions", func() bool {
		return conditionOf(p.get("SliceConfig", "red"), "Accepted") != nil && conditionOf(p.get("SlicePolicy", "p"), "Accepted") != nil && conditionOf(p.get("ServiceExportConfig", "stray"), "Accepted") != nil
	})
	p.put(strays)
	for _, x := range strayNames {
		p.until("a condition of what nothing comes to", func() bool { return conditionOf(p.get(x[0], x[1]), "Accepted") != nil })
	}
	n.stop()
	if changed, err := Remove(p.ctx, p.client, p.namespace); err != nil || changed < 8 {
		t.Errorf("%d objects, %v", changed, err)
	}
	for _, kind := range worked {
		if n := p.count(kind); n != 1 {
			t.Errorf("%d %ss are there, want that of somebody else", n, kind)
		}
	}
	if p.get("ServiceExportConfig", "web-red-app-one") != nil {
		t.Error("an export is left")
	}
	for _, x := range append([][2]string{{"SliceConfig", "red"}, {"Cluster", "one"}, {"SlicePolicy", "p"}, {"ServiceExportConfig", "stray"}}, strayNames...) {
		o := p.get(x[0], x[1])
		if o == nil {
			t.Errorf("%s %s is gone", x[0], x[1])
		} else if conditionOf(o, "Accepted") != nil {
			t.Errorf("%s %s has the status %v", x[0], x[1], o.Object["status"])
		}
	}
	list, err := p.client.Dynamic.Resource(leases).Namespace(p.namespace).List(p.ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range list.Items {
		if strings.HasPrefix(l.GetName(), "slicewire") {
			t.Errorf("lease %s is left", l.GetName())
		}
	}
	if changed, err := Remove(p.ctx, p.client, p.namespace); changed != 0 || err != nil {
		t.Errorf("the second time %d objects, %v", changed, err)
	}
}
