package lab

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
)

// leafID is the k-th node of site i that is no gateway, from 1.
func leafID(i, k int) overlay.NodeID {
	return overlay.NodeID{Site: fmt.Sprintf("site-%03d", i), Node: fmt.Sprintf("leaf-%02d", k)}
}

// leafPrefixes are the k-th leaf's of site i, beside those of the sites.
func leafPrefixes(i, k int) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i), byte(k), 0}), 24)}
}

// leafFacts are what it has to say, with a number that changes.
func leafFacts(i, k, number int) []overlay.Record {
	endpoint := netip.AddrPortFrom(leafAddr(i, k), uint16(10_000+number))
	return []overlay.Record{
		{Key: overlay.Key{Kind: overlay.KindNode}, Node: &overlay.NodeBody{Endpoints: []netip.AddrPort{endpoint}}},
		{Key: overlay.Key{Kind: overlay.KindPrefix, Slice: slice}, Prefix: &overlay.PrefixBody{Prefixes: leafPrefixes(i, k)}},
	}
}

func leafAddr(i, k int) netip.Addr { return netip.AddrFrom4([4]byte{198, 18, byte(i), byte(k)}) }

// addSite adds the gateways of a site and then its leaves, which are down.
func (w *world) addSite(i, gateways, leaves int) (gw, lf []*Node) {
	w.Helper()
	for k := 1; k <= gateways+leaves; k++ {
		n, err := w.mesh.Add(pki.Subject{ID: leafID(i, k), Gateway: k <= gateways, Grants: []overlay.Grant{{Slice: slice, Prefixes: leafPrefixes(i, k)}}}, leafAddr(i, k))
		if err == nil {
			err = n.Tell(leafFacts(i, k, 0))
		}
		if err != nil {
			w.Fatal(err)
		}
		w.nodes = append(w.nodes, n)
		if k <= gateways {
			gw = append(gw, n)
		} else {
			lf = append(lf, n)
		}
	}
	return gw, lf
}

// begin starts nodes that look for those seeds.
func (w *world) begin(seeds []*Node, nodes ...*Node) {
	w.Helper()
	var at []netip.AddrPort
	for _, s := range seeds {
		at = append(at, s.Addr)
	}
	for _, n := range nodes {
		if err := n.Start(at...); err != nil {
			w.Fatal(err)
		}
	}
}

// knownNumber is the number of a node as n knows it, -1 if it does not know it.
func knownNumber(n *Node, of overlay.NodeID) int {
	for _, r := range n.Gossip().Records() {
		if r.Origin == of && r.Node != nil {
			return int(r.Node.Endpoints[0].Port()) - 10_000
		}
	}
	return -1
}

func allKnow(nodes []*Node, of overlay.NodeID, number int) bool {
	for _, n := range nodes {
		if n.Gossip() != nil && knownNumber(n, of) != number {
			return false
		}
	}
	return true
}

// proven lists whom n takes for alive, but itself.
func proven(n *Node) (out []string) {
	for _, m := range n.Gossip().Members() {
		if m.State == gossip.StateProven && m.Name != n.ID.String() {
			out = append(out, m.Name)
		}
	}
	return out
}

func sessionsOf(nodes []*Node) (least, most int) {
	least = 1 << 30
	for _, n := range nodes {
		c := len(proven(n))
		least, most = min(least, c), max(most, c)
	}
	return least, most
}

func TestTwentyNodesOfWhichFourteenAreLeavesConverge(t *testing.T) {
	story(t, 0, func(w *world) {
		var gateways, leaves []*Node
		for i := range 3 {
			gw, lf := w.addSite(i, 2, 4+i%2)
			gateways, leaves = append(gateways, gw...), append(leaves, lf...)
		}
		_, lf := w.addSite(9, 0, 1) // of a site without a gateway
		leaves = append(leaves, lf...)
		w.begin(gateways[:3], w.nodes...)
		w.within(5*time.Second, "everything is known to all 20", func() bool { return equal(w.nodes, 2*len(w.nodes)) })
		if len(w.nodes) != 20 || len(leaves) != 14 {
			t.Fatalf("%d nodes, %d leaves", len(w.nodes), len(leaves))
		}
		w.within(20*time.Second, "every leaf has both gateways of its site", func() bool {
			for _, n := range leaves[:13] {
				for _, name := range proven(n) {
					if name[:8] != n.ID.Site {
						return false
					}
				}
				if len(proven(n)) != 2 {
					return false
				}
			}
			return len(proven(leaves[13])) == 2
		})
		_ = leaves[5].Tell(leafFacts(1, 4, 1))
		w.within(2*time.Second, "a leaf's change is known to all 20", func() bool { return allKnow(w.nodes, leaves[5].ID, 1) })
		_ = gateways[0].Tell(leafFacts(0, 1, 1))
		w.within(2*time.Second, "a gateway's change is known to all 20", func() bool { return allKnow(w.nodes, gateways[0].ID, 1) })
		for _, n := range leaves {
			if a := n.Host().listeners; len(a) != 0 {
				t.Errorf("%v listens", n.ID)
			}
		}
	})
}
