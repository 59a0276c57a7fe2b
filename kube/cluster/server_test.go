package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"slicewire/kube"
	"slicewire/overlay"
)

// An export goes onto the slice with its ready pods, and says so; and again
// nothing is written.
func TestAnExportAndItsStatus(t *testing.T) {
	f := start(t)
	ns := "export"
	move := strings.NewReplacer("shop", ns)
	f.put(namespace(ns), move.Replace(pod("shop", "web-a", "web", "10.244.1.1")), move.Replace(unready(pod("shop", "web-b", "web", "10.244.1.2"))), move.Replace(web))
	f.Set(in(ns))
	f.eventually(func() error {
		r := f.Result()
		if len(r.Exports) != 1 || len(r.Exports[0].Backends) != 1 {
			return fmt.Errorf("exports %+v", r.Exports)
		}
		return nil
	})
	v := view(overlay.Headless, "east/web-a", "west/web-x7k2p")
	f.Set(in(ns, v))
	f.eventually(func() error {
		u := f.get(KindExport, ns, "web")
		pods := objectsIn(u.Object, "status", "pods")
		switch {
		case text(u.Object, "status", "exportStatus") != "READY", len(pods) != 1, text(pods[0], "nsmIp") != "10.1.0.10",
			text(u.Object, "status", "dnsName") != "web.export.svc.slice.local", text(u.Object, "status", "exposedPorts") != "8080/TCP",
			number(u.Object, "status", "availableEndpoints") != 1, said(u, "Ready") != "True Exported", number(u.Object, "status", "lastSync") < 1:
			return fmt.Errorf("status %v", u.Object["status"])
		}
		return nil
	})
	f.put(move.Replace(pod("shop", "web-b", "web", "10.244.1.2")))
	f.eventually(func() error {
		if n := number(f.get(KindExport, ns, "web").Object, "status", "availableEndpoints"); n != 2 {
			return fmt.Errorf("%d endpoints, want 2", n)
		}
		return nil
	})
	if e := f.events(ns); e["ServiceExportInitialStatusUpdated"] == 0 {
		t.Errorf("events %v", e)
	}
	f.put(move.Replace(unready(pod("shop", "web-a", "web", "10.244.1.1"))))
	f.eventually(func() error {
		if b := f.Result().Exports[0].Backends; len(b) != 1 || b[0].Name != "web-b" {
			return fmt.Errorf("backends %v", b)
		}
		return nil
	})
	f.still(time.Second)
}

// What stands for an import comes, stays as it is when others change it, and
// goes; and nothing that slicewire did not make is touched.
func TestAnImportComesAndGoes(t *testing.T) {
	f := start(t)
	ns := "import"
	theirs := `{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceImport, metadata: {name: theirs, namespace: import}, spec: {slice: red, dnsName: x}}`
	f.put(namespace(ns), theirs)
	v := view(overlay.Virtual, "west/web-x7k2p")
	other := v
	other.Name = "theirs"
	f.Set(in(ns, v, other))
	name := "slicewire-" + short(ns, "web")
	f.eventually(func() error {
		u := f.get(KindMCSImport, ns, "web")
		if u == nil || said(u, "Ready") != "True Ready" {
			return fmt.Errorf("import %v", u)
		}
		s := f.get(KindService, ns, name)
		if ip := text(s.Object, "spec", "clusterIP"); ip == "" || fmt.Sprint(texts(u.Object, "spec", "ips")) != "["+ip+"]" {
			return fmt.Errorf("ips %v, the Service has %s", texts(u.Object, "spec", "ips"), ip)
		}
		k := f.get(KindImport, ns, "web")
		if k == nil || text(k.Object, "status", "importStatus") != "READY" || number(k.Object, "status", "availableEndpoints") != 1 {
			return fmt.Errorf("KubeSlice's import %v", k)
		}
		return nil
	})
	f.still(time.Second)
	if u := f.get(KindImport, ns, "theirs"); text(u.Object, "spec", "dnsName") != "x" {
		t.Errorf("an object of others was changed: %v", u.Object["spec"])
	}

	slice := name + "-" + short("10.244.0.2")[:8]
	patch := []byte(`{"endpoints": [{"addresses": ["192.0.2.1"]}]}`)
	if _, err := f.client.Dynamic.Resource(f.setting.kinds[KindEndpointSlice].resource).Namespace(ns).Patch(f.ctx, slice, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	f.eventually(func() error {
		if a := texts(objectsIn(f.get(KindEndpointSlice, ns, slice).Object, "endpoints")[0], "addresses"); a[0] != "10.244.0.2" {
			return fmt.Errorf("the endpoint stays %v", a)
		}
		return nil
	})
	f.remove(KindService, ns, name)
	f.eventually(func() error {
		if s := f.get(KindService, ns, name); s == nil || s.GetDeletionTimestamp() != nil {
			return errors.New("a removed Service does not come back")
		}
		return nil
	})

	f.Set(in(ns))
	f.eventually(func() error {
		for _, r := range []Ref{{KindService, ns, name}, {KindEndpointSlice, ns, slice}, {KindImport, ns, "web"}, {KindMCSImport, ns, "web"}} {
			if f.get(r.Kind, r.Namespace, r.Name) != nil {
				return fmt.Errorf("%v is still there", r)
			}
		}
		return nil
	})
	if f.get(KindImport, ns, "theirs") == nil {
		t.Error("an object of others was removed")
	}
}

// A pod that is about to end is not led to, and the EndpointSlice of one that has
// gone without a word goes at once, not after the time to linger.
func TestWhoEndsIsNotLedTo(t *testing.T) {
	f := startAs(t, Config{Linger: time.Hour})
	ns := "ending"
	f.put(namespace(ns))
	f.Set(in(ns, view(overlay.Virtual, "west/web-x7k2p")))
	name := "slicewire-" + short(ns, "web")
	own := name + "-" + short("10.244.0.2")[:8]
	conditions := func() map[string]any {
		u := f.get(KindEndpointSlice, ns, own)
		if u == nil {
			return nil
		}
		list := objectsIn(u.Object, "endpoints")
		if len(list) != 1 {
			return nil
		}
		c, _ := list[0]["conditions"].(map[string]any)
		return c
	}
	f.eventually(func() error {
		if c := conditions(); c["ready"] != true {
			return fmt.Errorf("conditions %v", c)
		}
		return nil
	})
	gone := f.get(KindEndpointSlice, ns, own).DeepCopy()
	gone.SetName(name + "-gone")
	gone.SetResourceVersion("")
	gone.SetUID("")
	gone.SetManagedFields(nil)
	objectsIn(gone.Object, "endpoints")[0]["addresses"] = []any{"10.244.0.77"}
	if err := f.apply(gone); err != nil {
		t.Fatal(err)
	}
	f.eventually(func() error {
		if f.get(KindEndpointSlice, ns, name+"-gone") != nil {
			return errors.New("what a pod that has gone had is still there")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(f.ctx, time.Minute)
	defer cancel()
	if err := f.Leave(ctx); err != nil {
		t.Fatal(err)
	}
	if c := conditions(); c["ready"] != false || c["serving"] != true || c["terminating"] != true {
		t.Errorf("conditions %v after Leave returned", c)
	}
}

// A pod that has just begun and knows of no services takes nothing away from one
// that serves them; when that one knows of none either, all goes.
func TestWhatAnotherPodServesStays(t *testing.T) {
	f := start(t)
	ns := "two-pods"
	f.put(namespace(ns), pod("slicewire-system", "slicewire-0", "slicewire", "10.244.0.2"))
	f.Set(in(ns, view(overlay.Virtual, "west/web-x7k2p")))
	name := "slicewire-" + short(ns, "web")
	all := []Ref{{KindService, ns, name}, {KindEndpointSlice, ns, name + "-" + short("10.244.0.2")[:8]}, {KindImport, ns, "web"}, {KindMCSImport, ns, "web"}}
	there := func(want bool) func() error {
		return func() error {
			for _, r := range all {
				if (f.get(r.Kind, r.Namespace, r.Name) != nil) != want {
					return fmt.Errorf("%v is there: %v", r, !want)
				}
			}
			return nil
		}
	}
	f.eventually(there(true))
	before := f.get(KindService, ns, name).GetUID()

	g := connect(t, server)
	g.run(Config{Self: netip.MustParseAddr("10.244.0.3"), Linger: time.Millisecond})
	g.Set(in(ns))
	g.eventually(func() error {
		if !g.Status().Synced {
			return errors.New("it has not seen what there is")
		}
		return nil
	})
	g.still(2 * time.Second)
	if err := there(true)(); err != nil || f.get(KindService, ns, name).GetUID() != before {
		t.Fatalf("another pod took it away: %v", err)
	}
	f.Set(in(ns))
	f.eventually(there(false))
	f.remove(KindPod, "slicewire-system", "slicewire-0") // other tests have none there
}

// A pod that has just begun and has heard nobody takes no Service away, however
// long that lasts, and what isolation no longer asks for at once.
func TestWhoHasHeardNobodyTakesNothingAway(t *testing.T) {
	f := startAs(t, Config{Linger: time.Millisecond})
	ns := "deaf"
	f.put(namespace(ns))
	known := in(ns, view(overlay.Virtual, "west/web-x7k2p"))
	known.Slices[0].Isolated = true
	f.Set(known)
	all := []Ref{{KindService, ns, "slicewire-" + short(ns, "web")}, {KindImport, ns, "web"}, {KindMCSImport, ns, "web"}}
	there := func(want bool, list ...Ref) func() error {
		return func() error {
			for _, r := range list {
				if (f.get(r.Kind, r.Namespace, r.Name) != nil) != want {
					return fmt.Errorf("%v is there: %v", r, !want)
				}
			}
			return nil
		}
	}
	policy := Ref{KindNetworkPolicy, ns, "red-" + ns}
	f.eventually(there(true, append(all, policy)...))
	unheard := in(ns)
	unheard.Deaf, unheard.Slices[0].Isolated = true, false
	f.Set(unheard)
	f.eventually(there(false, policy))
	f.still(2 * time.Second)
	if err := there(true, all...)(); err != nil {
		t.Fatal(err)
	}
	f.Set(in(ns))
	f.eventually(there(false, all...))
}

// A service that is gone for less than the time to linger keeps its address: a
// daemon that has just started does not know yet what there is.
func TestWhatIsGoneForAMomentStays(t *testing.T) {
	f := start(t)
	ns := "linger"
	f.put(namespace(ns))
	v := view(overlay.Virtual, "west/web-x7k2p")
	f.Set(in(ns, v))
	name := "slicewire-" + short(ns, "web")
	f.eventually(func() error {
		if f.get(KindService, ns, name) == nil {
			return errors.New("no Service")
		}
		return nil
	})
	f.still(300 * time.Millisecond)
	uid := f.get(KindService, ns, name).GetUID()
	f.Set(in(ns))
	f.eventually(func() error {
		if n := len(f.Result().Doors); n != 0 {
			return fmt.Errorf("%d doors are open", n)
		}
		return nil
	})
	f.Set(in(ns, v))
	f.eventually(func() error {
		if n := len(f.Result().Doors); n != 1 {
			return fmt.Errorf("%d doors are open", n)
		}
		return nil
	})
	f.still(time.Second)
	if u := f.get(KindService, ns, name); u == nil || u.GetUID() != uid {
		t.Error("the Service was made anew")
	}
}

// The policy of an isolated namespace is put back when somebody changes it, and
// goes when isolation is off. Labels go with the binding.
func TestDriftOfIsolation(t *testing.T) {
	f := start(t)
	ns := "drift"
	f.put(namespace(ns))
	f.Set(in(ns))
	policy := "red-" + ns
	f.eventually(func() error {
		if f.get(KindNetworkPolicy, ns, policy) == nil || f.get(KindNamespace, "", ns).GetLabels()[kube.LabelSlice] != "red" {
			return errors.New("no policy or label")
		}
		return nil
	})
	f.still(time.Second)
	for _, patch := range []string{
		`[{"op": "add", "path": "/spec/ingress/-", "value": {}}]`,
		`[{"op": "add", "path": "/spec/podSelector/matchLabels", "value": {"app": "x"}}]`,
	} {
		if _, err := f.client.Dynamic.Resource(f.setting.kinds[KindNetworkPolicy].resource).Namespace(ns).Patch(f.ctx, policy, types.JSONPatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		f.eventually(func() error {
			u := f.get(KindNetworkPolicy, ns, policy)
			if len(objectsIn(u.Object, "spec", "ingress")) != 1 || field(u.Object, "spec", "podSelector", "matchLabels") != nil {
				return fmt.Errorf("not put back: %v", u.Object["spec"])
			}
			return nil
		})
	}
	f.eventually(func() error {
		if e := f.events(ns); e["NetPolViolation"] == 0 {
			return fmt.Errorf("events %v", e)
		}
		return nil
	})
	f.still(time.Second)
	off := in(ns)
	off.Slices[0].Isolated = false
	f.Set(off)
	f.eventually(func() error {
		if f.get(KindNetworkPolicy, ns, policy) != nil {
			return errors.New("the policy stays")
		}
		return nil
	})
	f.Set(&State{Site: "east"})
	f.eventually(func() error {
		u := f.get(KindNamespace, "", ns)
		if l, a := u.GetLabels(), u.GetAnnotations(); l[kube.LabelSlice] != "" || l[kube.LabelInject] != "" || a[kube.AnnotationSlice] != "" {
			return fmt.Errorf("labels %v annotations %v", l, a)
		}
		return nil
	})
	f.still(time.Second)
}

// KubeSlice's own definition of an export has no conditions: the rest of the status
// is written all the same.
func TestAnExportWithoutConditions(t *testing.T) {
	f := start(t)
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	patch := []byte(`[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions"}]`)
	if _, err := f.client.Dynamic.Resource(crds).Patch(f.ctx, "serviceexports.networking.kubeslice.io", types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ns := "strict"
	f.put(namespace(ns), strings.ReplaceAll(web, "shop", ns))
	f.Set(in(ns))
	f.eventually(func() error {
		u := f.get(KindExport, ns, "web")
		if text(u.Object, "status", "exportStatus") != "READY" {
			return fmt.Errorf("status %v, fault %s", u.Object["status"], f.Status().Fault)
		}
		return nil
	})
	f.still(time.Second)
}

// A pod whose address was not known a moment ago is let in as soon as it is.
func TestAPodThatIsNewerThanItsNews(t *testing.T) {
	f := start(t)
	f.put(namespace("newer"))
	f.Set(in("newer"))
	f.eventually(func() error {
		if !f.Status().Synced {
			return errors.New("not synced")
		}
		return nil
	})
	admitted := make(chan bool, 1)
	go func() {
		for range 20 { // each waits a second at most
			if f.Admit(f.ctx, "red", netip.MustParseAddr("10.244.7.7")) {
				admitted <- true
				return
			}
		}
		admitted <- false
	}()
	f.put(pod("newer", "a", "x", "10.244.7.7"))
	if !<-admitted {
		t.Error("the pod is not let in")
	}
	if f.Admit(f.ctx, "red", netip.MustParseAddr("192.0.2.9")) {
		t.Error("who is no pod is let in")
	}
}
