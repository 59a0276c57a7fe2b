package cluster

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"

	"slicewire/overlay"
)

// Marks in wanted objects for the time at which they are written: what is wanted
// does not depend on when it was worked out.
const (
	nowMark        = "1970-01-01T00:00:00Z"
	unixMark int64 = -1
)

// A setting is what does not change while a Cluster runs.
type setting struct {
	namespace string     // slicewire's own
	self      netip.Addr // of this pod
	leaving   bool       // it takes no new connections
	kinds     [numKinds]kindInfo
	has       [numKinds]bool // the cluster has the kind
}

// A plan is what follows from objects and state.
type plan struct {
	objects *Objects
	result  Result
	wants   []want
	notices []notice
	listen  map[string]uint16 // ports of the doors, by key
	lost    map[string]int    // endpoints that are not published, by slice
	only6   int               // endpoints without an IPv4 address
	shut    int               // doors without a port
	deaf    bool              // as State's
	replica *replicas
	mute    string // why there are no Slices and SliceGateways; empty: there are
	urgent  uint64 // what is wanted of that which packets go by, in a number
}

// work works out a plan. before holds the ports given before. It is pure.
func work(o *Objects, state *State, s *setting, before map[string]uint16) *plan {
	p := &plan{objects: o, deaf: state.Deaf, replica: findReplicas(o, s.namespace, s.self)}
	exported := exports(o, state, p.replica)
	p.lost = fit(exported)
	p.only6 = withoutIPv4(exported)
	for i := range exported {
		if x := exported[i].export; x != nil {
			p.result.Exports = append(p.result.Exports, *x)
		}
	}
	list := derive(o, state)
	keys := doorKeys(list)
	given := doorsBefore(o, list, s.self)
	maps.Copy(given, before)
	p.listen = doorPorts(given, keys)
	p.shut = len(keys) - len(p.listen)
	p.result.Doors = doors(list, p.listen)
	p.result.Imports = imports(o, list)
	p.result.Self = addresses(o, s)

	p.wants = isolation(o, state, s.namespace, &s.kinds)
	p.notices = foreignPolicies(o, state)
	p.tellWorker(state, s)
	for i := range list {
		d := &list[i]
		p.wants = append(p.wants, d.service(o, &s.kinds, len(p.result.Self) > 1))
		for _, a := range p.result.Self {
			p.wants = append(p.wants, d.endpoints(s, a, p.listen))
		}
		if d.endpoint == nil {
			p.wants = append(p.wants, d.objects(o, &s.kinds, nowMark)...)
		}
	}
	for i := range exported {
		p.wants = append(p.wants, exported[i].statusOf(state, &s.kinds, nowMark, unixMark))
	}
	p.wants = slices.DeleteFunc(p.wants, func(w want) bool { return !s.has[w.Kind] })
	p.urgent = digest(list, p)
	slices.SortStableFunc(p.wants, func(a, b want) int { return cmp.Compare(urgency[a.Kind], urgency[b.Kind]) })
	return p
}

// tellWorker has the Slices and SliceGateways written that are this replica's to
// write.
func (p *plan) tellWorker(state *State, s *setting) {
	t := telling{p.objects, state, s, p.replica, p.wants}
	list := t.wants()
	if len(list) > 0 {
		p.mute = muted(p.objects)
	}
	if p.mute != "" {
		return
	}
	for _, w := range list {
		if p.replica.writes(w.String()) {
			p.wants = append(p.wants, w)
		}
	}
}

// digest makes a number of the derived Services, this pod's part of them, and the
// policies of isolation.
func digest(list []derived, p *plan) uint64 {
	h := fnv.New64a()
	for i := range list {
		v := list[i].view
		fmt.Fprintln(h, list[i].Ref, v.Ports, v.Affinity, len(v.Endpoints) > 0)
	}
	fmt.Fprintln(h, p.result.Self)
	for i := range p.result.Doors {
		fmt.Fprintln(h, p.result.Doors[i].Listen)
	}
	for i := range p.wants {
		if k := p.wants[i].Kind; k == KindNamespace || k == KindNetworkPolicy {
			fmt.Fprintln(h, p.wants[i].Ref, p.wants[i].slice)
		}
	}
	return h.Sum64()
}

// urgency is in which order objects are written: what keeps apart, what packets
// go by, and then what tells of it.
var urgency = [numKinds]int{KindNamespace: 0, KindNetworkPolicy: 1, KindService: 2, KindEndpointSlice: 3, KindExport: 4, KindMCSExport: 4, KindImport: 5, KindMCSImport: 6, KindSlice: 7, KindSliceGateway: 7}

// unwanted lists objects of slicewire's that nothing wants any more. What belongs
// to other slicewire pods stays while these are there, and what stands for
// services until somebody has told which there are. A Slice or SliceGateway is taken
// away by who writes it.
func (p *plan) unwanted(s *setting) (out []*Object) {
	wanted := make(map[Ref]bool, len(p.wants))
	for i := range p.wants {
		wanted[p.wants[i].Ref] = true
	}
	held := p.held(s)
	for _, kind := range []Kind{KindEndpointSlice, KindService, KindNetworkPolicy, KindImport, KindMCSImport, KindSlice, KindSliceGateway} {
		for _, x := range p.objects.kinds[kind] {
			if !x.ours || x.Ending || wanted[x.Ref] {
				continue
			}
			stays := held[x.Ref] || p.deaf
			switch kind {
			case KindEndpointSlice:
				service := Ref{KindService, x.Namespace, x.Slice.Service}
				stays = (held[service] || wanted[service]) && p.elsewhere(x, s) || p.deaf && !wanted[service]
			case KindImport, KindMCSImport:
				stays = p.deaf || held[Ref{KindService, x.Namespace, derivedName(x.Namespace, x.Name)}]
			case KindNetworkPolicy:
				stays = false
			case KindSlice, KindSliceGateway:
				stays = x.Namespace != overlay.SystemNamespace || !p.replica.writes(x.String())
			}
			if !stays {
				out = append(out, x)
			}
		}
	}
	return out
}

// held lists the derived Services that another slicewire pod serves: it knows of
// what they stand for, and this one, which may have begun a moment ago, does not.
// A pod that knows better takes its own EndpointSlice away, and the last one the
// Service.
func (p *plan) held(s *setting) map[Ref]bool {
	out := make(map[Ref]bool)
	for _, x := range p.objects.kinds[KindEndpointSlice] {
		if x.ours && !x.Ending && len(x.Slice.Endpoints) > 0 && p.elsewhere(x, s) {
			out[Ref{KindService, x.Namespace, x.Slice.Service}] = true
		}
	}
	return out
}

// elsewhere reports whether an EndpointSlice is that of another slicewire pod
// which is there.
func (p *plan) elsewhere(x *Object, s *setting) bool {
	if len(x.Slice.Endpoints) == 0 {
		return true // whose it is cannot be told, and it leads nowhere
	}
	a := x.Slice.Endpoints[0].Addr
	return !slices.Contains(p.result.Self, a) && ownPod(p.objects, s.namespace, a) != nil
}
