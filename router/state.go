package router

import (
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// OutsideName names the outside port in State and in Routes.
const OutsideName = "outside"

// A Link moves whole IP packets between two layers, in batches. Packet i is
// bufs[i][overlay.Headroom : overlay.Headroom+sizes[i]]. Buffers belong to the
// caller: a Link keeps none after it returns.
type Link interface {
	// Read blocks until it has a packet; net.ErrClosed after Close. It says in
	// each headroom what the packet is (overlay.Meta), or leaves it zero.
	Read(bufs [][]byte, sizes []int) (n int, err error)
	// Write takes packets in order, bufs[i] being headroom and then exactly
	// the packet; the headroom has its Meta. When full it drops; it never waits.
	// May be called concurrently.
	Write(bufs [][]byte) error
	// Close unblocks Read; again does nothing.
	Close() error
}

// Role says what is behind a port.
type Role uint8

// The roles.
const (
	Outside Role = iota // the tunnel: other nodes
	Inside              // a workload
	Local               // the node's own network stack
)

// String returns the role's name as it appears in status.
func (r Role) String() string {
	switch r {
	case Outside:
		return "outside"
	case Inside:
		return "inside"
	case Local:
		return "local"
	}
	return "unknown"
}

// A Port is where packets enter and leave the slice on this node.
type Port struct {
	Name string
	// Link is served and, when the port goes, closed by the Router. It is nil
	// for the outside port, whose Link the Router makes: see Router.Outside.
	Link Link
	Role Role
	// Sources are the addresses that packets from this port may come from. For
	// the outside port they are what remote sites own. None means none.
	Sources []netip.Prefix
}

// A Route sends a prefix out of a port.
type Route struct {
	Prefix netip.Prefix
	Port   string
}

// State is all that a Router is told: its ports and its routes. Names are
// unique, and so are prefixes. Without an outside port nothing from outside
// gets in.
type State struct {
	Ports  []Port
	Routes []Route
	// Zones and Transits say which packets from outside go outside again: those
	// from an address of one zone to an address of another, where a Transit
	// allows it. Without them none does.
	Zones    []Zone
	Transits []Transit
	// Policy says what may pass between ends one of which is on this node. A flow
	// that it allowed is asked about again once there is another one. nil: everything.
	Policy *Policy
	// Self4 and Self6 are the node's own addresses on the slice, which ICMP errors
	// come from. Without one of a family, packets of that family are dropped in
	// silence.
	Self4, Self6 netip.Addr
}

// A Zone names the addresses behind one remote or local site.
type Zone struct {
	Prefix netip.Prefix
	Name   string
}

// A Transit lets packets pass from one zone to another, one way.
type Transit struct{ From, To string }

// table is what the packet path reads: one immutable view of a State.
type table struct {
	version uint64 // one more than the State before
	routes  bart.Fast[*port]
	sources map[*port]*sources
	zones   bart.Fast[uint32]
	transit map[[2]uint32]bool // by zones: from, to

	policy        *Policy // nil: no questions
	policyVersion uint32  // one more than that of the policy before
	rules         []*ruleCount
	flows         *flowTable // nil without a policy
	self4, self6  netip.Addr
}

// setTransit numbers the zones. Names that only a Transit has match nothing.
func (t *table) setTransit(s State) {
	ids := make(map[string]uint32)
	for _, z := range s.Zones {
		if _, known := ids[z.Name]; !known {
			ids[z.Name] = uint32(len(ids))
		}
		t.zones.Insert(z.Prefix.Masked(), ids[z.Name])
	}
	t.transit = make(map[[2]uint32]bool, len(s.Transits))
	for _, x := range s.Transits {
		from, ok1 := ids[x.From]
		if to, ok2 := ids[x.To]; ok1 && ok2 {
			t.transit[[2]uint32{from, to}] = true
		}
	}
}

// passes reports whether a packet from outside may go outside again.
func (t *table) passes(src, dst netip.Addr) bool {
	from, ok1 := t.zones.Lookup(src)
	to, ok2 := t.zones.Lookup(dst)
	return ok1 && ok2 && t.transit[[2]uint32{from, to}]
}

// sources is a set of prefixes.
type sources = bart.Fast[struct{}]

func (s State) validate() error {
	if s.Self4.IsValid() && !s.Self4.Is4() || s.Self6.IsValid() && (!s.Self6.Is6() || s.Self6.Is4In6()) {
		return fmt.Errorf("router: own addresses %v and %v: not one of IPv4 and one of IPv6", s.Self4, s.Self6)
	}
	roles := make(map[string]Role, len(s.Ports))
	links := make(map[Link]bool, len(s.Ports))
	for _, p := range s.Ports {
		if p.Name == "" {
			return fmt.Errorf("router: port without a name")
		}
		if _, twice := roles[p.Name]; twice {
			return fmt.Errorf("router: port %q: named twice", p.Name)
		}
		roles[p.Name] = p.Role
		switch {
		case p.Role > Local:
			return fmt.Errorf("router: port %q: unknown role %d", p.Name, p.Role)
		case (p.Role == Outside) != (p.Name == OutsideName):
			return fmt.Errorf("router: port %q: the outside port, and no other, is named %q", p.Name, OutsideName)
		case (p.Role == Outside) != (p.Link == nil):
			return fmt.Errorf("router: port %q: every port but the outside one has a link", p.Name)
		case p.Link != nil && links[p.Link]:
			return fmt.Errorf("router: port %q: its link serves another port too", p.Name)
		}
		links[p.Link] = true
		for _, x := range p.Sources {
			if err := validPrefix(x); err != nil {
				return fmt.Errorf("router: port %q: source %v: %w", p.Name, x, err)
			}
		}
	}
	for _, z := range s.Zones {
		if err := validPrefix(z.Prefix); err != nil {
			return fmt.Errorf("router: zone %q: %v: %w", z.Name, z.Prefix, err)
		}
	}
	for _, x := range s.Transits {
		if x.From == x.To {
			return fmt.Errorf("router: transit from zone %q to itself", x.From)
		}
	}
	seen := make(map[netip.Prefix]bool, len(s.Routes))
	for _, rt := range s.Routes {
		if err := validPrefix(rt.Prefix); err != nil {
			return fmt.Errorf("router: route %v: %w", rt.Prefix, err)
		}
		if _, ok := roles[rt.Port]; !ok {
			return fmt.Errorf("router: route %v: no port %q", rt.Prefix, rt.Port)
		}
		m := rt.Prefix.Masked()
		if seen[m] {
			return fmt.Errorf("router: route %v: given twice", m)
		}
		seen[m] = true
	}
	return nil
}

// validPrefix refuses what a lookup would never match.
func validPrefix(p netip.Prefix) error {
	switch {
	case !p.IsValid():
		return fmt.Errorf("not a prefix")
	case p.Addr().Is4In6():
		return fmt.Errorf("IPv4-mapped")
	}
	return nil
}
