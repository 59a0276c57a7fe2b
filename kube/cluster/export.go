package cluster

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// maxPorts is how many ports a service may have, and maxAliases how many names.
const (
	maxPorts   = 64
	maxAliases = 64
)

// An exported is what became of a ServiceExport.
type exported struct {
	object *Object
	slice  *Slice // nil: none is known
	export *Export
	fault  fault // zero: it is exported
	left   []string
}

// A fault says why an export is not in force.
type fault struct {
	condition string // Valid or Ready
	reason    string // as the Multi-Cluster Services API names it, where it does
	message   string
	pending   bool // it may come right by itself
}

// exports decides about every ServiceExport, in the order of the objects;
// KubeSlice's come first. replica chooses which endpoints this node publishes.
//
//  1. The slice is the one it names, else its namespace's.
//  2. The namespace has to be bound to the slice at this site.
//  3. Ports and names are checked; a service is exported once.
//  4. Endpoints are pods of the same namespace that are ready. Others are left
//     out, whatever an EndpointSlice says: who may write one could else have
//     slicewire lead to any address.
func exports(o *Objects, state *State, replica *replicas) []exported {
	var out []exported
	taken := make(map[[2]string]*Object)
	for _, kind := range []Kind{KindExport, KindMCSExport} {
		for _, x := range o.kinds[kind] {
			if x.Ending {
				continue
			}
			e := exported{object: x}
			e.slice, e.fault = sliceFor(x, state)
			if first := taken[[2]string{x.Namespace, x.Name}]; first != nil && e.fault == (fault{}) {
				e.fault = fault{"Ready", "Pending", "the ServiceExport of that name of networking.kubeslice.io exports the service", true}
			}
			if e.fault == (fault{}) {
				taken[[2]string{x.Namespace, x.Name}] = x
				e.decide(o, replica)
			}
			out = append(out, e)
		}
	}
	return out
}

func sliceFor(x *Object, state *State) (*Slice, fault) {
	var s *Slice
	if name := x.Export.Slice; name != "" {
		if s = state.slice(name); s == nil {
			return nil, fault{"Ready", "Pending", fmt.Sprintf("there is no slice %.80q at this site", name), true}
		}
	} else if s = state.sliceOf(x.Namespace); s == nil {
		return nil, fault{"Ready", "Pending", fmt.Sprintf("namespace %s is an application namespace of no slice at this site", x.Namespace), true}
	}
	switch {
	case !slices.Contains(s.Namespaces, x.Namespace):
		return s, fault{"Ready", "Pending", fmt.Sprintf("namespace %s is no application namespace of slice %s at this site", x.Namespace, s.Name), true}
	case !s.Networked:
		return s, fault{"Ready", "Pending", fmt.Sprintf("slice %s has no network here", s.Name), true}
	}
	return s, fault{}
}

// decide reads what is exported.
func (e *exported) decide(o *Objects, replica *replicas) {
	x := e.object
	if !overlay.ValidLabel(x.Name) {
		e.fault = fault{"Valid", "InvalidName", fmt.Sprintf("%.80q is not a DNS label", x.Name), false}
		return
	}
	terms, errs := manifest.Terms(x.Annotations)
	if len(errs) > 0 {
		e.fault = fault{"Valid", "InvalidAnnotation", errs[0].Error(), false}
		return
	}
	proxied, err := manifest.Proxied(x.Annotations)
	if err != nil {
		e.fault = fault{"Valid", "InvalidAnnotation", err.Error(), false}
		return
	}
	if terms.Exported, err = x.Export.Exported.Encode(); err != nil {
		e.fault = fault{"Valid", "InvalidExported", err.Error(), false}
		return
	}
	terms.Created = x.Created.Truncate(time.Second)
	out := &Export{Slice: e.slice.Name, Namespace: x.Namespace, Name: x.Name, Terms: terms, Proxied: proxied}
	if out.Aliases, e.fault = aliasesOf(x.Export.Aliases); e.fault != (fault{}) {
		return
	}
	if x.Kind == KindExport {
		e.fault = e.byPods(o, replica, out)
	} else {
		e.fault = e.byService(o, replica, out)
	}
	if e.fault == (fault{}) {
		e.export = out
	}
}

func aliasesOf(list []string) (out []string, _ fault) {
	if len(list) > maxAliases {
		return nil, fault{"Valid", "InvalidAlias", fmt.Sprintf("more than %d aliases", maxAliases), false}
	}
	for _, a := range list {
		name := strings.TrimSuffix(strings.ToLower(a), ".")
		if !overlay.ValidDNSName(name) || overlay.InZones(name) {
			return nil, fault{"Valid", "InvalidAlias", fmt.Sprintf("alias %.80q is not a DNS name outside the slice's zones", a), false}
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out, fault{}
}

// portsOf checks ports.
func portsOf(list []Port) (out []overlay.ServicePort, left []string, _ fault) {
	if len(list) > maxPorts {
		return nil, nil, fault{"Valid", "InvalidPort", fmt.Sprintf("more than %d ports", maxPorts), false}
	}
	for _, p := range list {
		q := overlay.ServicePort{Name: p.Name, Port: uint16(p.Number), Protocol: overlay.Protocol(p.Protocol)}
		switch {
		case p.Number < 1 || p.Number > 65535:
			return nil, nil, fault{"Valid", "InvalidPort", fmt.Sprintf("port %d is outside 1 to 65535", p.Number), false}
		case q.Name != "" && !overlay.ValidLabel(q.Name):
			return nil, nil, fault{"Valid", "InvalidPort", fmt.Sprintf("port name %.80q is not a DNS label", p.Name), false}
		case q.Protocol != overlay.TCP && q.Protocol != overlay.UDP:
			left = append(left, fmt.Sprintf("port %d/%.8s: neither TCP nor UDP", p.Number, p.Protocol))
			continue
		case slices.ContainsFunc(out, func(r overlay.ServicePort) bool {
			return r.Port == q.Port && r.Protocol == q.Protocol || r.Name == q.Name
		}):
			return nil, nil, fault{"Valid", "InvalidPort", fmt.Sprintf("port %v is there twice", q), false}
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		return nil, left, fault{"Valid", "NoPorts", "no port that can be exported", false}
	}
	return out, left, fault{}
}

// byPods finds the endpoints of KubeSlice's export: pods by their labels.
func (e *exported) byPods(o *Objects, replica *replicas, out *Export) fault {
	var f fault
	if out.Ports, e.left, f = portsOf(e.object.Export.Ports); f != (fault{}) {
		return f
	}
	selector := e.object.Export.Selector
	if len(selector) == 0 {
		return fault{"Valid", "NoSelector", "spec.selector.matchLabels selects no pods", false}
	}
	targets := make([]uint16, len(out.Ports))
	for i, p := range out.Ports {
		targets[i] = p.Port
	}
	for _, pod := range o.selected(e.object.Namespace, selector) {
		e.add(replica, out, pod, Backend{Name: pod.Name, Addr: pod.Pod.first(), Targets: targets})
	}
	return fault{}
}

func matches(selector map[string]string, labels Labels) bool {
	for k, v := range selector {
		if !labels.has(k, v) {
			return false
		}
	}
	return true
}

// byService finds the endpoints of the Service of the export's name.
func (e *exported) byService(o *Objects, replica *replicas, out *Export) fault {
	svc := o.Get(Ref{KindService, out.Namespace, out.Name})
	switch {
	case svc == nil || svc.Ending:
		return fault{"Valid", "NoService", fmt.Sprintf("there is no Service %s/%s", out.Namespace, out.Name), true}
	case svc.Service.External:
		return fault{"Valid", "InvalidServiceType", "a Service of type ExternalName cannot be exported", false}
	case svc.ours:
		return fault{"Valid", "InvalidServiceType", "the Service stands for an imported one", false}
	}
	if !svc.Service.Headless {
		out.Terms.Type = overlay.Virtual
	} else {
		out.Terms.Type = overlay.Headless
	}
	out.Terms.AffinitySeconds = svc.Service.Affinity
	var f fault
	if out.Ports, e.left, f = portsOf(svc.Service.Ports); f != (fault{}) {
		return f
	}
	for _, s := range o.slicesOf[[2]string{out.Namespace, out.Name}] {
		targets := targetsOf(out.Ports, s.Slice.Ports)
		for _, x := range s.Slice.Endpoints {
			pod := o.podAt(out.Namespace, x.Pod)
			switch {
			case !x.Ready:
			case x.Pod == "" || pod == nil || !slices.Contains(pod.Pod.IPs, x.Addr):
				e.leave("endpoint %v: not the address of a pod of namespace %s", x.Addr, out.Namespace)
			case targets == nil:
				e.leave("endpoint %v: its EndpointSlice lacks a port of the Service", x.Addr)
			default:
				name := x.Hostname
				if name == "" {
					name = pod.Name
				}
				e.add(replica, out, pod, Backend{Name: name, Addr: x.Addr, Targets: targets})
			}
		}
	}
	return fault{}
}

// targetsOf finds the slice's number for every port of the Service, by name.
func targetsOf(ports []overlay.ServicePort, list []Port) []uint16 {
	out := make([]uint16, len(ports))
	for i, p := range ports {
		k := slices.IndexFunc(list, func(q Port) bool { return q.Name == p.Name && q.Protocol == string(p.Protocol) })
		if k < 0 || list[k].Number < 1 || list[k].Number > 65535 {
			return nil
		}
		out[i] = uint16(list[k].Number)
	}
	return out
}

// maxLeft bounds how many of those left out are named.
const maxLeft = 3

func (e *exported) leave(format string, args ...any) {
	if len(e.left) < maxLeft {
		e.left = append(e.left, fmt.Sprintf(format, args...))
	}
}

// add adds a pod as an endpoint, unless another replica publishes it. A pod that
// the Service leads to by both families is reached by its own first one.
func (e *exported) add(replica *replicas, out *Export, pod *Object, b Backend) {
	switch {
	case !pod.Pod.Ready || len(pod.Pod.IPs) == 0:
		return
	case pod.Pod.HostNetwork:
		e.leave("pod %s has the network of its node: an export would open the node's ports", pod.Name)
		return
	case !replica.mine(pod.Namespace + "/" + pod.Name):
		return
	}
	b.Pod = pod.Name
	if i := slices.IndexFunc(out.Backends, func(x Backend) bool { return x.Pod == b.Pod }); i >= 0 {
		if b.Addr == pod.Pod.first() {
			out.Backends[i].Addr, out.Backends[i].Targets = b.Addr, b.Targets
		}
		return
	}
	if !overlay.ValidLabel(b.Name) {
		b.Name = "pod-" + short(pod.Namespace, pod.Name)
	}
	for slices.ContainsFunc(out.Backends, func(x Backend) bool { return x.Name == b.Name }) {
		b.Name = "pod-" + short(pod.Namespace, pod.Name, b.Name)
	}
	out.Backends = append(out.Backends, b)
}

// replicas are the slicewire pods of this cluster, by their addresses; self is
// one of them.
type replicas struct {
	self netip.Addr
	all  []netip.Addr
}

// mine reports whether the endpoint of that name is this replica's: whose hash
// with it is the greatest. One that goes moves only its own.
func (r *replicas) mine(name string) bool {
	best, most := r.self, weight(r.self, name)
	for _, a := range r.all {
		if w := weight(a, name); w > most || w == most && a.Compare(best) < 0 {
			best, most = a, w
		}
	}
	return best == r.self
}

// writes reports whether it is this replica that writes an object of which there is
// one for all of them. One that is not ready leaves that to the others.
func (r *replicas) writes(name string) bool {
	return (len(r.all) == 0 || slices.Contains(r.all, r.self)) && r.mine(name)
}

// has reports whether an address is that of a replica.
func (r *replicas) has(a netip.Addr) bool { return a == r.self || slices.Contains(r.all, a) }

func weight(a netip.Addr, name string) uint64 {
	h := fnv.New64a()
	h.Write(a.AsSlice())
	h.Write([]byte(name))
	x := h.Sum64() // its high bits hardly depend on the last bytes
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	return x ^ x>>33
}

// findReplicas lists the slicewire pods that are ready: those of the namespace
// with the same labels as the pod that has the own address.
func findReplicas(o *Objects, namespace string, self netip.Addr) *replicas {
	r := &replicas{self: self}
	own := ownPod(o, namespace, self)
	for _, p := range o.pods[namespace] {
		if own != nil && p.Pod.Ready && len(p.Pod.IPs) > 0 && sameApp(own.Labels, p.Labels) {
			r.all = append(r.all, p.Pod.first())
		}
	}
	return r
}

// addresses lists where pods of the cluster reach this one: self, and the address
// of the other family that its pod has. None is known of who runs in no pod.
func addresses(o *Objects, s *setting) []netip.Addr {
	out := []netip.Addr{s.self}
	if own := ownPod(o, s.namespace, s.self); own != nil {
		for _, a := range own.Pod.IPs {
			if len(out) == 1 && a.Is4() != s.self.Is4() {
				out = append(out, a)
			}
		}
	}
	return out
}

// sameApp compares what a controller's pods have in common.
func sameApp(a, b Labels) bool {
	of := func(l Labels) Labels {
		return slices.DeleteFunc(slices.Clone(l), func(x label) bool { return !strings.HasPrefix(x.key, "app") })
	}
	x := of(a)
	return len(x) > 0 && slices.Equal(x, of(b))
}

func ownPod(o *Objects, namespace string, self netip.Addr) *Object {
	for _, p := range o.pods[namespace] {
		if slices.Contains(p.Pod.IPs, self) && !p.Pod.Over {
			return p
		}
	}
	return nil
}
