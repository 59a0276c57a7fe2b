package gateway

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestInitiationLimit(t *testing.T) {
	var l initiationLimit
	one, known := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	count := func(n int, allow func(i int) bool) (ok int) {
		for i := range n {
			if allow(i) {
				ok++
			}
		}
		return ok
	}
	if n := count(1000, func(int) bool { return l.allow(one, false, 0) }); n != strangerBurst {
		t.Errorf("a stranger gets %d at once", n)
	}
	if n := count(1000, func(i int) bool { return l.allow(one, false, time.Duration(i)*10*time.Millisecond) }); n < 95 || n > 105 {
		t.Errorf("a stranger gets %d in 10 s", n)
	}
	if n := count(1000, func(int) bool { return l.allow(known, true, 0) }); n != knownBurst {
		t.Errorf("a configured endpoint gets %d at once", n)
	}
	spoofed := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	if n := count(100000, func(i int) bool { return l.allow(spoofed(i), false, 20*time.Second) }); n > strangersBurst {
		t.Errorf("%d spoofed sources get through at once", n)
	}
	if len(l.sources) > sourcesMax {
		t.Errorf("%d sources are remembered", len(l.sources))
	}
	if !l.allow(netip.MustParseAddr("192.0.2.3"), true, 20*time.Second) {
		t.Error("strangers keep a configured endpoint out")
	}
	six := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)) }
	var l6 initiationLimit
	if n := count(1000, func(i int) bool { return l6.allow(six(i), false, 0) }); n != strangerBurst {
		t.Errorf("one /64 gets %d at once", n)
	}
}

func TestCrossing(t *testing.T) {
	near, far := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	both := netip.MustParseAddrPort("192.0.2.3:1")
	own := [32]byte{5}
	var c crossing
	c.setPeers(own, []Peer{
		{PublicKey: [32]byte{9}, Endpoints: []netip.AddrPort{near, both}},
		{PublicKey: [32]byte{1}, Endpoints: []netip.AddrPort{far}},
		{PublicKey: [32]byte{8}, Endpoints: []netip.AddrPort{both}},
	})
	if c.ours(near, 0) {
		t.Error("passed over without having sent")
	}
	for _, a := range []netip.AddrPort{near, far, both} {
		c.note(a, time.Second)
	}
	for _, tt := range []struct {
		name string
		from netip.AddrPort
		at   time.Duration
		want bool
	}{
		{"the lesser key goes first", near, time.Second + crossingWindow/2, true},
		{"only at the same time", near, time.Second + crossingWindow, false},
		{"the greater key does not", far, time.Second, false},
		{"an address of two peers is nobody's", both, time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if c.ours(tt.from, tt.at) != tt.want {
				t.Errorf("want %v", tt.want)
			}
		})
	}
}
