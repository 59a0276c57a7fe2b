package router

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// newTalker is a rig that answers with ICMP errors.
func newTalker(t testing.TB) *rig {
	g := newRig(t)
	g.state.Self4, g.state.Self6 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	if err := g.Set(g.state); err != nil {
		t.Fatal(err)
	}
	return g
}

// only returns the one packet that went out, and by which port.
func only(t *testing.T, got map[string][][]byte) (port string, pkt []byte) {
	t.Helper()
	for name, pkts := range got {
		if len(got) == 1 && len(pkts) == 1 {
			return name, pkts[0]
		}
	}
	t.Fatalf("not one packet: %x", got)
	return "", nil
}

func TestErrorsAnswerWhatIsDropped(t *testing.T) {
	addr := netip.MustParseAddr
	udp := func(src, dst string, size int) []byte {
		return overlaytest.UDP(ap(addr(src), 5), ap(addr(dst), 6), make([]byte, size))
	}
	hops := func(n byte, p []byte) []byte {
		return edit(p, func(p []byte) {
			if p[0]>>4 == 6 {
				p[7] = n
				return
			}
			p[8] = n
		})
	}
	sctp := func(src, dst string) []byte {
		return overlaytest.AppendIP(nil, addr(src), addr(dst), 132, make([]byte, 16))
	}
	for _, c := range []struct {
		name      string
		from, to  string
		pkt       []byte
		src       string // of the answer
		typ, code byte
		mtu       int
	}{
		{"the last hop, from a workload", "a", "a", hops(1, udp("10.1.0.2", "10.1.16.9", 10)), "10.1.0.1", 11, 0, 0},
		{"no hop at all", "a", "a", hops(0, udp("10.1.0.2", "10.1.16.9", 10)), "10.1.0.1", 11, 0, 0},
		{"the last hop, from another site", OutsideName, OutsideName, hops(1, udp("10.1.16.9", "10.1.0.2", 10)), "10.1.0.1", 11, 0, 0},
		{"the last hop over IPv6", "a", "a", hops(1, udp("fd00:1::2", "fd00:1:0:100::9", 10)), "fd00:1::1", 3, 0, 0},
		{"the last hop of an echo", "a", "a", hops(1, overlaytest.Echo(addr("10.1.0.2"), addr("10.1.16.9"), false, 1, 1, nil)), "10.1.0.1", 11, 0, 0},
		{"no route", "a", "a", udp("10.1.0.2", "10.9.9.9", 10), "10.1.0.1", 3, 0, 0},
		{"no route over IPv6", "a", "a", udp("fd00:1::2", "fd00:9::9", 10), "fd00:1::1", 1, 0, 0},
		{"no route for the node itself", "node", "node", udp("10.1.0.1", "10.9.9.9", 10), "10.9.9.9", 3, 0, 0},
		{"too big and not to be cut", "a", "a", udp("10.1.0.2", "10.1.16.9", testMTU), "10.1.0.1", 3, 4, testMTU},
		{"too big from another site", OutsideName, OutsideName, udp("10.1.16.9", "10.1.0.2", testMTU), "10.1.0.1", 3, 4, testMTU},
		{"too big over IPv6", "a", "a", udp("fd00:1::2", "fd00:1:0:100::9", testMTU), "fd00:1::1", 2, 0, testMTU},
		{"a protocol that the node has not", "a", "a", sctp("10.1.0.2", "10.1.0.1"), "10.1.0.1", 3, 2, 0},
		{"the same over IPv6", "a", "a", sctp("fd00:1::2", "fd00:1::1"), "fd00:1::1", 4, 1, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTalker(t)
			want := slices.Clone(c.pkt)
			g.put(c.from, c.pkt)
			to, e := only(t, g.got())
			src, dst := addresses(e, e[0]>>4 == 6)
			_, back := addresses(want, e[0]>>4 == 6)
			head, most, mtu := ipv4Header, 576, func(h []byte) int { return int(binary.BigEndian.Uint16(h[6:])) }
			if src.Is6() {
				head, most, mtu = ipv6Header, 1280, func(h []byte) int { return int(binary.BigEndian.Uint32(h[4:])) }
			}
			h := e[head:]
			if to != c.to || src != addr(c.src) || h[0] != c.typ || h[1] != c.code || mtu(h) != c.mtu {
				t.Errorf("to %s from %v: type %d code %d mtu %d", to, src, h[0], h[1], mtu(h))
			}
			if s, _ := addresses(want, e[0]>>4 == 6); dst != s || back == dst {
				t.Errorf("sent to %v", dst)
			}
			if quote := h[8:]; !slices.Equal(quote, want[:min(len(want), most-head-8)]) {
				t.Errorf("quotes %x of %x", quote, want)
			}
			var p info
			if drop, ok := p.check(e); !ok || !overlaytest.ChecksumsOK(e) || len(e) != p.length {
				t.Errorf("the answer itself is wrong: %v: %x", drop, e)
			}
			if s := g.Counters().Slow; s != (SlowCount{Errors: 1}) {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

func TestSomeDropsAreSilent(t *testing.T) {
	addr := netip.MustParseAddr
	last := func(p []byte) []byte { return edit(p, func(p []byte) { p[8] = 1 }) }
	last6 := func(p []byte) []byte { p[7] = 1; return p }
	icmp := func(typ byte) []byte {
		p := overlaytest.Echo(addr("10.1.0.2"), addr("10.1.16.9"), false, 1, 1, nil)
		p[20] = typ
		return last(p)
	}
	icmp6 := func(typ byte) []byte {
		p := overlaytest.Echo(addr("fd00:1::2"), addr("fd00:1:0:100::9"), false, 1, 1, nil)
		p[40] = typ
		return last6(p)
	}
	later := last(edit(overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.16.9"), 2), make([]byte, 24)), func(p []byte) { p[6], p[7] = 0, 5 }))
	for _, c := range []struct {
		name string
		pkt  []byte
	}{
		{"another's source", last(overlaytest.UDP(ap(addr("10.1.0.3"), 1), ap(addr("10.1.16.9"), 2), nil))},
		{"unreachable", icmp(3)}, {"quench", icmp(4)}, {"time exceeded", icmp(11)}, {"parameter problem", icmp(12)}, {"unknown ICMP", icmp(99)},
		{"unreachable 6", icmp6(1)}, {"too big 6", icmp6(2)}, {"an unknown error 6", icmp6(100)},
		{"a later fragment", later},
		{"multicast", overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("224.0.0.1"), 2), nil)},
		{"malformed", []byte{0x45, 1, 2, 3}},
	} {
		g := newTalker(t)
		g.put("a", c.pkt)
		if got := g.got(); len(got) != 0 {
			t.Errorf("%s: answered with %x", c.name, got)
		}
		drops := uint64(0)
		for _, n := range g.Counters().Drops {
			drops += n
		}
		if drops != 1 {
			t.Errorf("%s: %d drops", c.name, drops)
		}
	}
	g := newRig(t) // which has no address
	g.put("a", last(overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.16.9"), 2), nil)))
	if got := g.got(); len(got) != 0 {
		t.Errorf("answered without an address: %x", got)
	}
}

func TestErrorsAreLimitedPerSourceAndPerSlice(t *testing.T) {
	l := newLimiter(DefaultErrorRate)
	one, two := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.1.0.3")
	now := int64(time.Hour)
	n := 0
	for l.allow(one, now) {
		n++
	}
	if n != sourceBurst {
		t.Errorf("%d at once, want %d", n, sourceBurst)
	}
	if !l.allow(two, now) {
		t.Error("one source takes from another")
	}
	got := 0
	for i := range int64(10_000) { // 10 s, a question each millisecond
		if l.allow(one, now+i*int64(time.Millisecond)) {
			got++
		}
	}
	if got < 98 || got > 101 {
		t.Errorf("%d in 10 s, want 100", got)
	}
	l = newLimiter(DefaultErrorRate)
	a, all := netip.MustParseAddr("10.2.0.0"), 0
	for range 10_000 { // as many sources, in one second
		if l.allow(a, now) {
			all++
		}
		a, now = a.Next(), now+int64(time.Second/10_000)
	}
	if all < 1200 || all > 1270 {
		t.Errorf("%d for the slice in a second, want about 1256", all)
	}
}

func TestAFloodOfErrorsIsBoundedAndCounted(t *testing.T) {
	g := newTalker(t)
	pkt := edit(overlaytest.UDP(ap(netip.MustParseAddr("10.1.0.2"), 1), ap(netip.MustParseAddr("10.1.16.9"), 2), nil), func(p []byte) { p[8] = 1 })
	bufs := withHeadroom(pkt)
	b := new(batch)
	for range 1000 { // nobody works
		g.forward(g.port("a"), slices.Clone(bufs), b)
	}
	g.drainSlow()
	c := g.Counters()
	if c.Drops["ttl"] != 1000 || c.Slow.Overflow != 1000-slowPackets || c.Slow.Errors+c.Slow.Limited != slowPackets || c.Slow.Errors < sourceBurst {
		t.Errorf("%v %+v", c.Drops, c.Slow)
	}
	work := slices.Clone(bufs)
	if n := testing.AllocsPerRun(1000, func() { copy(work, bufs); g.forward(g.port("a"), work, b); g.drainSlow() }); n != 0 && !raceEnabled {
		t.Errorf("%v allocations a packet over the limit", n)
	}
}

func TestAnErrorAboutAPacketOfSeveralQuotesTheFirst(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		g := newTalker(t)
		src, dst := netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("10.9.9.9")
		if v6 {
			src, dst = netip.MustParseAddr("fd00:1::2"), netip.MustParseAddr("fd00:9::9")
		}
		pkt := overlaytest.TCP(ap(src, 1), ap(dst, 2), 1, 1, overlaytest.ACK, nil, make([]byte, 30_000))
		bufs := withHeadroom(pkt)
		overlay.PutMeta(bufs[0], overlay.Meta{Piece: 100})
		g.forward(g.port("a"), bufs, new(batch))
		g.drainSlow()
		_, e := only(t, g.got())
		quote, want := e[28:], 140
		if v6 {
			quote, want = e[48:], 160
		}
		var p info
		if _, ok := p.check(quote); !ok || p.length != want || len(quote) != want {
			t.Errorf("quotes %d bytes, a packet of %d", len(quote), p.length)
		}
		if d := g.Counters().Drops["no-route"]; d < 300 {
			t.Errorf("%d drops", d)
		}
	}
}

func TestWhatMayBeCutIsCut(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		name  string
		size  int // of the data
		field uint16
		ttl   byte
		sizes []int
		want  []uint16 // flags and offset of each
		drop  overlay.Drop
	}{
		{"one byte too long", 1401, 0, 64, []int{1420, 21}, []uint16{flagMF, 175}, overlay.NumDrops},
		{"three", 2802, 0, 64, []int{1420, 1420, 22}, []uint16{flagMF, flagMF | 175, 350}, overlay.NumDrops},
		{"a fragment in the middle", 1600, flagMF | 100, 64, []int{1420, 220}, []uint16{flagMF | 100, flagMF | 275}, overlay.NumDrops},
		{"a last fragment", 1601, 100, 64, []int{1420, 221}, []uint16{flagMF | 100, 275}, overlay.NumDrops},
		{"its last hop", 1401, 0, 1, nil, nil, overlay.DropTTL},
	} {
		g := newTalker(t)
		data := make([]byte, c.size)
		for i := range data {
			data[i] = byte(i * 7)
		}
		pkt := overlaytest.AppendIP(nil, addr("10.1.0.2"), addr("10.1.0.3"), 99, data)
		binary.BigEndian.PutUint16(pkt[4:], 0x1234)
		binary.BigEndian.PutUint16(pkt[6:], c.field)
		pkt[8] = c.ttl
		overlaytest.Fix(pkt)
		g.put("a", pkt)
		got := g.got()
		if c.drop != overlay.NumDrops {
			if len(got["b"]) != 0 || g.drops.Get(c.drop) != 1 {
				t.Errorf("%s: %x, %v", c.name, got, g.drops.Snapshot())
			}
			continue
		}
		var sizes []int
		var fields []uint16
		var all []byte
		for _, f := range got["b"] {
			sizes = append(sizes, len(f))
			fields = append(fields, binary.BigEndian.Uint16(f[6:]))
			all = append(all, f[20:]...)
			if !headerSumOK(f) || f[8] != 63 || int(binary.BigEndian.Uint16(f[2:])) != len(f) || f[4] != 0x12 {
				t.Errorf("%s: header %x", c.name, f[:20])
			}
		}
		if !slices.Equal(sizes, c.sizes) || !slices.Equal(fields, c.want) || !slices.Equal(all, data) {
			t.Errorf("%s: sizes %v, fields %x", c.name, sizes, fields)
		}
		if s := g.Counters(); s.Slow.Cut != 1 || s.Slow.Fragments != uint64(len(sizes)) || len(s.Drops) != 0 {
			t.Errorf("%s: counted %+v %v", c.name, s.Slow, s.Drops)
		}
	}
}
