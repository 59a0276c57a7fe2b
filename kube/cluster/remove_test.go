package cluster

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

// What slicewire has made and written goes, once it runs no more; what others
// made stays, as it was before.
func TestRemoveLeavesWhatOthersMade(t *testing.T) {
	f := start(t)
	ns := "remove"
	move := strings.NewReplacer("shop", ns)
	f.put("{apiVersion: v1, kind: Namespace, metadata: {name: remove, labels: {team: a}}}", move.Replace(pod("shop", "web-a", "web", "10.244.9.1")), move.Replace(web),
		"{apiVersion: v1, kind: Service, metadata: {name: theirs, namespace: remove}, spec: {ports: [{port: 80}]}}")
	imported := view(overlay.Virtual, "west/web-x7k2p")
	imported.Name = "db"
	state := in(ns, imported)
	state.Slices[0].Isolated = true
	f.Set(state)
	derived := Ref{KindService, ns, "slicewire-" + short(ns, "db")}
	f.eventually(func() error {
		switch space := f.get(KindNamespace, "", ns); {
		case f.get(derived.Kind, derived.Namespace, derived.Name) == nil, f.get(KindImport, ns, "db") == nil, f.get(KindNetworkPolicy, ns, "red-"+ns) == nil:
			return fmt.Errorf("nothing stands for the import yet")
		case space.GetLabels()["kubeslice.io/slice"] != "red", text(f.get(KindExport, ns, "web").Object, "status", "exportStatus") == "":
			return fmt.Errorf("namespace %v, export %v", space.GetLabels(), f.get(KindExport, ns, "web").Object["status"])
		}
		return nil
	})
	gateway := strings.Replace(pod("slicewire-system", "slicewire-0", "x", "10.244.9.2"), "app: x", "app.kubernetes.io/name: slicewire", 1)
	f.put(gateway)
	moment, cancel := context.WithTimeout(f.ctx, 3*time.Second)
	defer cancel()
	if n, err := Remove(moment, f.client, "slicewire-system"); n != 0 || err == nil || !strings.Contains(err.Error(), "pod slicewire-system/slicewire-0") {
		t.Errorf("with a gateway that runs, %d objects are removed: %v", n, err)
	}
	f.stop()
	f.remove(KindPod, "slicewire-system", "slicewire-0")
	n, err := Remove(f.ctx, f.client, "slicewire-system")
	if err != nil || n < 6 {
		t.Errorf("%d objects, %v", n, err)
	}
	for _, r := range []Ref{derived, {KindImport, ns, "db"}, {KindMCSImport, ns, "db"}, {KindNetworkPolicy, ns, "red-" + ns}} {
		if f.get(r.Kind, r.Namespace, r.Name) != nil {
			t.Errorf("%v is left", r)
		}
	}
	space := f.get(KindNamespace, "", ns)
	if l := space.GetLabels(); !maps.Equal(l, map[string]string{"team": "a", "kubernetes.io/metadata.name": ns}) || len(space.GetAnnotations()) != 0 {
		t.Errorf("the namespace has %v, %v", l, space.GetAnnotations())
	}
	if s := f.get(KindExport, ns, "web"); s == nil || len(textMapOf(s.Object["status"])) != 0 {
		t.Errorf("the export is %v", s)
	}
	if f.get(KindService, ns, "theirs") == nil {
		t.Error("a Service of others was removed")
	}
	if n, err := Remove(f.ctx, f.client, "slicewire-system"); n != 0 || err != nil {
		t.Errorf("the second time %d objects are removed, %v", n, err)
	}
}

func textMapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}
