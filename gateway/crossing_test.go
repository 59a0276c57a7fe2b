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
	greater, less := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:1")
	both := netip.MustParseAddrPort("192.0.2.3:1")
	own := [32]byte{5}
	peers := []Peer{
		{PublicKey: [32]byte{9}, Endpoints: []netip.AddrPort{greater, both}},
		{PublicKey: [32]byte{1}, Endpoints: []netip.AddrPort{less}},
		{PublicKey: [32]byte{8}, Endpoints: []netip.AddrPort{both}},
	}
	const at, in = time.Minute, crossingWindow / 2
	for _, tt := range []struct {
		name string
		do   func(c *crossing) bool
		want bool
	}{
		{"an initiation is answered when none was made", func(c *crossing) bool { return c.receive(greater, at) }, true},
		{"the lesser key's own counts", func(c *crossing) bool { return c.send(greater, at) && c.receive(greater, at+in) }, false},
		{"but only at the same time", func(c *crossing) bool { return c.send(greater, at) && c.receive(greater, at+crossingWindow) }, true},
		{"the greater key answers", func(c *crossing) bool { return c.send(less, at) && c.receive(less, at+in) }, true},
		{"who answers a greater key makes none", func(c *crossing) bool { return c.receive(greater, at) && c.send(greater, at+in) }, false},
		{"who answers a lesser key makes none", func(c *crossing) bool { return c.receive(less, at) && c.send(less, at+in) }, false},
		{"and does so later", func(c *crossing) bool { return c.receive(less, at) && c.send(less, at+crossingWindow) }, true},
		{"what is under way outlives another set of peers", func(c *crossing) bool {
			c.send(greater, at)
			c.setPeers(own, peers[:1])
			return c.receive(greater, at+in)
		}, false},
		{"one that was passed over holds nothing back", func(c *crossing) bool {
			return c.send(greater, at) && !c.receive(greater, at+in) && c.send(greater, at+in)
		}, true},
		{"forged ones cannot silence us", func(c *crossing) bool {
			for i := range 10 {
				c.receive(less, at+time.Duration(i)*in)
			}
			return c.send(less, at+10*in)
		}, true},
		{"an address of two peers is nobody's", func(c *crossing) bool { return c.send(both, at) && c.receive(both, at) && c.send(both, at) }, true},
		{"an unknown address is left alone", func(c *crossing) bool {
			a := netip.MustParseAddrPort("192.0.2.9:1")
			return c.receive(a, at) && c.send(a, at) && !c.answering([]netip.AddrPort{a}, at)
		}, true},
		{"answering is known at any of a peer's addresses", func(c *crossing) bool {
			return c.receive(less, at) && c.answering([]netip.AddrPort{greater, less}, at+in) && !c.answering([]netip.AddrPort{less}, at+crossingWindow)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var c crossing
			c.setPeers(own, peers)
			if tt.do(&c) != tt.want {
				t.Errorf("want %v", tt.want)
			}
		})
	}
}
