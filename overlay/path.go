package overlay

import (
	"cmp"
	"net/netip"
	"slices"
)

// A Fabric is how the nodes of a slice are joined: who is whose peer, and by
// which peer each prefix is reached while links are up or down. It is
// immutable; its methods may be called concurrently.
//
// WireGuard accepts a source address only from the peer that packets for this
// address are sent to. A packet therefore has to take the way of its answer,
// backward, and every node on it has to decide so by itself:
//
//  1. Nodes of one site are peers of each other. Gateways are also peers of the
//     gateways of every adjacent site.
//  2. Toward an adjacent site, every node has a home: the one gateway of its
//     site that all its packets pass, both ways. A gateway is its own home.
//     Blocks are dealt to the gateways evenly; where the home of a block is out
//     of order, the other gateways follow in the order of a rendezvous hash, so
//     that only the blocks of that gateway move.
//  3. Between two adjacent sites only those gateways are used that all have
//     links to each other: of two ends of a broken link, the one with more
//     broken links stays out. Nobody has to know for whom a link is broken.
//  4. In a hub and spoke slice, two spokes meet at one gateway of a hub, the
//     same for all their blocks. For a spoke all hubs' gateways together are one
//     adjacent site, so that a node need not know which of them that is.
//
// All nodes that know the same of the links decide alike. Those that do not,
// lose packets until they do; no packet ever loops, as no node takes one from
// another peer than it would send the answer to.
type Fabric struct {
	self  *member
	slice *Slice
	sites map[string]*memberSite
	hubs  []*member // gateways of all hubs, sorted
	all   []*member // sorted by ID
}

// A member is a Node with what is worked out of it once.
type member struct {
	Node
	tag   Tag
	homes []*member // gateways of its site in the order of preference
}

type memberSite struct {
	SliceSite
	hub      bool
	members  []*member
	gateways []*member // sorted by ID
}

// NewFabric joins the nodes of a slice, self among them, as its topology says.
func NewFabric(self NodeID, s *Slice, nodes []Node) *Fabric {
	f := &Fabric{slice: s, sites: make(map[string]*memberSite, len(s.Sites))}
	for _, x := range s.Sites {
		f.sites[x.Name] = &memberSite{SliceSite: x, hub: slices.Contains(s.Hubs, x.Name)}
	}
	for _, n := range nodes {
		site := f.sites[n.ID.Site]
		if site == nil {
			continue
		}
		m := &member{Node: n, tag: n.ID.Tag()}
		f.all = append(f.all, m)
		if n.ID == self {
			f.self = m
		}
	}
	slices.SortFunc(f.all, func(a, b *member) int { return cmp.Compare(a.ID.String(), b.ID.String()) })
	for _, m := range f.all {
		site := f.sites[m.ID.Site]
		site.members = append(site.members, m)
		if m.Gateway {
			site.gateways = append(site.gateways, m)
			if site.hub {
				f.hubs = append(f.hubs, m)
			}
		}
	}
	for _, site := range f.sites {
		site.deal()
	}
	return f
}

// deal gives every member of a site its order of gateways.
func (s *memberSite) deal() {
	load := make(map[*member]int, len(s.gateways))
	for _, g := range s.gateways {
		load[g] = 1 // its own block
	}
	order := slices.Clone(s.members)
	slices.SortFunc(order, func(a, b *member) int { // by address: who comes later gets a later block
		if c := comparePrefix(s.block(a), s.block(b)); c != 0 {
			return c
		}
		return cmp.Compare(a.ID.String(), b.ID.String())
	})
	for _, m := range order {
		m.homes = slices.Clone(s.gateways)
		slices.SortFunc(m.homes, func(a, b *member) int { return cmp.Compare(rank(m.tag, b.tag), rank(m.tag, a.tag)) })
		if len(m.homes) == 0 {
			continue
		}
		first := slices.Index(m.homes, m)
		if first < 0 {
			first = 0
			for i, g := range m.homes {
				if load[g] < load[m.homes[first]] {
					first = i
				}
			}
			load[m.homes[first]]++
		}
		home := m.homes[first]
		m.homes = slices.Insert(slices.Delete(m.homes, first, first+1), 0, home)
	}
}

// block is a member's first prefix of the site's own, whatever else it leads to.
func (s *memberSite) block(m *member) netip.Prefix {
	for _, p := range m.Prefixes {
		if p.Overlaps(s.Prefix) {
			return p
		}
	}
	if len(m.Prefixes) == 0 {
		return netip.Prefix{}
	}
	return m.Prefixes[0]
}

// rank is the weight of a gateway for something: the highest wins.
func rank(what, gateway Tag) uint64 {
	x := uint64(what)*0x9e3779b97f4a7c15 ^ uint64(gateway)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// adjacent reports whether the gateways of two sites are peers.
func (f *Fabric) adjacent(a, b *memberSite) bool {
	return a != b && (len(f.slice.Hubs) == 0 || a.hub || b.hub)
}

// Paths returns, by the tag of the peer, the prefixes that this node reaches by
// it: node blocks and, for what nobody has told a block of, the prefixes of the
// other sites.
func (f *Fabric) Paths(l Links) map[Tag][]netip.Prefix {
	d := decision{Fabric: f, links: &l, ends: make(map[[2]*memberSite]ends)}
	out := make(map[Tag][]netip.Prefix)
	add := func(to *member, p ...netip.Prefix) {
		if to != nil {
			out[to.tag] = append(out[to.tag], p...)
		}
	}
	if f.self == nil {
		return out
	}
	own := f.sites[f.self.ID.Site]
	for _, m := range f.all {
		switch {
		case m == f.self:
		case m.ID.Site == own.Name:
			add(m, m.Prefixes...)
		default:
			add(d.next(own, f.sites[m.ID.Site], m), m.Prefixes...)
		}
	}
	for _, site := range f.sites {
		if site != own {
			add(d.next(own, site, nil), site.prefixes()...)
		}
	}
	for _, p := range out {
		slices.SortFunc(p, comparePrefix)
	}
	return out
}

func (s *memberSite) prefixes() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// A decision is one answer to the question of Paths.
type decision struct {
	*Fabric
	links *Links
	ends  map[[2]*memberSite]ends
}

// ends are the gateways that are used between two adjacent sites.
type ends struct{ near, far []*member }

// next returns the peer by which this node, of site own, reaches a member of
// another site, nil for its addresses without a known block; nil if it cannot.
func (d *decision) next(own, site *memberSite, m *member) *member {
	if len(own.gateways) == 0 || len(site.gateways) == 0 {
		return nil
	}
	if d.adjacent(own, site) {
		e := d.between(own, site)
		if home := d.home(d.self, e.near); home != d.self {
			return home
		}
		if m == nil {
			return d.best(site.Name, e.far)
		}
		return d.home(m, e.far)
	}
	if len(d.hubs) == 0 {
		return nil
	}
	// For a spoke it makes no difference which hub it is.
	hub := d.sites[d.hubs[0].ID.Site]
	if home := d.home(d.self, d.between(own, hub).near); home != d.self {
		return home
	}
	return d.meet(own, site)
}

// home returns the gateway that a node's packets pass, one of those in use.
func (d *decision) home(m *member, in []*member) *member {
	var leaving, cut *member
	for _, g := range m.homes {
		switch {
		case !slices.Contains(in, g):
		case g == m:
			return g
		case !d.links.up(m, g):
			if cut == nil {
				cut = g
			}
		case d.links.Leaving[g.tag]:
			if leaving == nil {
				leaving = g
			}
		default:
			return g
		}
	}
	if leaving != nil {
		return leaving
	}
	return cut
}

// best returns the gateway for something that has no home: the first by hash,
// of those that do not leave if there are any.
func (d *decision) best(what string, in []*member) *member {
	key := NodeID{Site: what}.Tag()
	var best *member
	for _, g := range in {
		if best == nil {
			best = g
			continue
		}
		a, b := d.links.Leaving[g.tag], d.links.Leaving[best.tag]
		if a != b && b || a == b && rank(key, g.tag) > rank(key, best.tag) {
			best = g
		}
	}
	return best
}

// meet returns the hubs' gateway at which two spokes meet.
func (d *decision) meet(a, b *memberSite) *member {
	var both []*member
	one, other := d.hubsOf(a), d.hubsOf(b)
	for _, g := range one {
		if slices.Contains(other, g) {
			both = append(both, g)
		}
	}
	return d.best(min(a.Name, b.Name)+"/"+max(a.Name, b.Name), both)
}

// hubsOf returns the hubs' gateways that are used with a spoke.
func (d *decision) hubsOf(spoke *memberSite) []*member {
	return d.group(spoke).far
}

// between returns the gateways in use between two adjacent sites.
func (d *decision) between(a, b *memberSite) ends {
	key := [2]*memberSite{a, b}
	if e, ok := d.ends[key]; ok {
		return e
	}
	var e ends
	switch {
	case len(d.slice.Hubs) > 0 && a.hub != b.hub:
		spoke, hub := a, b
		if a.hub {
			spoke, hub = b, a
		}
		e = d.group(spoke)
		e.far = ofSite(e.far, hub)
		if a.hub {
			e.near, e.far = e.far, e.near
		}
	case a.Name > b.Name:
		e = d.between(b, a)
		e.near, e.far = e.far, e.near
	default:
		e = d.joined(a.gateways, b.gateways)
	}
	d.ends[key] = e
	return e
}

// group returns the gateways in use between a spoke and all hubs together.
func (d *decision) group(spoke *memberSite) ends {
	key := [2]*memberSite{spoke, nil}
	e, ok := d.ends[key]
	if !ok {
		e = d.joined(spoke.gateways, d.hubs)
		d.ends[key] = e
	}
	return e
}

// ofSite returns those of the hubs' gateways that are of one site: all of it
// when none is in use, as some way is better than none.
func ofSite(in []*member, site *memberSite) []*member {
	out := slices.DeleteFunc(slices.Clone(in), func(m *member) bool { return m.ID.Site != site.Name })
	if len(out) == 0 {
		return site.gateways
	}
	return out
}

// joined leaves out gateways of both sides until all that are left have links
// to each other: always the one with the greatest part of its links down, of
// equals one of the side with more left. One is left on each side in any case.
func (d *decision) joined(near, far []*member) ends {
	e := ends{slices.Clone(near), slices.Clone(far)}
	for {
		worst := worse(d.worst(e.near, e.far), d.worst(e.far, e.near))
		if worst.m == nil {
			return e
		}
		not := func(m *member) bool { return m == worst.m }
		e.near, e.far = slices.DeleteFunc(e.near, not), slices.DeleteFunc(e.far, not)
	}
}

// A broken gateway has so many links down, of those to the other side.
type broken struct {
	m          *member // nil: none
	down, of   int
	alternates int
}

func (d *decision) worst(side, other []*member) broken {
	var worst broken
	if len(side) < 2 {
		return worst
	}
	for _, m := range side {
		b := broken{m: m, of: len(other), alternates: len(side)}
		for _, o := range other {
			if !d.links.up(m, o) {
				b.down++
			}
		}
		if b.down > 0 {
			worst = worse(worst, b)
		}
	}
	return worst
}

// worse returns the worse of two.
func worse(a, b broken) broken {
	switch {
	case a.m == nil:
		return b
	case b.m == nil:
		return a
	}
	if c := cmp.Or(cmp.Compare(a.down*b.of, b.down*a.of), cmp.Compare(a.alternates, b.alternates), cmp.Compare(a.m.tag, b.m.tag)); c >= 0 {
		return a
	}
	return b
}
