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
//  1. A peer whose watched link is up is as near as its round trip; one whose
//     link is down is a detour if its prefix goes by another link now, and lost
//     if not.
//  2. Any other node is as near as the peer that its prefix goes by, and lost if
//     it goes by none or by one that is lost.
//  3. A node is lost if the peer that its prefix goes by says that it does not
//     reach it: that is up, and knows.
//
// A detour is used only where nothing better is left: the node may be dead.
func Reaches(self NodeID, v *View, links []PeerLink) map[NodeID]Reach {
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
		way := byID[n.ID]
		for _, p := range n.Prefixes {
			if l := via[p]; l != nil {
				way = l
				break
			}
		}
		out[n.ID] = reachOf(self, n, byID[n.ID], way)
		if way != nil && way.ID != n.ID && v.Lost[way.ID][n.ID] {
			out[n.ID] = Reach{Lost: true}
		}
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

// LostNodes lists the nodes that a gateway is to tell others that it does not
// reach, MaxRecordLost of them at most; nil if self is no gateway of the slice.
// It goes by the gateway's own links alone, so that no two can keep each other
// in error.
func LostNodes(self NodeID, v *View, links []PeerLink) (out []NodeID) {
	if !slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.ID == self && n.Gateway }) {
		return nil
	}
	for id, r := range Reaches(self, &View{Nodes: v.Nodes}, links) {
		if r.Lost {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, func(a, b NodeID) int { return strings.Compare(a.String(), b.String()) })
	return out[:min(len(out), MaxRecordLost)]
}

// reachOf judges one node by its own link and by the one that its prefix goes by.
func reachOf(self NodeID, n Node, direct, way *PeerLink) Reach {
	switch {
	case n.ID == self:
		return Reach{Rank: rankNode}
	case way == nil:
		return Reach{Lost: true}
	case direct != nil && direct.down():
		return Reach{Lost: way.down() || way == direct, Rank: RankDetour}
	case way.down():
		return Reach{Lost: true}
	case n.ID.Site == self.Site:
		return Reach{Rank: rankSite}
	case direct == nil && way.ID.Site == self.Site: // how far the site is only its gateway knows
		return Reach{Rank: rankUnknown}
	case !way.Watched || !way.Up || way.RTT == 0:
		return Reach{Rank: rankUnknown}
	}
	return Reach{Rank: rankNearest + uint8(bits.Len64(uint64(way.RTT/rankUnit)))}
}

// down reports whether a link is known not to work.
func (l *PeerLink) down() bool { return l.Watched && !l.Up && !l.Young }
