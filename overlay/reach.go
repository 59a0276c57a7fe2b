package overlay

import (
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Reach is how well this node reaches the endpoints of another one. The zero
// value is the best.
type Reach struct {
	Lost bool  // not at all, as far as is known
	Rank uint8 // less is nearer; equals share the load
}

// Ranks of a Reach.
const (
	rankNode    = 0  // this node
	rankSite    = 1  // another node of the site
	rankNearest = 2  // another site with a round trip below rankUnit; each doubling is one more
	rankUnknown = 40 // not measured
	RankDetour  = 41 // the worst: its own link is down, another gateway stands in

	rankUnit = 250 * time.Microsecond // less is noise of the machine
)

// A PeerLink is the state of this node's link to a peer.
type PeerLink struct {
	ID       NodeID
	Watched  bool
	Up       bool
	Young    bool // never up, but not asked for long enough to say that it is not
	RTT      time.Duration
	Prefixes []netip.Prefix // what goes by it now
}

// Reaches says how well self reaches each node that has told of endpoints:
//
//  1. A node of which membership knows that it is gone is lost.
//  2. A peer whose watched link is up is as near as its round trip; one whose
//     link is down is a detour if its prefix goes by another link now, and lost
//     if not.
//  3. A node is lost if all gateways of its site that are reached say so: they
//     probe it. To a node that is no gateway, so is one of another site of which
//     all gateways of its own that are reached say so.
//  4. Any other node is as near as the peer that its prefix goes by, and lost if
//     it goes by none or by one that is lost.
//
// A detour is used only where nothing better is left: the node may be dead.
func Reaches(self NodeID, v *View, links []PeerLink, gone map[NodeID]bool) map[NodeID]Reach {
	byID := make(map[NodeID]*PeerLink, len(links))
	via := make(map[netip.Prefix]*PeerLink)
	for i := range links {
		l := &links[i]
		byID[l.ID] = l
		for _, p := range l.Prefixes {
			via[p] = l
		}
	}
	out := make(map[NodeID]Reach)
	for _, n := range v.Nodes {
		out[n.ID] = reachOf(self, n, byID[n.ID], via, gone)
	}
	var said []NodeID
	for _, n := range v.Nodes {
		if n.ID != self && !out[n.ID].Lost && v.saidLost(self, n.ID, out) {
			said = append(said, n.ID)
		}
	}
	for _, id := range said {
		out[id] = Reach{Lost: true}
	}
	for i := range v.Services {
		for _, e := range v.Services[i].Endpoints {
			if _, known := out[e.Origin]; !known { // it has told of endpoints, not of a way to them
				out[e.Origin] = Reach{Lost: e.Origin != self}
			}
		}
	}
	return out
}

// saidLost reports whether those that must know say that a node is lost.
func (v *View) saidLost(self, id NodeID, reach map[NodeID]Reach) bool {
	all := func(site string) bool {
		told := false
		for _, g := range v.Nodes {
			if !g.Gateway || g.ID.Site != site || g.ID == self || g.ID == id || reach[g.ID].Lost || reach[g.ID].Rank >= RankDetour {
				continue
			}
			if !v.Lost[g.ID][id] {
				return false
			}
			told = true
		}
		return told
	}
	gateway := false
	for _, n := range v.Nodes {
		gateway = gateway || n.ID == self && n.Gateway
	}
	return all(id.Site) || !gateway && id.Site != self.Site && all(self.Site)
}

// LostNodes lists the nodes that a gateway is to tell others that it does not
// reach, MaxRecordLost of them at most; nil if self is no gateway of the slice.
// It goes by the gateway's own links alone, so that no two can keep each other
// in error.
func LostNodes(self NodeID, v *View, links []PeerLink) (out []NodeID) {
	alone := View{Nodes: v.Nodes}
	for id, r := range Reaches(self, &alone, links, nil) {
		if r.Lost && id != self {
			out = append(out, id)
		}
	}
	if !slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.ID == self && n.Gateway }) {
		return nil
	}
	slices.SortFunc(out, func(a, b NodeID) int { return strings.Compare(a.String(), b.String()) })
	return out[:min(len(out), MaxRecordLost)]
}

func reachOf(self NodeID, n Node, direct *PeerLink, via map[netip.Prefix]*PeerLink, gone map[NodeID]bool) Reach {
	if n.ID == self {
		return Reach{Rank: rankNode}
	}
	way := direct
	for _, p := range n.Prefixes {
		if l := via[p]; l != nil {
			way = l
			break
		}
	}
	switch {
	case gone[n.ID] || way == nil:
		return Reach{Lost: true}
	case direct != nil && direct.down():
		return Reach{Lost: way.down() || way == direct, Rank: RankDetour}
	case way.down():
		return Reach{Lost: true}
	case direct == nil && way.ID.Site == self.Site: // how far the site is only its gateway knows
		return Reach{Rank: rankUnknown}
	case !way.Watched || !way.Up || way.RTT == 0:
		if n.ID.Site == self.Site {
			return Reach{Rank: rankSite}
		}
		return Reach{Rank: rankUnknown}
	case n.ID.Site == self.Site:
		return Reach{Rank: rankSite}
	}
	return Reach{Rank: rankNearest + uint8(bits.Len64(uint64(way.RTT/rankUnit)))}
}

// down reports whether a link is known not to work.
func (l *PeerLink) down() bool { return l.Watched && !l.Up && !l.Young }
