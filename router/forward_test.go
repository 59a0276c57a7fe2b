package router

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

const testMTU = 1420

func TestForward(t *testing.T) {
	addr := netip.MustParseAddr
	udp := func(src, dst string, size int) []byte {
		return overlaytest.UDP(ap(addr(src), 5), ap(addr(dst), 6), make([]byte, size))
	}
	const pass = overlay.NumDrops
	for _, c := range []struct {
		name     string
		from, to string
		pkt      []byte
		drop     overlay.Drop
		ttl      byte
	}{
		{"a workload reaches another site", "a", OutsideName, udp("10.1.0.2", "10.1.16.9", 10), pass, 63},
		{"another site reaches a workload", OutsideName, "a", udp("10.1.16.9", "10.1.0.2", 10), pass, 63},
		{"a workload reaches another workload of the node", "a", "b", udp("10.1.0.2", "10.1.0.3", 10), pass, 63},
		{"a workload reaches the node", "a", "node", udp("10.1.0.2", "10.1.0.1", 10), pass, 64},
		{"another site reaches the node", OutsideName, "node", udp("10.1.16.9", "10.1.0.1", 10), pass, 64},
		{"the node reaches another site", "node", OutsideName, udp("10.1.0.1", "10.1.16.9", 10), pass, 64},
		{"the node reaches a workload", "node", "a", udp("10.1.0.1", "10.1.0.2", 10), pass, 64},
		{"the same over IPv6", "a", OutsideName, udp("fd00:1::2", "fd00:1:0:100::9", 10), pass, 63},
		{"a workload may not use another's address", "b", "", udp("10.1.0.2", "10.1.16.9", 10), overlay.DropSource, 0},
		{"a workload may not use another site's address", "a", "", udp("10.1.16.1", "10.1.0.3", 10), overlay.DropSource, 0},
		{"another site may not use our addresses", OutsideName, "", udp("10.1.0.2", "10.1.0.3", 10), overlay.DropSource, 0},
		{"another site may not use foreign addresses", OutsideName, "", udp("8.8.8.8", "10.1.0.3", 10), overlay.DropSource, 0},
		{"nothing leaves by the port it came from", "a", "", udp("10.1.0.2", "10.1.0.129", 10), overlay.DropNoRoute, 0},
		{"there is no transit through us", OutsideName, "", udp("10.1.16.9", "10.1.17.9", 10), overlay.DropNoRoute, 0},
		{"an unknown destination has no route", "a", "", udp("10.1.0.2", "10.9.9.9", 10), overlay.DropNoRoute, 0},
		{"a packet of the MTU passes", "a", OutsideName, udp("10.1.0.2", "10.1.16.9", testMTU-28), pass, 63},
		{"a packet over the MTU is too big", "a", "", udp("10.1.0.2", "10.1.16.9", testMTU-27), overlay.DropTooBig, 0},
		{"a TTL of one ends here", "a", "", edit(udp("10.1.0.2", "10.1.16.9", 10), func(p []byte) { p[8] = 1 }), overlay.DropTTL, 0},
		{"a TTL of one reaches the node itself", "a", "node", edit(udp("10.1.0.2", "10.1.0.1", 10), func(p []byte) { p[8] = 1 }), pass, 1},
		{"SCTP crosses the slice", "a", OutsideName, overlaytest.AppendIP(nil, addr("10.1.0.2"), addr("10.1.16.9"), 132, make([]byte, 16)), pass, 63},
		{"SCTP is not for the node", "a", "", overlaytest.AppendIP(nil, addr("10.1.0.2"), addr("10.1.0.1"), 132, make([]byte, 16)), overlay.DropProtocol, 0},
		{"extension headers are not for the node", "a", "", overlaytest.AppendIP(nil, addr("fd00:1::2"), addr("fd00:1::1"), protoDestOpts,
			[]byte{59, 0, 1, 4, 0, 0, 0, 0}), overlay.DropOptions, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newRig(t)
			g.put(c.from, append(c.pkt, 0xee, 0xee)) // with padding, which goes no further
			got := g.got()
			if c.to == "" {
				if len(got) != 0 || g.drops.Get(c.drop) != 1 {
					t.Fatalf("went to %v, drops %v, want %v", slices.Collect(maps.Keys(got)), g.drops.Snapshot(), c.drop)
				}
				return
			}
			if len(got) != 1 || len(got[c.to]) != 1 {
				t.Fatalf("went to %v, drops %v, want %s", slices.Collect(maps.Keys(got)), g.drops.Snapshot(), c.to)
			}
			p := got[c.to][0]
			at := 8
			if p[0]>>4 == 6 {
				at = 7
			}
			if len(p) != len(c.pkt) || p[at] != c.ttl || p[0]>>4 == 4 && !headerSumOK(p) {
				t.Errorf("came out as %x", p)
			}
		})
	}
}

func TestTransitIsBetweenTheZonesThatAreAllowed(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name     string
		src, dst string
		ttl      byte
		drop     overlay.Drop // unless it passes
	}{
		{"out of our own site", "10.1.0.200", "10.1.16.9", 64, overlay.NumDrops},
		{"and in", "10.1.16.9", "10.1.0.200", 64, overlay.NumDrops},
		{"over IPv6", "fd00:1:0:200::9", "fd00:1:0:100::9", 64, overlay.NumDrops},
		{"a way that is not allowed back", "10.1.16.9", "10.1.32.9", 64, overlay.DropNoRoute},
		{"between two others", "10.1.16.9", "10.1.48.9", 64, overlay.DropNoRoute},
		{"back to the site it comes from", "10.1.16.9", "10.1.17.9", 64, overlay.DropNoRoute},
		{"to a zone without a name", "10.1.0.200", "10.1.64.9", 64, overlay.DropNoRoute},
		{"with its last hop", "10.1.0.200", "10.1.16.9", 1, overlay.DropTTL},
	} {
		g := newRig(t)
		s := g.state
		s.Ports = slices.Clone(s.Ports)
		s.Routes = slices.Clone(s.Routes)
		for i := range s.Ports {
			if s.Ports[i].Role == Outside {
				s.Ports[i].Sources = append(slices.Clone(s.Ports[i].Sources), prefixes("10.1.0.192/26", "10.1.32.0/20", "10.1.48.0/20", "10.1.64.0/20", "fd00:1:0:200::/56")...)
			}
		}
		for _, p := range prefixes("10.1.0.192/26", "10.1.32.0/20", "10.1.48.0/20", "10.1.64.0/20", "fd00:1:0:200::/56") {
			s.Routes = append(s.Routes, Route{p, OutsideName})
		}
		for i, name := range []string{"b", "c", "d"} {
			s.Zones = append(s.Zones, Zone{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(16 + 16*i), 0}), 20), name})
		}
		s.Zones = append(s.Zones, Zone{netip.MustParsePrefix("10.1.0.0/20"), "own"}, Zone{netip.MustParsePrefix("fd00:1:0:200::/56"), "own"}, Zone{netip.MustParsePrefix("fd00:1:0:100::/56"), "b"})
		s.Transits = []Transit{{"own", "b"}, {"b", "own"}, {"own", "c"}, {"c", "own"}, {"c", "b"}, {"own", "unknown"}}
		if err := g.Set(s); err != nil {
			t.Fatal(err)
		}
		pkt := overlaytest.UDP(ap(addr(c.src), 5), ap(addr(c.dst), 6), make([]byte, 10))
		if c.ttl != 64 {
			pkt = edit(pkt, func(p []byte) { p[8] = c.ttl })
		}
		g.put(OutsideName, pkt)
		passed := len(g.got()[OutsideName])
		if want := c.drop == overlay.NumDrops; (passed == 1) != want || !want && g.drops.Get(c.drop) != 1 {
			t.Errorf("%s: %d passed, drops %v", c.name, passed, g.drops.Snapshot())
		}
	}
	if err := newRig(t).Set(State{Transits: []Transit{{"b", "b"}}}); err == nil {
		t.Error("a transit from a zone to itself is taken")
	}
}

func TestForwardClampsMSSAcrossTheTunnelOnly(t *testing.T) {
	addr := netip.MustParseAddr
	mss := []byte{2, 4, 0x23, 0x00}
	syn := func(src, dst string) []byte {
		return overlaytest.TCP(ap(addr(src), 1), ap(addr(dst), 2), 0, 0, overlaytest.SYN, mss, nil)
	}
	g := newRig(t)
	g.put("a", syn("10.1.0.2", "10.1.16.9"), syn("10.1.0.2", "10.1.0.3"), syn("fd00:1::2", "fd00:1:0:100::9"))
	g.put(OutsideName, overlaytest.TCP(ap(addr("10.1.16.9"), 1), ap(addr("10.1.0.2"), 2), 0, 0, overlaytest.SYN|overlaytest.ACK, mss, nil))
	got := g.got()
	for _, c := range []struct {
		name string
		pkt  []byte
		want int
	}{
		{"outward", got[OutsideName][0], testMTU - 40},
		{"outward over IPv6", got[OutsideName][1], testMTU - 60},
		{"inward SYN-ACK", got["a"][0], testMTU - 40},
		{"between workloads", got["b"][0], 0x2300},
	} {
		v := c.pkt[len(c.pkt)-2:]
		if got := int(v[0])<<8 | int(v[1]); got != c.want || !overlaytest.ChecksumsOK(c.pkt) {
			t.Errorf("%s: MSS %d, want %d, checksums right %v", c.name, got, c.want, overlaytest.ChecksumsOK(c.pkt))
		}
	}
}

func TestForwardKeepsOrderPerWayOut(t *testing.T) {
	g := newRig(t)
	rng := rand.New(rand.NewPCG(1, 1))
	dst := map[string]netip.Addr{"b": netip.MustParseAddr("10.1.0.3"), "node": netip.MustParseAddr("10.1.0.1"), OutsideName: netip.MustParseAddr("10.1.16.9")}
	want := make(map[string][]byte)
	var pkts [][]byte
	for i := range 3 * overlay.BatchSize {
		to := []string{"b", "node", OutsideName}[rng.IntN(3)]
		pkts = append(pkts, overlaytest.UDP(ap(netip.MustParseAddr("10.1.0.2"), 1), ap(dst[to], 2), []byte{byte(i)}))
		want[to] = append(want[to], byte(i))
	}
	g.put("a", pkts...)
	for to, ps := range g.got() {
		var order []byte
		for _, p := range ps {
			order = append(order, p[len(p)-1])
		}
		if !slices.Equal(order, want[to]) {
			t.Errorf("%s got %v, want %v", to, order, want[to])
		}
	}
}

func TestForwardAgreesWithTheModel(t *testing.T) {
	const seed = 11
	g := newRig(t)
	var every []netip.Addr
	for _, s := range []string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.16.3", "10.1.0.200", "10.7.0.1",
		"fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1:0:100::3", "fd00:7::1"} {
		every = append(every, netip.MustParseAddr(s))
	}
	gen := overlaytest.NewGenerator(seed, every, every)
	names := []string{"a", "b", "node", OutsideName}
	delivered := make(map[string]int)
	for i := range 200_000 {
		p := gen.Malformed()
		if i%2 == 0 {
			p = gen.Valid()
		}
		from := names[i/2%len(names)]
		to, bytes, drop := naiveRoute(g.state, testMTU, from, p)
		before := g.drops.Get(drop)
		g.put(from, p)
		got := g.got()
		if to == "" {
			if len(got) != 0 || g.drops.Get(drop) != before+1 {
				t.Fatalf("seed %d packet %d from %s: went to %v, the model drops it as %v: %x", seed, i, from, got, drop, p)
			}
			continue
		}
		if len(got) != 1 || len(got[to]) != 1 {
			t.Fatalf("seed %d packet %d from %s: went to %v, drops %v, the model says %s: %x", seed, i, from, got, g.drops.Snapshot(), to, p)
		}
		delivered[to]++
		out, want := got[to][0], bytes
		if out[0]>>4 == 4 && !headerSumOK(out) {
			t.Fatalf("seed %d packet %d: wrong header checksum: %x", seed, i, out)
		}
		// The model changes TTL and MSS but not the checksums over them: what
		// was right must still be right, and what was wrong still wrong.
		m, _, _ := naiveParse(out)
		if m.proto == protoTCP && m.l4 >= 0 {
			if overlaytest.ChecksumsOK(out) != overlaytest.ChecksumsOK(p[:len(out)]) {
				t.Fatalf("seed %d packet %d: the checksum changed sides: %x", seed, i, out)
			}
			copy(want[m.l4+16:m.l4+18], out[m.l4+16:m.l4+18])
		}
		if out[0]>>4 == 4 {
			copy(want[10:12], out[10:12])
		}
		if !slices.Equal(out, want) {
			t.Fatalf("seed %d packet %d from %s: came out as\n%x, the model says\n%x", seed, i, from, out, want)
		}
	}
	for _, n := range names {
		if delivered[n] < 1000 {
			t.Errorf("only %v delivered: the test tests nothing", delivered)
		}
	}
}

func TestForwardAllocatesNothing(t *testing.T) {
	g := newRig(t)
	addr := netip.MustParseAddr
	bufs := withHeadroom(
		overlaytest.UDP(ap(addr("10.1.0.2"), 5), ap(addr("10.1.16.9"), 6), make([]byte, 1000)),
		overlaytest.UDP(ap(addr("fd00:1::2"), 5), ap(addr("fd00:1:0:100::9"), 6), make([]byte, 1000)),
		overlaytest.TCP(ap(addr("10.1.0.2"), 5), ap(addr("10.1.0.3"), 6), 1, 1, overlaytest.SYN, []byte{2, 4, 0xff, 0xff}, nil),
		overlaytest.UDP(ap(addr("10.9.9.9"), 5), ap(addr("10.1.16.9"), 6), make([]byte, 1000)), // wrong source
	)
	g.port("b").link = discard{}
	from := g.port("a")
	b := new(batch)
	work := slices.Clone(bufs)
	out, sizes := withHeadroom(make([]byte, 2000), make([]byte, 2000)), make([]int, 2)
	if n := testing.AllocsPerRun(1000, func() {
		copy(work, bufs)
		for _, p := range work {
			at := overlay.Headroom + 8
			if p[overlay.Headroom]>>4 == 6 {
				at--
			}
			p[at] = 64
			overlaytest.Fix(p[overlay.Headroom:])
		}
		g.forward(from, work, b)
		if n, err := g.Outside().Read(out, sizes); n != 2 || err != nil {
			t.Fatalf("read %d packets, %v: drops %v", n, err, g.drops.Snapshot())
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations a batch", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		copy(work, bufs)
		_ = g.Outside().Write(work) // all dropped: wrong source
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations an outside batch", n)
	}
}

// discard is a Link that takes everything.
type discard struct{}

func (discard) Read([][]byte, []int) (int, error) { return 0, net.ErrClosed }
func (discard) Write([][]byte) error              { return nil }

func (discard) Close() error { return nil }
