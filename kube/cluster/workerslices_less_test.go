package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Who may not read Slices does all else, as after an upgrade whose rights come
// later, and writes them as soon as it may.
func TestWithoutTheRightToReadSlices(t *testing.T) {
	f := defined(t)
	const ns = "unread"
	f.put(namespace("slicewire-system"), namespace(system), namespace(ns))
	client, role, _ := f.impersonate("less")
	rules, _, _ := unstructured.NestedSlice(role.Object, "rules")
	less := role.DeepCopy()
	kept := slices.DeleteFunc(slices.Clone(rules), func(r any) bool { return slices.Contains(texts(r.(map[string]any), "resources"), "slices") })
	if len(kept) != len(rules)-1 {
		t.Fatalf("%d rules of %d are kept", len(kept), len(rules))
	}
	less.Object["rules"] = kept
	admin := f.client
	if err := f.apply(less); err != nil {
		t.Fatal(err)
	}
	f.client = client
	f.run(Config{})
	f.client = admin
	f.Set(toldOf(t, ns, TunnelUp))
	f.eventually(func() error {
		if f.get(KindNetworkPolicy, ns, "red-"+ns) == nil {
			return fmt.Errorf("the namespace is not isolated: %+v", f.Status())
		}
		return nil
	})
	f.still(time.Second)
	if u := f.get(KindSlice, system, "red"); u != nil || f.Status().Fault != "" {
		t.Errorf("a Slice %v, fault %q", u, f.Status().Fault)
	}
	if err := f.apply(role); err != nil {
		t.Fatal(err)
	}
	f.within(2*time.Minute, func() error {
		if f.get(KindSlice, system, "red") == nil {
			return errors.New("no Slice, now that it may")
		}
		return nil
	})
	f.Set(&State{Site: "east"})
	f.eventually(func() error {
		if f.get(KindSlice, system, "red") != nil {
			return errors.New("the Slice is still there")
		}
		return nil
	})
}

// Definitions of KubeSlice that lack fields which came later get the rest.
func TestASliceWithFewerFields(t *testing.T) {
	f := start(t)
	crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
	var patch []string
	later := []string{"sliceGatewayProtocol", "sliceGatewayServiceType", "sliceOverlayNetworkDeploymentMode"}
	for _, field := range later {
		patch = append(patch, `{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/sliceConfig/properties/`+field+`"}`)
	}
	if _, err := f.client.Dynamic.Resource(crds).Patch(f.ctx, "slices.networking.kubeslice.io", types.JSONPatchType, []byte("["+strings.Join(patch, ", ")+"]"), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	const ns = "fewer"
	f.put(namespace(system), namespace(ns), namespace("metrics"))
	refused := func() error { // the server takes a moment to go by another definition
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "networking.kubeslice.io/v1beta1", "kind": "Slice", "metadata": map[string]any{"name": "probe", "namespace": ns},
			"status": map[string]any{"sliceConfig": map[string]any{later[0]: "UDP"}}}}
		if err := f.apply(u); err == nil {
			return errors.New("the server takes a field that the definition lacks")
		}
		return nil
	}
	f.eventually(refused)
	f.Set(toldOf(t, ns, TunnelUp))
	f.eventually(func() error {
		u := f.get(KindSlice, system, "red")
		if u == nil || text(u.Object, "status", "sliceConfig", "clusterSubnetCIDR") != "10.1.16.0/20" || text(u.Object, "status", "sliceConfig", later[0]) != "" {
			return fmt.Errorf("the Slice is %v, fault %s", u, f.Status().Fault)
		}
		return nil
	})
	f.still(time.Second)
	if s := f.Status().Fault; s != "" {
		t.Errorf("fault %s", s)
	}
	before := f.Status().Writes
	two := toldOf(t, ns, TunnelUp)
	two.Slices[0].Namespaces = append(two.Slices[0].Namespaces, "metrics")
	f.Set(two)
	f.eventually(func() error {
		if n := texts(f.get(KindSlice, system, "red").Object, "status", "applicationNamespaces"); len(n) != 2 {
			return fmt.Errorf("namespaces %v", n)
		}
		return nil
	})
	f.still(time.Second)
	if n := f.Status().Writes - before; n > 6 { // the namespace's labels, its policy, and the status, not field by field
		t.Errorf("%d requests", n)
	}
	f.Set(&State{Site: "east"})
	f.eventually(func() error {
		if f.get(KindSlice, system, "red") != nil {
			return errors.New("the Slice is still there")
		}
		return nil
	})
}
