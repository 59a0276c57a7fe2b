package main

import (
	"net/netip"
	"slices"
	"testing"

	"slicewire/netstack"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
)

// newMappedSubject is a router whose far leg is a mapped network.
func newMappedSubject(t testing.TB) *subject {
	s := newSubject(t)
	p := netip.MustParsePrefix
	if err := s.Set(router.State{
		Self4: netip.MustParseAddr("10.1.0.1"), Self6: netip.MustParseAddr("fd00:1::1"),
		Ports: []router.Port{
			{Name: router.OutsideName, Role: router.Outside, Sources: []netip.Prefix{p("10.1.0.0/16"), p("fd00:1::/32")}},
			{Name: "far", Role: router.Inside, Link: s.far, Sources: []netip.Prefix{p("100.66.0.0/16"), p("fdaa:bbbb::/32")}, Maps: []router.Map{
				{Real: p("192.168.0.0/16"), Mapped: p("100.66.0.0/16")}, {Real: p("fd00:2::/32"), Mapped: p("fdaa:bbbb::/32")},
			}},
		},
		Routes: []router.Route{
			{Prefix: p("10.1.0.0/16"), Port: router.OutsideName}, {Prefix: p("fd00:1::/32"), Port: router.OutsideName},
			{Prefix: p("100.66.0.0/16"), Port: "far"}, {Prefix: p("fdaa:bbbb::/32"), Port: "far"},
		},
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func mappedGenerator(seed uint64) *overlaytest.Generator {
	return overlaytest.NewGenerator(seed, []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00:1::2")},
		[]netip.Addr{netip.MustParseAddr("100.66.3.4"), netip.MustParseAddr("fdaa:bbbb::9:1")})
}

// checkMappedSums sends a packet through the mapping and has gVisor look at it:
// sums that were right are right behind it, and those that were wrong are wrong.
func checkMappedSums(t *testing.T, s *subject, pkt []byte) (crossed bool) {
	t.Helper()
	_, far, _ := s.route(slices.Clone(pkt))
	for _, p := range far {
		if len(far) > 1 || len(p) != len(pkt) { // cut, or with something behind it
			return false
		}
		head := 20
		dst, proto := netip.AddrFrom4([4]byte(p[16:20])), p[9]
		if p[0]>>4 == 6 {
			head, dst, proto = 40, netip.AddrFrom16([16]byte(p[24:40])), p[6]
		}
		if !netip.MustParsePrefix("192.168.0.0/16").Contains(dst) && !netip.MustParsePrefix("fd00:2::/32").Contains(dst) {
			t.Fatalf("%x arrived for %v", pkt, dst)
		}
		before, after := netstack.CheckSums(pkt), netstack.CheckSums(p)
		if (before == nil) != (after == nil) {
			t.Fatalf("%x (%v) became %x (%v)", pkt[:min(len(pkt), 100)], before, p[:min(len(p), 100)], after)
		}
		crossed = before == nil && (proto == 1 || proto == 6 || proto == 17 || proto == 58) && len(p) > head
	}
	return crossed
}

func TestGVisorLikesChecksumsOfMappedPackets(t *testing.T) {
	const seed = 21
	s, g := newMappedSubject(t), mappedGenerator(seed)
	right := 0
	for i := range packetsToTry(t, 20_000) {
		p := g.Valid()
		if i%3 == 0 {
			p = g.Malformed()
		}
		if checkMappedSums(t, s, p) {
			right++
		}
	}
	if right < 5000 {
		t.Errorf("seed %d: only %d crossed", seed, right)
	}
}

func FuzzMappedSums(f *testing.F) {
	g := mappedGenerator(2)
	for range 20 {
		f.Add(g.Valid())
		f.Add(g.Malformed())
	}
	s := newMappedSubject(f)
	f.Fuzz(func(t *testing.T, pkt []byte) {
		if len(pkt) < 20 || len(pkt) > overlay.DefaultMTU {
			return
		}
		checkMappedSums(t, s, pkt)
	})
}
