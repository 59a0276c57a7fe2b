package overlay

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// fabricSite says how many nodes a test site has, the first of them gateways.
type fabricSite struct {
	name            string
	gateways, nodes int
}

// testFabric makes the nodes of a slice whose sites are as given, and one
// fabric for each: what every one of them works out by itself.
func testFabric(t *testing.T, hubs []string, sites ...fabricSite) (*Slice, []Node, map[NodeID]*Fabric) {
	t.Helper()
	s := &Slice{Name: "blue", Mode: SingleNetwork, Subnet: netip.MustParsePrefix("10.190.0.0/16"), Subnet6: SliceSubnet6("m", "blue"), Hubs: hubs}
	var nodes []Node
	for i, x := range sites {
		p, err := StaticPrefix(s.Subnet, 16, i)
		if err != nil {
			t.Fatal(err)
		}
		p6, err := SitePrefix6(s.Subnet6, i)
		if err != nil {
			t.Fatal(err)
		}
		s.Sites = append(s.Sites, SliceSite{Name: x.name, Index: i, Prefix: p, Prefix6: p6})
		for j := range x.nodes {
			b, err := NodeBlock(p, j)
			if err != nil {
				t.Fatal(err)
			}
			b6, err := NodeBlock6(p6, j)
			if err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, Node{ID: NodeID{x.name, fmt.Sprintf("n%d", j)}, Gateway: j < x.gateways, Prefixes: []netip.Prefix{b, b6}})
		}
	}
	all := make(map[NodeID]*Fabric)
	for _, n := range nodes {
		all[n.ID] = NewFabric(n.ID, s, nodes)
	}
	return s, nodes, all
}

// walker follows packets from node to node as WireGuard and the router would.
type walker struct {
	slice   *Slice
	byTag   map[Tag]Node
	owner   map[NodeID]map[netip.Prefix]NodeID // per node: which peer has a prefix
	transit map[NodeID][]Transit
}

func walk(s *Slice, nodes []Node, all map[NodeID]*Fabric, l Links) *walker {
	w := &walker{slice: s, byTag: make(map[Tag]Node), owner: make(map[NodeID]map[netip.Prefix]NodeID), transit: make(map[NodeID][]Transit)}
	for _, n := range nodes {
		w.byTag[n.ID.Tag()] = n
	}
	for id, f := range all {
		w.transit[id] = f.Transits()
		w.owner[id] = make(map[netip.Prefix]NodeID)
		for tag, ps := range f.Paths(l) {
			for _, p := range ps {
				w.owner[id][p] = w.byTag[tag].ID
			}
		}
	}
	return w
}

var errNoWay = errors.New("no way")

// way returns the nodes that a packet passes, and why it gets no further.
func (w *walker) way(from, to Node) ([]NodeID, error) {
	way := []NodeID{from.ID}
	at := from.ID
	for at != to.ID {
		next, ok := w.owner[at][to.Prefixes[0]]
		switch {
		case !ok:
			return way, fmt.Errorf("%v to %v: %w", at, to.ID, errNoWay)
		case slices.Contains(way, next):
			return append(way, next), fmt.Errorf("loop")
		case w.owner[next][from.Prefixes[0]] != at:
			return append(way, next), fmt.Errorf("%v takes packets of %v from %v, not from %v", next, from.ID, w.owner[next][from.Prefixes[0]], at)
		case next != to.ID && !slices.Contains(w.transit[next], Transit{from.ID.Site, to.ID.Site}):
			return append(way, next), fmt.Errorf("%v does not pass on from %s to %s", next, from.ID.Site, to.ID.Site)
		}
		way, at = append(way, next), next
	}
	return way, nil
}

func TestEveryPacketFindsTheWayOfItsAnswer(t *testing.T) {
	full := []fabricSite{{"a", 2, 5}, {"b", 1, 1}, {"c", 3, 4}, {"d", 2, 2}}
	for _, tc := range []struct {
		name  string
		hubs  []string
		sites []fabricSite
	}{
		{"a full mesh", nil, full},
		{"one hub", []string{"b"}, full},
		{"two hubs", []string{"a", "c"}, append(slices.Clone(full), fabricSite{"e", 1, 3})},
	} {
		s, nodes, all := testFabric(t, tc.hubs, tc.sites...)
		w := walk(s, nodes, all, Links{})
		for _, x := range nodes {
			for _, y := range nodes {
				way, err := w.way(x, y)
				if err != nil {
					t.Errorf("%s: %v: %v", tc.name, way, err)
				}
				back, _ := w.way(y, x)
				slices.Reverse(back)
				if !slices.Equal(way, back) {
					t.Errorf("%s: %v there, %v back", tc.name, way, back)
				}
			}
		}
	}
}

// downOf takes links of a set of nodes down; nobody and everybody may be meant.
func downOf(nodes []Node, id NodeID) Links {
	l := Links{Down: make(map[Link]bool)}
	for _, n := range nodes {
		if n.ID != id {
			l.Down[LinkOf(id.Tag(), n.ID.Tag())] = true
		}
	}
	return l
}

func TestALostGatewayMovesOnlyItsBlocks(t *testing.T) {
	for _, hubs := range [][]string{nil, {"a"}, {"c"}} {
		s, nodes, all := testFabric(t, hubs, fabricSite{"a", 3, 9}, fabricSite{"b", 1, 2}, fabricSite{"c", 2, 2}, fabricSite{"d", 1, 1})
		before := walk(s, nodes, all, Links{})
		for _, lost := range nodes {
			if !lost.Gateway || lost.ID.Site == "b" || lost.ID.Site == "d" {
				continue
			}
			after := walk(s, nodes, all, downOf(nodes, lost.ID))
			for _, x := range nodes {
				for _, y := range nodes {
					if x.ID == lost.ID || y.ID == lost.ID {
						continue
					}
					was, _ := before.way(x, y)
					is, err := after.way(x, y)
					if err != nil {
						t.Errorf("hubs %v, %v lost: %v: %v", hubs, lost.ID, is, err)
					}
					if slices.Contains(is, lost.ID) {
						t.Errorf("hubs %v: %v passes %v, which is lost", hubs, is, lost.ID)
					}
					if !slices.Contains(was, lost.ID) && !slices.Equal(was, is) {
						t.Errorf("hubs %v, %v lost: %v became %v", hubs, lost.ID, was, is)
					}
				}
			}
		}
	}
}

// Whatever links are down: what all nodes know, they decide alike, nothing
// loops, and a link that is down is used only where there is no other way.
func TestAnyBrokenLinksAreDecidedAlike(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var hubs []string
		if rnd.IntN(2) == 0 {
			hubs = []string{"a", "c"}[:1+rnd.IntN(2)]
		}
		s, nodes, all := testFabric(t, hubs, fabricSite{"a", 1 + rnd.IntN(3), 4}, fabricSite{"b", 2, 3}, fabricSite{"c", 1 + rnd.IntN(2), 2}, fabricSite{"d", 1, 1})
		l := Links{Down: make(map[Link]bool), Leaving: make(map[Tag]bool)}
		for range rnd.IntN(6) {
			l.Down[LinkOf(nodes[rnd.IntN(len(nodes))].ID.Tag(), nodes[rnd.IntN(len(nodes))].ID.Tag())] = true
		}
		if rnd.IntN(2) == 0 {
			l.Leaving[nodes[rnd.IntN(len(nodes))].ID.Tag()] = true
		}
		w := walk(s, nodes, all, l)
		for _, x := range nodes {
			for _, y := range nodes {
				// Two spokes may have no hub that both reach.
				apart := len(hubs) > 0 && !slices.Contains(hubs, x.ID.Site) && !slices.Contains(hubs, y.ID.Site)
				way, err := w.way(x, y)
				if err != nil && (!apart || !errors.Is(err, errNoWay)) {
					t.Fatalf("seed %d: hubs %v: %v: %v\ndown %v", seed, hubs, way, err, l.Down)
				}
			}
		}
	}
}

func TestBlocksAreDealtEvenly(t *testing.T) {
	for nodes := 4; nodes <= 16; nodes++ {
		_, all, fabrics := testFabric(t, nil, fabricSite{"a", 2, nodes}, fabricSite{"b", 1, 1})
		paths := fabrics[NodeID{"b", "n0"}].Paths(Links{})
		a0, a1 := blocks(paths[all[0].ID.Tag()]), blocks(paths[all[1].ID.Tag()])
		if a0+a1 != nodes || a0-a1 > 1 || a1-a0 > 1 {
			t.Errorf("of %d blocks one gateway has %d, the other %d", nodes, a0, a1)
		}
	}
}

// blocks counts node blocks, IPv4 only.
func blocks(ps []netip.Prefix) (n int) {
	for _, p := range ps {
		if p.Addr().Is4() && p.Bits() >= 24 {
			n++
		}
	}
	return n
}

func TestABrokenLinkKeepsOneOfItsEndsOut(t *testing.T) {
	a0, a1, b0, b1, n := NodeID{"a", "n0"}, NodeID{"a", "n1"}, NodeID{"b", "n0"}, NodeID{"b", "n1"}, NodeID{"a", "n2"}
	cut := func(pairs ...[2]NodeID) Links {
		l := Links{Down: make(map[Link]bool)}
		for _, p := range pairs {
			l.Down[LinkOf(p[0].Tag(), p[1].Tag())] = true
		}
		return l
	}
	leave := func(ids ...NodeID) Links {
		l := Links{Leaving: make(map[Tag]bool)}
		for _, id := range ids {
			l.Leaving[id.Tag()] = true
		}
		return l
	}
	for _, tc := range []struct {
		name  string
		b     int // gateways of b
		links Links
		via   func(NodeID) bool // which gateway of a may carry n's packets
	}{
		{"of one gateway against two, the one of the two", 1, cut([2]NodeID{a0, b0}), func(g NodeID) bool { return g == a1 }},
		{"who has lost all links", 2, cut([2]NodeID{a0, b0}, [2]NodeID{a0, b1}), func(g NodeID) bool { return g == a1 }},
		{"the other side's, if that has lost all links", 2, cut([2]NodeID{a0, b0}, [2]NodeID{a1, b0}), func(g NodeID) bool { return true }},
		{"a link within the site keeps a gateway out for that node", 1, cut([2]NodeID{n, a1}), func(g NodeID) bool { return g == a0 }},
		{"who leaves carries nothing", 1, leave(a0), func(g NodeID) bool { return g == a1 }},
		{"two that leave carry on", 1, leave(a0, a1), func(g NodeID) bool { return g == a0 || g == a1 }},
		{"one that leaves is better than a broken link", 1, Links{Down: cut([2]NodeID{n, a0}).Down, Leaving: leave(a1).Leaving}, func(g NodeID) bool { return g == a1 }},
		{"with all links down the way stays the same at both ends", 1, cut([2]NodeID{a0, b0}, [2]NodeID{a1, b0}, [2]NodeID{n, a0}, [2]NodeID{n, a1}), func(NodeID) bool { return true }},
	} {
		s, nodes, all := testFabric(t, nil, fabricSite{"a", 2, 3}, fabricSite{"b", tc.b, 2})
		w := walk(s, nodes, all, tc.links)
		i := slices.IndexFunc(nodes, func(x Node) bool { return x.ID == n })
		for _, to := range nodes {
			if to.ID.Site != "b" {
				continue
			}
			way, err := w.way(nodes[i], to)
			if err != nil || !tc.via(way[1]) {
				t.Errorf("%s: %v, %v", tc.name, way, err)
			}
		}
	}
}

func TestWhoPassesOnWhat(t *testing.T) {
	_, _, all := testFabric(t, []string{"h"}, fabricSite{"a", 1, 2}, fabricSite{"b", 1, 1}, fabricSite{"h", 1, 2})
	for _, tc := range []struct {
		node NodeID
		want []Transit
	}{
		{NodeID{"a", "n1"}, nil},
		{NodeID{"a", "n0"}, []Transit{{"a", "b"}, {"a", "h"}, {"b", "a"}, {"h", "a"}}},
		{NodeID{"h", "n0"}, []Transit{{"a", "b"}, {"a", "h"}, {"b", "a"}, {"b", "h"}, {"h", "a"}, {"h", "b"}}},
		{NodeID{"h", "n1"}, nil},
	} {
		if got := all[tc.node].Transits(); !slices.Equal(got, tc.want) {
			t.Errorf("%v passes on %v, want %v", tc.node, got, tc.want)
		}
	}
}
