package router

import (
	"fmt"
	"testing"

	"slicewire/overlay"
	"slicewire/shaper"
)

// shapedLoad is newLoad from a workload through a policy of many rules into a
// shaper whose ceiling is never reached, as a slice with both has them.
type shapedLoad struct {
	*load
	queue *shaper.Queue
	bufs  [][]byte
	sizes []int
	out   int // packets that the tunnel would have read
}

func newShapedLoad(t testing.TB, v6 bool, flows int) *shapedLoad {
	q := shaper.New(shaper.NewUplink(0))
	t.Cleanup(func() { _ = q.Close() })
	const guaranteed = shaper.Gbps
	q.Set(shaper.Plan{
		Share:   shaper.Share{Guaranteed: guaranteed, Ceiling: 90 * shaper.Gbps},
		Classes: []shaper.Class{{Share: shaper.Share{Guaranteed: guaranteed}}},
	})
	l := &shapedLoad{load: newLoad(t, Inside, v6, 10_000, flows), queue: q, sizes: make([]int, overlay.BatchSize)}
	for range overlay.BatchSize {
		l.bufs = append(l.bufs, make([]byte, overlay.Headroom+overlay.MaxPacket))
	}
	// The same, but that all of it goes to the tunnel.
	r, err := New(Config{Slice: "bench", MTU: testMTU, Outlet: q})
	if err != nil {
		t.Fatal(err)
	}
	s := State{Ports: []Port{l.state.Ports[0], {Name: OutsideName, Role: Outside}}, Policy: manyRules(t, 100)}
	for _, x := range l.state.Routes {
		s.Routes = append(s.Routes, Route{x.Prefix, OutsideName})
	}
	if err := r.Set(s); err != nil {
		t.Fatal(err)
	}
	l.r, l.in = r, r.ports["a"]
	return l
}

// pass takes a batch through router and shaper.
func (l *shapedLoad) pass(t testing.TB) {
	l.cross()
	for want := l.out + overlay.BatchSize; l.out < want; {
		n, err := l.queue.Read(l.bufs, l.sizes)
		if err != nil {
			t.Fatal(err)
		}
		l.out += n
	}
}

func BenchmarkPoliceAndShape(b *testing.B) {
	for _, c := range []struct {
		flows int
		v6    bool
	}{{1, false}, {100, false}, {10_000, false}, {10_000, true}} {
		name := fmt.Sprintf("flows=%d", c.flows)
		if c.v6 {
			name += " of IPv6"
		}
		b.Run(name, func(b *testing.B) {
			l := newShapedLoad(b, c.v6, c.flows)
			for range 2048 { // all flows are known, all memory is there
				l.pass(b)
			}
			l.out = 0
			cpu := perPacket(b)
			n := 0
			for b.Loop() {
				l.pass(b)
				n += overlay.BatchSize
			}
			if l.out != n {
				b.Fatalf("%d of %d came out: %v, %v", l.out, n, l.r.drops.Snapshot(), l.queue.Drops().Snapshot())
			}
			cpu(n)
		})
	}
}

// A packet of a flow that is known costs no allocation on its way through policy
// and shaper.
func TestPoliceAndShapeAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, flows := range []int{1, 100, 10_000} {
		l := newShapedLoad(t, false, flows)
		for range 2048 {
			l.pass(t)
		}
		if n := testing.AllocsPerRun(200, func() { l.pass(t) }); n != 0 {
			t.Errorf("%d flows: %v allocations for a batch", flows, n)
		}
		if n := len(l.r.Flows()); n < flows*9/10 {
			t.Errorf("%d flows are remembered, want %d", n, flows)
		}
	}
}
