package dnsd

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// A Mode says how many of a service's endpoints an answer holds.
type Mode string

// The modes. Within equals every answer starts with another one.
const (
	All  Mode = "all"  // every endpoint, the nearest first
	Near Mode = "near" // the nearest only: of this site, else of the site with the shortest round trip
	One  Mode = "one"  // one of the nearest
)

// A View is all that a Server answers with.
type View struct {
	Entries  []Entry
	Services []overlay.ServiceView // shared: not to be changed any more
	// Reach says how well an endpoint's node is reached; nil: all alike.
	Reach map[overlay.NodeID]overlay.Reach
	Mode  Mode // empty means All
	// Lenient answers NOERROR without data where a name does not exist, as
	// KubeSlice's DNS does.
	Lenient bool
	// Reverse are the networks whose addresses have names here.
	Reverse []netip.Prefix
	// Forward are the clients for whom other names are asked upstream, if there
	// is an Upstream; nobody else's question goes there.
	Forward []netip.Addr
	// StandIns are for clients that reach services by other addresses than the
	// slice's: by namespace/name of the service. Such clients have a Server of
	// their own, with this view.
	StandIns map[string]StandIn
}

// A StandIn is what answers hold instead of the addresses of a service's
// endpoints and its virtual one, in every zone and for its aliases. A service
// with a virtual address has them always, as KEP-1645 wants: what is there
// refuses connections. A headless one has them as long as an endpoint of it is
// reached; where each of these has addresses of its own, they are those of its
// name in zones of KEP-1645.
type StandIn struct {
	Addrs []netip.Addr // of the service, in any order
	// Endpoints has the addresses of endpoints, by name and site as in their DNS
	// names: "pod-0.east". An endpoint without has no name, and an SRV record
	// that would lead to it leads to the service.
	Endpoints map[string][]netip.Addr
}

// dnsVersions is what "dns-version" says in a zone: which specification it
// keeps (Kubernetes DNS, KEP-1645).
var dnsVersions = map[string]string{overlay.Zone: "1.1.0", overlay.ClusterSetZone: "1.0.0"}

// service is an exported service and the addresses that its name has.
type service struct {
	overlay.ServiceView         // a copy: it may outlive its view
	live                []int32 // the endpoints that can be reached, the nearest first
	rank                []uint8 // of each of live

	standIn *StandIn // nil: its own addresses
	serial  uint32   // of the last snapshot that it is in; only for who makes snapshots, one at a time
}

// newService sorts a service's endpoints by how well they are reached. Detours
// (see overlay.Reaches) count only where there is nothing else.
func newService(v *overlay.ServiceView, reach map[overlay.NodeID]overlay.Reach) *service {
	s := &service{ServiceView: *v}
	s.live = make([]int32, 0, len(v.Endpoints))
	ranks := make([]uint8, len(v.Endpoints))
	for i := range v.Endpoints {
		r := reach[v.Endpoints[i].Origin]
		if r.Lost {
			continue
		}
		ranks[i] = r.Rank
		s.live = append(s.live, int32(i))
	}
	slices.SortStableFunc(s.live, func(a, b int32) int { return int(ranks[a]) - int(ranks[b]) })
	if n := slices.IndexFunc(s.live, func(i int32) bool { return ranks[i] >= overlay.RankDetour }); n > 0 {
		s.live = s.live[:n]
	}
	s.rank = make([]uint8, len(s.live))
	for i, e := range s.live {
		s.rank[i] = ranks[e]
	}
	return s
}

// addrsOf returns the addresses of an endpoint as clients are to have them.
func (s *service) addrsOf(e *overlay.EndpointView) []netip.Addr {
	if s.standIn != nil {
		return s.standIn.Endpoints[e.Name+"."+e.Origin.Site]
	}
	return []netip.Addr{e.Addr, e.Addr6}
}

// addresses puts the service's endpoints into a record's sets.
func (s *service) addresses(r *record, mode Mode) {
	if s.standIn != nil {
		if len(s.live) > 0 || s.Type == overlay.Virtual {
			r.addAll(s.standIn.Addrs, 0)
		}
		return
	}
	nearest := len(s.rank)
	if mode == Near || mode == One {
		nearest = 0
		for nearest < len(s.rank) && s.rank[nearest] == s.rank[0] {
			nearest++
		}
	}
	n4, n6 := 0, 0
	for _, e := range s.live[:nearest] {
		if s.Endpoints[e].Addr.IsValid() {
			n4++
		}
		if s.Endpoints[e].Addr6.IsValid() {
			n6++
		}
	}
	r.v4.addrs, r.v6.addrs = slices.Grow(r.v4.addrs, n4), slices.Grow(r.v6.addrs, n6)
	r.each.addrs = slices.Grow(r.each.addrs, nearest)
	for i, e := range s.live[:nearest] {
		r.add(s.Endpoints[e].Addr, s.rank[i])
		r.add(s.Endpoints[e].Addr6, s.rank[i])
		if one := cmp.Or(s.Endpoints[e].Addr, s.Endpoints[e].Addr6); one.IsValid() {
			r.each.add(one.Unmap(), s.rank[i])
		}
	}
	if mode == One {
		r.v4.most, r.v6.most = 1, 1
	}
}

// mcsAddresses puts what a service's name has in zones of KEP-1645 into a
// record's sets, and reports whether that is something else than elsewhere.
func (s *service) mcsAddresses(r *record) bool {
	if s.Type == overlay.Virtual {
		if len(s.live) > 0 || s.standIn != nil {
			r.addAll(s.ownAddrs(), 0)
		}
		return true
	}
	return s.standIn != nil && s.each(r)
}

// ownAddrs are the addresses of a service itself, where its endpoints' are not
// the only ones.
func (s *service) ownAddrs() []netip.Addr {
	switch {
	case s.standIn != nil:
		return s.standIn.Addrs
	case s.Type == overlay.Virtual:
		return []netip.Addr{s.Virtual, s.Virtual6}
	}
	return nil
}

// each puts the stand-ins of the endpoints that are reached into a record's sets,
// and reports whether all of them have one.
func (s *service) each(r *record) bool {
	for _, i := range s.live {
		addrs := s.addrsOf(&s.Endpoints[i])
		if len(addrs) == 0 {
			return false
		}
		r.addAll(addrs, 0)
	}
	return len(s.live) > 0
}

// at returns the range of s.Endpoints of one site: they are sorted by it.
func (s *service) at(site string) (from, to int) {
	from, _ = slices.BinarySearchFunc(s.Endpoints, site, func(e overlay.EndpointView, site string) int { return strings.Compare(e.Origin.Site, site) })
	for to = from; to < len(s.Endpoints) && s.Endpoints[to].Origin.Site == site; to++ {
	}
	return from, to
}

func (s *service) reached(i int) bool { return slices.Contains(s.live, int32(i)) }

// decideBelow answers for a name below a service's: labels stand before it, the
// nearest last. mcs says that the zone keeps the rules of KEP-1645: a service
// with a virtual address has no names of clusters and endpoints there, for
// which of them is used is not for the client to know.
func (s *snapshot) decideBelow(svc *service, labels []string, mcs bool, owner int, qtype uint16) verdict {
	none := verdict{rcode: rcodeNXDomain, soa: owner}
	found := verdict{soa: owner}
	last := labels[len(labels)-1]
	if protocol, is := strings.CutPrefix(last, "_"); is {
		ports := svc.portsOf(protocol)
		switch {
		case len(ports) == 0 || len(labels) > 2:
			return none
		case len(labels) == 1:
			return found // names lie below it
		}
		name, is := strings.CutPrefix(labels[0], "_")
		ports = slices.DeleteFunc(ports, func(p overlay.ServicePort) bool { return p.Name != name })
		if !is || name == "" || len(ports) == 0 {
			return none
		}
		if qtype == typeSRV {
			found.srv, found.ports = svc, ports
		}
		if qtype == typeANY {
			found.minAny = true
		}
		return found
	}
	if mcs && svc.Type == overlay.Virtual || len(labels) > 2 {
		return none
	}
	from, to := svc.at(last)
	r := new(record)
	exists := false
	for i := from; i < to; i++ {
		e := &svc.Endpoints[i]
		if len(labels) == 2 && e.Name != labels[0] || !svc.reached(i) {
			continue
		}
		addrs := svc.addrsOf(e)
		exists = exists || len(addrs) > 0
		if len(labels) == 2 || !mcs {
			r.addAll(addrs, 0)
		}
	}
	if !exists {
		return none
	}
	r.v4.pack(typeA, s.ttl)
	r.v6.pack(typeAAAA, s.ttl)
	return r.decide(found, qtype)
}

// portsOf returns a service's ports of a protocol, by its name in lower case.
func (s *service) portsOf(protocol string) (out []overlay.ServicePort) {
	for _, p := range s.Ports {
		if strings.EqualFold(string(p.Protocol), protocol) {
			out = append(out, p)
		}
	}
	return out
}

// A target is what an SRV record leads to.
type target struct {
	port  uint16
	name  string // below the zone's apex, without the final dot
	addrs []netip.Addr
}

// targets lists where a service's ports are served, each once: two ports of one
// number differ only in their protocol, which SRV data does not hold.
func (s *service) targets(ports []overlay.ServicePort, mcs bool) (out []target) {
	base := s.Name + "." + s.Namespace + ".svc"
	add := func(t target) {
		if !slices.ContainsFunc(out, func(u target) bool { return t.port == u.port && t.name == u.name }) {
			out = append(out, t)
		}
	}
	for _, p := range ports {
		if s.Type == overlay.Virtual && (mcs || s.standIn != nil) {
			add(target{p.Port, base, s.ownAddrs()})
			continue
		}
		for _, i := range s.live {
			e := &s.Endpoints[i]
			if !slices.Contains(e.Ports, p) {
				continue
			}
			if addrs := s.addrsOf(e); len(addrs) > 0 {
				add(target{p.Port, e.Name + "." + e.Origin.Site + "." + base, addrs})
			} else if s.standIn != nil {
				add(target{p.Port, base, s.standIn.Addrs})
			}
		}
	}
	return out
}
