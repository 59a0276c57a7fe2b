package overlay

import (
	"net/netip"
	"slices"
)

// Peers lists the nodes that this one has tunnels to, sorted by ID, with the
// prefixes that they have while all links are up.
func (f *Fabric) Peers() []Peer {
	if f.self == nil {
		return nil
	}
	paths := f.Paths(Links{})
	own := f.sites[f.self.ID.Site]
	var out []Peer
	for _, m := range f.all {
		site := f.sites[m.ID.Site]
		beside := site == own && m != f.self
		across := f.self.Gateway && m.Gateway && f.adjacent(own, site)
		if !beside && !across {
			continue
		}
		out = append(out, Peer{
			ID: m.ID, PublicKey: m.PublicKey, Generation: m.Generation, Next: m.Next, Endpoints: m.Endpoints, Prefixes: paths[m.tag],
			Probe:   f.self.Gateway || m.Gateway,
			Standby: (f.self.Gateway || m.Gateway) && (f.spare(own) || f.spare(site)),
		})
	}
	return out
}

// spare reports whether another gateway can stand in for one of a site.
func (f *Fabric) spare(s *memberSite) bool {
	return len(s.gateways) > 1 || s.hub && len(f.hubs) > 1
}

// Remote lists every prefix that is reached by a peer, whichever that is, sorted.
func (f *Fabric) Remote() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range f.Paths(Links{}) {
		out = append(out, p...)
	}
	slices.SortFunc(out, comparePrefix)
	return out
}

// A Transit says which packets a gateway passes on between its peers: from one
// site's addresses to another's. A packet never goes back to the site that it
// comes from.
type Transit struct{ From, To string }

// Transits lists what this node passes on, sorted. A gateway passes on between
// its own site and others; a hub's also between spokes; nobody else anything.
func (f *Fabric) Transits() []Transit {
	if f.self == nil || !f.self.Gateway {
		return nil
	}
	own := f.sites[f.self.ID.Site]
	var out []Transit
	for _, a := range f.slice.Sites {
		for _, b := range f.slice.Sites {
			from, to := f.sites[a.Name], f.sites[b.Name]
			ours := from != to && (from == own || to == own)
			spokes := own.hub && from != to && !from.hub && !to.hub
			if ours || spokes {
				out = append(out, Transit{a.Name, b.Name})
			}
		}
	}
	return out
}
