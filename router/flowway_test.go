package router

import (
	"math/rand/v2"
	"slices"
	"testing"

	"slicewire/overlay"
)

// What a flow remembers of its way out is forgotten with what it was learnt from,
// and answers no other port.
func TestAFlowsWayOutIsThatOfTheTable(t *testing.T) {
	g := newRig(t)
	g.police(t, overlay.Rule{Name: "out", Subject: everyone(), Peer: everyone()}, overlay.Rule{Name: "in", Ingress: true, Subject: everyone(), Peer: everyone()})
	there, back := udpOf("10.1.0.2", "10.1.0.3", 5, 53), udpOf("10.1.0.3", "10.1.0.2", 53, 5)
	for range 3 {
		if !g.passes("a", there) || !g.passes("b", back) {
			t.Fatal(g.drops.Snapshot())
		}
	}
	tab := g.table.Load()
	for dir, p := range map[int][2]string{0: {"a", "b"}, 1: {"b", "a"}} {
		var k info
		pkt := there
		if _, ok := k.check(pkt); !ok {
			t.Fatal("malformed")
		}
		key := keyOf(pkt, &k)
		f := tab.flows.find(&key)
		if w := f.entry.ways[dir].Load(); w == 0 || w != tab.wayOf(g.port(p[0]), g.port(p[1])) {
			t.Errorf("direction %d: the flow remembers way %x", dir, w)
		}
	}
	drops := func(want overlay.Drop, from string, pkt []byte) {
		t.Helper()
		before := g.drops.Get(want)
		if g.passes(from, pkt) || g.drops.Get(want) != before+1 {
			t.Errorf("from %s: not dropped as %v: %v", from, want, g.drops.Snapshot())
		}
	}
	drops(overlay.DropSource, "node", there)
	drops(overlay.DropSource, OutsideName, there)
	drops(overlay.DropSource, "a", back)

	ports, routes := slices.Clone(g.state.Ports), slices.Clone(g.state.Routes)
	g.state.Ports[0].Sources = nil
	if err := g.Set(g.state); err != nil {
		t.Fatal(err)
	}
	drops(overlay.DropSource, "a", there)
	g.state.Ports = ports
	g.state.Ports[0].Sources = prefixes("10.1.0.2/32")
	g.state.Routes = slices.DeleteFunc(slices.Clone(routes), func(r Route) bool { return r.Prefix.String() == "10.1.0.3/32" })
	if err := g.Set(g.state); err != nil {
		t.Fatal(err)
	}
	drops(overlay.DropNoRoute, "a", there)
}

// Counts do not overflow their words: what would not fit is folded away.
func TestFlowCountsAreFolded(t *testing.T) {
	const seed = 4
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFlowTable(10)
	f.mu.Lock()
	e := f.addLocked(&flowKey{srcLo: 1, dstLo: 2}, 0, [2]*ruleCount{}, 0)
	f.mu.Unlock()
	var packets, bytes uint64
	folded := 0
	for range 200_000 {
		p := rng.Uint64N(4096)
		n := p * (20 + rng.Uint64N(65_000))
		packets, bytes = packets+p, bytes+n
		if e.count[1].add(p, n) {
			f.fold(e, 1)
			folded++
		}
	}
	if p, n := f.countLocked(e, 1); p != packets || n != bytes || folded < 5 {
		t.Errorf("seed %d: %d packets and %d bytes, want %d and %d; folded %d times", seed, p, n, packets, bytes, folded)
	}
	if p, n := f.countLocked(e, 0); p+n != 0 {
		t.Errorf("the other way: %d packets, %d bytes", p, n)
	}
}

// Asking the memory for a batch's flows beforehand changes no verdict: fragments,
// extension headers and runts among them.
func TestWarmBatchesDecideTheSame(t *testing.T) {
	const seed = 6
	rng := rand.New(rand.NewPCG(seed, 1))
	traffic := newPoliceTraffic(rng)
	rules := randomRules(rng, traffic.addrs)
	rigs := [2]*rig{newRig(t), newRig(t)}
	for _, g := range rigs {
		g.police(t, rules...)
	}
	warmed := 0
	for i := range 3000 {
		var pkts [][]byte
		for range 1 + rng.IntN(overlay.BatchSize) {
			pkts = append(pkts, traffic.packet())
		}
		from := []string{"a", "b", "node", OutsideName}[rng.IntN(4)]
		var out [2]map[string][][]byte
		for k, g := range rigs {
			if k == 1 {
				g.table.Load().flows.crowd.Store(warmFrom)
			}
			b := new(batch)
			var bufs [][]byte
			for _, p := range pkts {
				bufs = append(bufs, append(make([]byte, overlay.Headroom), p...))
			}
			g.forward(g.port(from), bufs, b)
			if b.warm {
				warmed++
			}
			out[k] = g.got()
		}
		for name := range out[0] {
			if !slices.EqualFunc(out[0][name], out[1][name], slices.Equal) {
				t.Fatalf("seed %d batch %d from %s: port %s got %d and %d packets", seed, i, from, name, len(out[0][name]), len(out[1][name]))
			}
		}
		if len(out[0]) != len(out[1]) {
			t.Fatalf("seed %d batch %d from %s: %d and %d ports got some", seed, i, from, len(out[0]), len(out[1]))
		}
	}
	if warmed != 3000 {
		t.Errorf("%d batches of 3000 were warm: the test tests nothing", warmed)
	}
}
