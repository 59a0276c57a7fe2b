package cluster

import (
	"cmp"
	"net/netip"
	"slices"
)

// Objects are all objects of a cluster at one time, and the indexes that
// decisions need. They are not changed after NewObjects.
type Objects struct {
	all        map[Ref]*Object
	kinds      [numKinds][]*Object     // sorted by namespace, name
	pods       map[string][]*Object    // by namespace
	labelled   map[[3]string][]*Object // pods by namespace and one label, where exports select
	slicesOf   map[[2]string][]*Object // EndpointSlices by namespace and Service
	namespaces map[netip.Addr]string   // of the pod that has the address as its own
}

// NewObjects indexes objects. A Ref that is there twice counts once.
func NewObjects(list []*Object) *Objects {
	o := &Objects{
		all: make(map[Ref]*Object, len(list)), pods: make(map[string][]*Object),
		slicesOf: make(map[[2]string][]*Object), namespaces: make(map[netip.Addr]string),
	}
	for _, x := range list {
		if _, twice := o.all[x.Ref]; twice {
			continue
		}
		o.all[x.Ref] = x
		o.kinds[x.Kind] = append(o.kinds[x.Kind], x)
	}
	for _, k := range o.kinds {
		slices.SortFunc(k, func(a, b *Object) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	exporting := make(map[string]bool)
	for _, x := range o.kinds[KindExport] {
		exporting[x.Namespace] = true
	}
	o.labelled = make(map[[3]string][]*Object)
	for _, x := range o.kinds[KindPod] {
		if exporting[x.Namespace] {
			for _, l := range x.Labels {
				key := [3]string{x.Namespace, l.key, l.value}
				o.labelled[key] = append(o.labelled[key], x)
			}
		}
		o.pods[x.Namespace] = append(o.pods[x.Namespace], x)
		if x.Pod.HostNetwork || x.Pod.Over {
			continue // the address is the node's, or free
		}
		for _, a := range x.Pod.IPs {
			o.namespaces[a] = x.Namespace
		}
	}
	for _, x := range o.kinds[KindEndpointSlice] {
		if x.Slice.Service != "" {
			key := [2]string{x.Namespace, x.Slice.Service}
			o.slicesOf[key] = append(o.slicesOf[key], x)
		}
	}
	return o
}

// Get returns an object, nil when there is none.
func (o *Objects) Get(r Ref) *Object { return o.all[r] }

// exists reports whether a namespace is there and will be.
func (o *Objects) exists(namespace string) bool {
	n := o.all[Ref{Kind: KindNamespace, Name: namespace}]
	return n != nil && !n.Ending
}

// selected returns the pods of a namespace that have all labels of a selector,
// which has one at least.
func (o *Objects) selected(namespace string, selector map[string]string) (out []*Object) {
	var few []*Object
	first := true
	for k, v := range selector {
		if list := o.labelled[[3]string{namespace, k, v}]; first || len(list) < len(few) {
			few, first = list, false
		}
	}
	for _, pod := range few {
		if matches(selector, pod.Labels) {
			out = append(out, pod)
		}
	}
	return out
}

// podAt returns the pod of a namespace that has an address, nil when none.
func (o *Objects) podAt(namespace, name string) *Object {
	return o.all[Ref{KindPod, namespace, name}]
}

// An Admission says which slice's services a pod may use, by its address.
type Admission struct {
	namespaces map[netip.Addr]string
	state      *State
}

// NewAdmission makes one of the cluster's pods and what the slices bind.
func NewAdmission(o *Objects, state *State) *Admission { return &Admission{o.namespaces, state} }

// Known reports whether the address is a pod's.
func (a *Admission) Known(client netip.Addr) bool {
	_, known := a.namespaces[client.Unmap()]
	return known
}

// Admits reports whether the slice binds the namespace of the pod that has the
// address. Addresses of no pod, and those of nodes, are never admitted.
func (a *Admission) Admits(slice string, client netip.Addr) bool {
	namespace, known := a.namespaces[client.Unmap()]
	s := a.state.slice(slice)
	return known && s != nil && s.binds(namespace)
}
