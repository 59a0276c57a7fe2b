package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"slicewire/kube/apitest"
	"slicewire/overlay"
)

// dual makes a ready pod that has an address of each family.
func dual(namespace, name, app, first, second string) string {
	return strings.Replace(pod(namespace, name, app, first), `"}], conditions`, `"}, {ip: "`+second+`"}], conditions`, 1)
}

// Of a pod that a Service leads to by both families, the one that comes first in
// the cluster is gone by, in whatever order the EndpointSlices are; of a Service of
// one family, that one, whatever else the pod has.
func TestFamiliesOfAnExport(t *testing.T) {
	const port = "{name: http, port: 8080, protocol: TCP}"
	v4 := slice("web", port, endpointOf("web-a", "10.244.1.1"))
	v6 := strings.NewReplacer("IPv4", "IPv6", "web-1", "web-0").Replace(slice("web", strings.Replace(port, "8080", "8086", 1), endpointOf("web-a", "fd24::1")))
	for _, c := range []struct {
		name, pod string
		slices    []string
		want      string
	}{
		{"both, IPv4 first", dual("shop", "web-a", "web", "10.244.1.1", "fd24::1"), []string{v4, v6}, "web-a=10.244.1.1[8080]"},
		{"both, IPv6 first", dual("shop", "web-a", "web", "fd24::1", "10.244.1.1"), []string{v4, v6}, "web-a=fd24::1[8086]"},
		{"IPv6 only", dual("shop", "web-a", "web", "10.244.1.1", "fd24::1"), []string{v6}, "web-a=fd24::1[8086]"},
		{"IPv4 only", dual("shop", "web-a", "web", "fd24::1", "10.244.1.1"), []string{v4}, "web-a=10.244.1.1[8080]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := read(t, append(c.slices, namespace("shop"), mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), c.pod)...)
			list := exports(o, red(), findReplicas(o, "slicewire-system", here().self))
			if want := "red ClusterSetIP [http 80/TCP] " + c.want; len(list) != 1 || list[0].summary() != want {
				t.Errorf("got %s, want %s", list[0].summary(), want)
			}
		})
	}
}

// Doors are open at both addresses of slicewire's pod, and Services that lead there
// may have both families; with one address nothing is said of families. A Service
// that has two addresses keeps them while the pod's second is not known.
func TestFamiliesOfAnImport(t *testing.T) {
	state, six := red(view(overlay.Virtual, "west/web-7f9c-abcde")), netip.MustParseAddr("fd24::2")
	name := "slicewire-" + short("shop", "web")
	policy := func(p *plan) string {
		return text(p.wanted(KindService, "shop", name).whole().Object, "spec", "ipFamilyPolicy")
	}
	one := work(read(t, namespace("shop"), pod("slicewire-system", "gw", "slicewire", "10.244.0.2")), state, here(), nil)
	if got := one.refs(KindEndpointSlice); len(got) != 1 || policy(one) != "" || len(one.result.Self) != 1 {
		t.Errorf("with one family: %v, policy %q, %v", got, policy(one), one.result.Self)
	}
	both := work(read(t, namespace("shop"), dual("slicewire-system", "gw", "slicewire", "10.244.0.2", "fd24::2")), state, here(), nil)
	if !slices.Equal(both.result.Self, []netip.Addr{here().self, six}) || policy(both) != "PreferDualStack" {
		t.Errorf("the pod is at %v, the Service has the policy %q", both.result.Self, policy(both))
	}
	var ports []int64
	for _, a := range both.result.Self {
		e := both.wanted(KindEndpointSlice, "shop", name+"-"+short(a.String())[:8]).whole().Object
		if text(e, "addressType") != familyOf(a) || texts(objectsIn(e, "endpoints")[0], "addresses")[0] != a.String() {
			t.Errorf("EndpointSlice of %v: %v", a, e)
		}
		ports = append(ports, number(objectsIn(e, "ports")[0], "port"))
	}
	if ports[0] != ports[1] || ports[0] != int64(both.result.Doors[0].Listen) {
		t.Errorf("ports %v, the door's is %d", ports, both.result.Doors[0].Listen)
	}
	if both.urgent == one.urgent || both.result.Equal(&one.result) {
		t.Error("another address of the pod changes nothing")
	}

	later := `{apiVersion: v1, kind: Service, metadata: {name: ` + name + `, namespace: shop, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {clusterIPs: [10.96.0.9, "fd96::9"]}}`
	began := work(read(t, namespace("shop"), later), state, here(), nil)
	if policy(began) != "PreferDualStack" {
		t.Errorf("a pod that does not know itself says %q of a Service with two addresses", policy(began))
	}
	if got := began.result.Imports[0].Addrs; len(got) != 2 {
		t.Errorf("pods are told %v", got)
	}

	leftover := both.with(t, read(t, namespace("shop"), dual("slicewire-system", "gw", "slicewire", "10.244.0.2", "fd24::2")))
	gone := work(leftover, red(), here(), nil)
	if n := len(gone.unwanted(here())); n != 5 {
		t.Errorf("%d objects of an import that has gone are removed, want 5: the Service, two EndpointSlices, two ServiceImports", n)
	}
}

// A dual-stack API server gives an import addresses of both families, which the
// ServiceImport names, also where the Service had one before; and what the pod that
// ends has told of itself is taken back for both.
func TestAnImportOfBothFamilies(t *testing.T) {
	s := apitest.Serve(t)
	s.StopAPI()
	s.Flags = append(s.Flags, "--service-cluster-ip-range=10.96.0.0/16,fd96::/112")
	if err := s.StartAPI(); err != nil {
		t.Fatal(err)
	}
	f := connect(t, s)
	if err := apitest.InstallCRDs(f.ctx, f.client, "../../deploy/crds"); err != nil {
		t.Fatal(err)
	}
	ns := "dual"
	f.put(namespace("slicewire-system"), namespace(ns))
	f.run(Config{})
	f.Set(in(ns, view(overlay.Virtual, "west/web-x7k2p")))
	families := func(want string) error {
		u := f.get(KindMCSImport, ns, "web")
		svc := f.get(KindService, ns, "slicewire-"+short(ns, "web"))
		if u == nil || svc == nil {
			return errors.New("not imported")
		}
		if got := fmt.Sprint(texts(u.Object, "spec", "ipFamilies")); got != want || !slices.Equal(texts(u.Object, "spec", "ips"), texts(svc.Object, "spec", "clusterIPs")) {
			return fmt.Errorf("the import has %v, %s, the Service %v", texts(u.Object, "spec", "ips"), got, svc.Object["spec"])
		}
		return nil
	}
	f.eventually(func() error { return families("[IPv4]") })

	own := dual("slicewire-system", "gw", "slicewire", "10.244.0.2", "fd24::2")
	f.put(own)
	f.eventually(func() error { return families("[IPv4 IPv6]") })
	before := texts(f.get(KindService, ns, "slicewire-"+short(ns, "web")).Object, "spec", "clusterIPs")
	f.remove(KindPod, "slicewire-system", "gw")
	f.still(time.Second)
	if after := texts(f.get(KindService, ns, "slicewire-"+short(ns, "web")).Object, "spec", "clusterIPs"); !slices.Equal(before, after) {
		t.Errorf("the addresses were %v and are %v when the pod is not known for a moment", before, after)
	}
	f.put(own)
	f.eventually(func() error {
		list, err := f.client.Dynamic.Resource(kinds()[KindEndpointSlice].resource).Namespace(ns).List(f.ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 2 {
			return fmt.Errorf("%d EndpointSlices: %w", len(list.Items), err)
		}
		return nil
	})
	if err := f.Leave(f.ctx); err != nil {
		t.Fatal(err)
	}
	list, err := f.client.Dynamic.Resource(kinds()[KindEndpointSlice].resource).Namespace(ns).List(f.ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Items {
		if ready, said := field(objectsIn(e.Object, "endpoints")[0], "conditions", "ready").(bool); ready || !said {
			t.Errorf("%s leads to a pod that ends", e.GetName())
		}
	}
}

// Older definitions of an import have no families: the rest is written all the same.
func TestAnImportWithoutFamilies(t *testing.T) {
	f := start(t)
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	patch := []byte(`[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/ipFamilies"},
{"op": "remove", "path": "/spec/versions/1/schema/openAPIV3Schema/properties/spec/properties/ipFamilies"}]`)
	if _, err := f.client.Dynamic.Resource(crds).Patch(f.ctx, "serviceimports.multicluster.x-k8s.io", types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ns := "older"
	f.put(namespace(ns))
	f.Set(in(ns, view(overlay.Virtual, "west/web-x7k2p")))
	f.eventually(func() error {
		u := f.get(KindMCSImport, ns, "web")
		if u == nil || len(texts(u.Object, "spec", "ips")) != 1 || said(u, "Ready") != "True Ready" {
			return fmt.Errorf("import %v, fault %s", u, f.Status().Fault)
		}
		return nil
	})
	f.still(time.Second)
}
