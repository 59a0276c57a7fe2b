package main

import (
	"maps"
	"net/netip"
	"testing"

	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
)

// spoofedPackets is how many a peer sends, over all cases.
const spoofedPackets = 100_000

// A peer whose tunnel is valid sends what looks like packets of another peer's live
// flow: none is delivered, none is taken for that flow's, each is counted.
func TestAPeerCannotSpeakInAnothersFlow(t *testing.T) {
	m := newMatrix(t, "red")
	victim, owner := m.work["red"][0][0], m.work["red"][1][0]
	every := []overlay.Block{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}
	policy, err := router.NewPolicy([]overlay.Rule{
		{Name: "in", Ingress: true, Tier: overlay.TierPolicy, Subject: every, Peer: every},
	})
	if err != nil {
		t.Fatal(err)
	}
	state := m.state["red"][0]
	state.Policy = policy
	if err := m.router["red"][0].Set(state); err != nil {
		t.Fatal(err)
	}
	port := func(a netip.Addr, p uint16) netip.AddrPort { return netip.AddrPortFrom(a, p) }
	udp := func(s, d netip.Addr, data string) []byte {
		return overlaytest.UDP(port(s, 1), port(d, 2), labelled("red", data))
	}
	tcp := func(s, d netip.Addr, data string) []byte {
		return overlaytest.TCP(port(s, 3), port(d, 4), 1, 1, overlaytest.ACK, nil, labelled("red", data))
	}
	syn := func(s, d netip.Addr, data string) []byte {
		return overlaytest.TCP(port(s, 3), port(d, 4), 1, 0, overlaytest.SYN, nil, labelled("red", data))
	}
	live := [][]byte{
		udp(owner.own, victim.own, "live"), udp(owner.own6, victim.own6, "live"),
		syn(owner.own, victim.own, "live"), syn(owner.own6, victim.own6, "live"),
	}
	eventually(t, "a session", func() bool {
		owner.in <- [][]byte{overlaytest.Echo(owner.own, victim.own, false, 1, 1, labelled("red", "hello"))}
		return victim.count("hello") > 0
	})
	owner.in <- live
	eventually(t, "the flows live", func() bool { return victim.count("live") == len(live) })
	// The intruder has no router that would refuse it, and has its tunnel send
	// everything to the victim's node.
	own := m.tunnels[2][0]
	node := own.Peers[0]
	node.Prefixes = []netip.Prefix{every[0].Prefix, every[1].Prefix}
	own.Peers = []gateway.Peer{node}
	if err := m.gates[2].Set([]gateway.Tunnel{own}); err != nil {
		t.Fatal(err)
	}
	outlet := m.queue["red"][2]
	intrude := func(pkts ...[]byte) {
		bufs := make([][]byte, len(pkts))
		for i, p := range pkts {
			bufs[i] = append(make([]byte, overlay.Headroom), p...)
		}
		if err := outlet.Write(bufs); err != nil {
			t.Fatal(err)
		}
	}
	self := m.work["red"][2][0]
	eventually(t, "the intruder's tunnel is valid", func() bool {
		intrude(udp(self.own, victim.own, "own"))
		return victim.count("own") > 0
	})
	flows := func() map[router.Flow][2]uint64 {
		all := make(map[router.Flow][2]uint64)
		for _, f := range m.router["red"][0].Flows() {
			if f.Proto != overlay.ProtoICMP && (f.Src == owner.own || f.Src == owner.own6) {
				all[f.Flow] = [2]uint64{f.Forth.Packets, f.Back.Packets}
			}
		}
		return all
	}
	form := func(prefix string, at int, a netip.Addr) netip.Addr { // of an IPv4 address within an IPv6 one
		b, v4 := netip.MustParseAddr(prefix).As16(), a.As4()
		copy(b[at:], v4[:])
		return netip.AddrFrom16(b)
	}
	cases := []struct {
		name     string
		src, dst netip.Addr
	}{
		{"the other peer's own", owner.own, victim.own},
		{"the other peer's own, IPv6", owner.own6, victim.own6},
		{"the victim's node's own, as in an answer", victim.own, owner.own},
		{"mapped", form("::ffff:0:0", 12, owner.own), form("::ffff:0:0", 12, victim.own)},
		{"mapped, to the IPv6 address", form("::ffff:0:0", 12, owner.own), victim.own6},
		{"NAT64", form("64:ff9b::", 12, owner.own), form("64:ff9b::", 12, victim.own)},
		{"NAT64, to the IPv6 address", form("64:ff9b::", 12, owner.own), victim.own6},
		{"6to4", form("2002::", 2, owner.own), form("2002::", 2, victim.own)},
		{"6to4, to the IPv6 address", form("2002::", 2, owner.own), victim.own6},
	}
	before, dropped := flows(), m.drops("red")
	if len(before) != len(live) {
		t.Fatalf("%d flows live, not %d", len(before), len(live))
	}
	sent, each := uint64(0), spoofedPackets/len(cases)+1
	for _, c := range cases {
		batch := [][]byte{udp(c.src, c.dst, "spoof"), tcp(c.src, c.dst, "spoof"), syn(c.src, c.dst, "spoof")}
		for n := 0; n < each; {
			var pkts [][]byte
			for ; n < each && len(pkts) < 96; n++ { // that no socket loses any
				pkts = append(pkts, batch[n%len(batch)])
			}
			intrude(pkts...)
			sent += uint64(len(pkts))
			eventually(t, c.name+" is counted", func() bool { return m.drops("red")["source"] == dropped["source"]+sent })
		}
	}
	lost := m.drops("red")
	if lost["source"] -= dropped["source"]; lost["source"] != sent || sent < spoofedPackets {
		t.Errorf("%d of %d are counted", lost["source"], sent)
	}
	lost["source"] = dropped["source"]
	if dropped["source"] == 0 {
		delete(lost, "source")
	}
	if !maps.Equal(lost, dropped) {
		t.Errorf("other drops: %v, before %v", lost, dropped)
	}
	if after := flows(); !maps.Equal(after, before) {
		t.Errorf("the live flows are %v, were %v", after, before)
	}
	for i := range m.work["red"] {
		for _, w := range m.work["red"][i] {
			if n := w.count("spoof"); n != 0 || w.alien != 0 {
				t.Errorf("node %d got %d spoofed packets, %d foreign ones", i, n, w.alien)
			}
		}
	}
	owner.in <- live[:1]
	eventually(t, "the flow goes on", func() bool { return victim.count("live") == len(live)+1 })
}
