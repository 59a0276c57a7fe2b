package router

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"slicewire/overlay"
)

// A source is checked before the flows are looked at: to look like a packet of
// somebody's flow helps nobody.
func TestASpoofThatMatchesAFlowIsDropped(t *testing.T) {
	g := newRig(t)
	g.police(t, overlay.Rule{Name: "all", Subject: everyone(), Peer: everyone()}, overlay.Rule{Name: "in", Ingress: true, Subject: just("10.1.0.2/32")})
	if !g.passes("a", udpOf("10.1.0.2", "10.1.16.9", 5, 53)) || !g.passes(OutsideName, udpOf("10.1.16.9", "10.1.0.2", 53, 5)) {
		t.Fatalf("the flow itself: %v", g.drops.Snapshot())
	}
	for range 50_000 {
		g.put("b", udpOf("10.1.16.9", "10.1.0.2", 53, 5)) // as the other end
		g.put("b", udpOf("10.1.0.2", "10.1.16.9", 5, 53)) // as this one
	}
	if got := g.got(); len(got) != 0 || g.drops.Get(overlay.DropSource) != 100_000 {
		t.Errorf("%v delivered, %v", got, g.drops.Snapshot())
	}
}

// One source cannot make the table forget the flows of the others.
func TestOneSourceEvictsOnlyItsOwnFlows(t *testing.T) {
	const most, kept = 1000, 100
	var now time.Duration
	q := newQueue(testMTU)
	r, err := New(Config{Slice: "red", MTU: testMTU, Outlet: q, MaxFlows: most, Clock: func() time.Duration { return now }})
	if err != nil {
		t.Fatal(err)
	}
	g := newRig(t)
	g.Router, g.queue = r, q
	g.police(t, overlay.Rule{Name: "only b asks", Ingress: true, Subject: just("10.1.0.3/32", "10.1.0.2/32")},
		overlay.Rule{Name: "out", Subject: everyone(), Peer: everyone()})
	for i := range kept {
		if !g.passes("b", udpOf("10.1.0.3", "10.1.16.9", uint16(i), 53)) {
			t.Fatal(g.drops.Snapshot())
		}
	}
	now += time.Second
	for i := range 20 * most {
		g.put("a", udpOf("10.1.0.2", "10.1.16.9", uint16(i), uint16(i>>8)))
		g.takeOutside()
	}
	// Who has less takes from who has most, also while the table is full.
	for i := range kept {
		if !g.passes("b", udpOf("10.1.0.3", "10.1.16.9", uint16(kept+i), 53)) {
			t.Fatal(g.drops.Snapshot())
		}
	}
	for i := range 2 * kept {
		if !g.passes(OutsideName, udpOf("10.1.16.9", "10.1.0.3", 53, uint16(i))) {
			t.Fatalf("the answer to flow %d of the other source: %v", i, g.drops.Snapshot())
		}
	}
	f := r.table.Load().flows
	if f.live != most || f.used != most || f.evicted != 20*most-most+2*kept {
		t.Errorf("%d live of %d, %d evicted", f.live, f.used, f.evicted)
	}
	// Of its own flows, the one that was silent longest went first.
	if !g.passes(OutsideName, udpOf("10.1.16.9", "10.1.0.2", uint16((20*most-1)>>8), uint16(20*most-1))) {
		t.Errorf("its newest flow is gone: %v", g.drops.Snapshot())
	}
}

// The table's lists and buckets hold what a map would, whatever is done to it.
func TestFlowTableKeepsItsBooks(t *testing.T) {
	if size := reflect.TypeFor[flowEntry]().Size(); size%64 != 0 {
		t.Errorf("an entry has %d bytes, which are no whole lines of the cache", size)
	}
	const seed, most = 4, 64
	rng := rand.New(rand.NewPCG(seed, 1))
	f := newFlowTable(most)
	for step := range 100_000 {
		now := int64(step / 10)
		k := flowKey{srcLo: uint64(rng.IntN(9) * rng.IntN(9)), dstLo: 500 + uint64(rng.IntN(3)), last: protoUDP<<32 | uint64(rng.IntN(40))}
		i, _ := f.findLocked(&k)
		switch {
		case i == 0:
			f.addLocked(&k, 0, [2]*ruleCount{}, now)
		case rng.IntN(3) == 0:
			f.removeLocked(i)
		default:
			f.at(i).touch(false, now)
		}
		flows, sources := 0, make(map[uint64]int)
		for h := range f.heads {
			for i := f.heads[h].Load(); i != 0; i = f.at(i).next.Load() {
				flows++
				sources[f.at(i).srcLo.Load()]++
			}
		}
		counted, biggest := 0, 0
		for lo, n := range sources {
			i := f.sources.get(0, lo)
			inLine := 0
			for x := f.sources.oldest(i); x != 0; x = f.book(x).newer {
				inLine++
			}
			if f.sources.at(i).n != n || inLine != n {
				t.Fatalf("seed %d step %d: source %d has %d flows, the books say %d and %d", seed, step, lo, n, f.sources.at(i).n, inLine)
			}
			counted, biggest = counted+n, max(biggest, n)
		}
		if flows != f.live || counted != flows || f.sources.most != biggest || flows > most {
			t.Fatalf("seed %d step %d: %d flows, %d live, %d of sources, biggest %d, %d", seed, step, flows, f.live, counted, biggest, f.sources.most)
		}
	}
	if f.evicted < 1000 {
		t.Errorf("%d evicted: the test tests nothing", f.evicted)
	}
}
