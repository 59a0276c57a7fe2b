package router

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// What was learnt of a flow holds for one port and one State only.
func TestAFlowIsForgottenWithWhatItWasLearntFrom(t *testing.T) {
	g := newRig(t)
	src, dst := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
	scratch := new(batch)
	cross := func(from string) (out int, drop string) {
		before := g.drops.Snapshot()
		g.forward(g.port(from), withHeadroom(overlaytest.UDP(ap(src, 1), ap(dst, 2), nil)), scratch)
		for name, n := range g.drops.Snapshot() {
			if n != before[name] {
				drop = name
			}
		}
		return len(g.b.take()), drop
	}
	set := func(change func(s *State)) {
		s := State{Ports: append([]Port(nil), g.state.Ports...), Routes: append([]Route(nil), g.state.Routes...)}
		change(&s)
		if err := g.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if out, drop := cross("a"); out != 1 {
			t.Fatalf("dropped: %s", drop)
		}
	}
	if _, drop := cross("node"); drop != overlay.DropSource.String() {
		t.Errorf("from another port: %q", drop)
	}
	cross("a")
	set(func(s *State) { s.Ports[0].Sources = nil })
	if _, drop := cross("a"); drop != overlay.DropSource.String() {
		t.Errorf("after its source was taken away: %q", drop)
	}
	set(func(*State) {})
	cross("a")
	set(func(s *State) {
		s.Routes = append(s.Routes[:3:3], s.Routes[4:]...) // without 10.1.0.3/32
	})
	if _, drop := cross("a"); drop != overlay.DropNoRoute.String() {
		t.Errorf("after its route was taken away: %q", drop)
	}
}

// A reader that remembers says of every packet what one says that never saw
// a packet before, whatever is set in between.
func TestMemoryChangesNoAnswer(t *testing.T) {
	const seed = 5
	rng := rand.New(rand.NewPCG(seed, seed))
	g := newRig(t)
	var addrs []netip.Addr
	for _, a := range []string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.200", "10.1.16.9", "10.9.9.9", "fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1:0:100::9"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	gen := overlaytest.NewGenerator(seed, addrs, addrs)
	old, fresh := new(batch), new(batch)
	names := []string{"a", "b", "node", OutsideName}
	remembered := 0
	for i := range 50_000 {
		if i%300 == 0 { // in the middle of what one port sends, mostly
			s := State{Ports: slices.Clone(g.state.Ports), Routes: slices.Clone(g.state.Routes)}
			for k := range s.Ports {
				if rng.IntN(6) == 0 {
					s.Ports[k].Sources = s.Ports[rng.IntN(len(s.Ports))].Sources
				}
			}
			rng.Shuffle(len(s.Routes), func(i, j int) { s.Routes[i], s.Routes[j] = s.Routes[j], s.Routes[i] })
			s.Routes = s.Routes[:len(s.Routes)-rng.IntN(3)]
			if err := g.Set(s); err != nil {
				t.Fatal(err)
			}
		}
		p := gen.Valid()
		if rng.IntN(50) == 0 {
			p = gen.Malformed()
		}
		in, tab := g.port(names[i/200%len(names)]), g.table.Load()
		old.flows.renew(tab.version, in)
		if i%20 == 0 { // as if another flow had taken the slot
			*old.flows.slot(pair{dstLo: rng.Uint64()}) = flow{}
		}
		clear(fresh.flows.slots[:])
		q := slices.Clone(p)
		before := old.flows
		out, size, drop := g.route(tab, tab.sources[in], in, old, p)
		wantOut, wantSize, wantDrop := g.route(tab, tab.sources[in], in, fresh, q)
		if out != wantOut || size != wantSize || drop != wantDrop || !slices.Equal(p, q) {
			t.Fatalf("seed %d packet %d from %s: %v %d %v, without memory %v %d %v", seed, i, in.name, out, size, drop, wantOut, wantSize, wantDrop)
		}
		if out != nil && before == old.flows {
			remembered++
		}
	}
	if remembered < 3000 {
		t.Errorf("only %d packets were of a remembered flow: the test tests nothing", remembered)
	}
}

// Flows that share a slot replace each other and never answer for each other.
func TestFlowsThatShareASlot(t *testing.T) {
	var f flows
	ports := []*port{{name: "x"}, {name: "y"}}
	where := make(map[*flow]pair)
	shared := 0
	for i := range uint64(4 * flowSlots) {
		p := pair{dstLo: 0x0a000001 | i<<40}
		if i%2 == 1 {
			p = pair{0xfd, i, 0xfd, 7}
		}
		s := f.slot(p)
		if before, ok := where[s]; ok {
			shared++
			if s.pair != before || s.out == nil || s.pair == p {
				t.Fatalf("the slot of %v holds %v, want %v", p, s.pair, before)
			}
		}
		*s, where[s] = flow{p, ports[i%2]}, p
	}
	if shared < flowSlots || len(where) < flowSlots/2 {
		t.Errorf("%d shared, %d slots used of %d", shared, len(where), flowSlots)
	}
	f.renew(1, ports[0])
	for i := range f.slots {
		if f.slots[i].out != nil {
			t.Fatal("remembered after renew")
		}
	}
}

func TestCheckAllocatesNothing(t *testing.T) {
	for _, p := range [][]byte{tcp4(), tcp6(), udp4(), overlaytest.PacketOfDeath(ap(here4, 1), ap(there4, 2))} {
		if n := testing.AllocsPerRun(100, func() {
			var in info
			in.check(p)
		}); n != 0 {
			t.Errorf("%v allocations for %x", n, p)
		}
	}
}
