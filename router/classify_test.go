package router

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func block(prefix string, except ...string) overlay.Block {
	b := overlay.Block{Prefix: netip.MustParsePrefix(prefix)}
	for _, x := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(x))
	}
	return b
}

var classRules = []overlay.ClassRule{
	{Class: "voice", From: []overlay.Block{block("0.0.0.0/0"), block("::/0")}, To: []overlay.Block{block("10.1.2.9/32"), block("fd00:2::9/128")},
		Ports: []overlay.PortRange{{Proto: overlay.ProtoUDP, First: 5000, Last: 5003}}},
	{Class: "web", From: []overlay.Block{block("10.1.1.0/24", "10.1.1.7/32")}, To: []overlay.Block{block("10.1.2.0/24")},
		Ports: []overlay.PortRange{{Proto: overlay.ProtoTCP, First: 80, Last: 80}, {Proto: overlay.ProtoICMP}}},
	{Class: "bulk", From: []overlay.Block{block("10.1.0.0/16")}, To: []overlay.Block{block("10.1.3.0/24")}},
}

// segment is a packet of a transport protocol between two ends.
func segment(src, dst string, proto uint8, sport, dport uint16) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	switch proto {
	case protoTCP:
		return overlaytest.TCP(ap(s, sport), ap(d, dport), 0, 0, tcpACK, nil, nil)
	case protoUDP:
		return overlaytest.UDP(ap(s, sport), ap(d, dport), nil)
	case protoICMP:
		return overlaytest.Echo(s, d, false, 1, 1, nil)
	}
	return overlaytest.AppendIP(nil, s, d, proto, make([]byte, 40))
}

func TestPacketsAreOfTheFirstRuleThatFitsEitherWay(t *testing.T) {
	c, err := NewClassifier(classRules)
	if err != nil {
		t.Fatal(err)
	}
	later := edit(segment("10.1.1.1", "10.1.2.1", 47, 0, 0), func(p []byte) { p[7], p[9] = 5, protoTCP }) // at byte 40 of a datagram
	if in, _, ok := check(later); !ok || !in.later {
		t.Fatalf("no later fragment: %+v", in)
	}
	for _, tt := range []struct {
		name string
		pkt  []byte
		want int
	}{
		{"a call", segment("10.1.1.1", "10.1.2.9", protoUDP, 9, 5003), 0},
		{"its answer", segment("10.1.2.9", "10.1.1.1", protoUDP, 5003, 9), 0},
		{"by IPv6", segment("fd00:1::1", "fd00:2::9", protoUDP, 9, 5000), 0},
		{"its answer by IPv6", segment("fd00:2::9", "fd00:1::1", protoUDP, 5000, 9), 0},
		{"another port", segment("10.1.1.1", "10.1.2.9", protoUDP, 9, 5004), -1},
		{"the port at the wrong end", segment("10.1.1.1", "10.1.2.9", protoUDP, 5003, 9), -1},
		{"a page", segment("10.1.1.1", "10.1.2.1", protoTCP, 9, 80), 1},
		{"its answer", segment("10.1.2.1", "10.1.1.1", protoTCP, 80, 9), 1},
		{"an echo", segment("10.1.1.1", "10.1.2.1", protoICMP, 0, 0), 1},
		{"from who is excepted", segment("10.1.1.7", "10.1.2.1", protoTCP, 9, 80), -1},
		{"by UDP", segment("10.1.1.1", "10.1.2.1", protoUDP, 9, 80), -1},
		{"a later fragment", later, -1},
		{"any protocol", segment("10.1.2.1", "10.1.3.1", 47, 0, 0), 2},
		{"nobody's", segment("10.2.2.1", "10.2.3.1", protoTCP, 9, 80), -1},
		{"no packet", []byte{0x45, 0}, -1},
		{"nothing", nil, -1},
	} {
		if got := c.Rule(tt.pkt); got != tt.want {
			t.Errorf("%s is of rule %d, want %d", tt.name, got, tt.want)
		}
	}
	if (*Classifier)(nil).Rule(later) != -1 {
		t.Error("no classifier knows a rule")
	}
	pkt := segment("10.1.1.1", "10.1.2.1", protoTCP, 9, 80)
	if n := testing.AllocsPerRun(100, func() { c.Rule(pkt) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The tables say what looking at each rule would.
func TestAClassifierAgainstItsRules(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 3))
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 1, byte(rng.IntN(3)), byte(rng.IntN(8))}) }
	blocks := func() (out []overlay.Block) {
		for range 1 + rng.IntN(2) {
			p, _ := addr().Prefix(24 + rng.IntN(9))
			b := overlay.Block{Prefix: p}
			if rng.IntN(3) == 0 {
				x, _ := addr().Prefix(28 + rng.IntN(5))
				b.Except = append(b.Except, x)
			}
			out = append(out, b)
		}
		return out
	}
	holds := func(list []overlay.Block, a netip.Addr) bool {
		for _, b := range list {
			if b.Contains(a) {
				return true
			}
		}
		return false
	}
	hits := 0
	for range 100 {
		rules := make([]overlay.ClassRule, 1+rng.IntN(80))
		for i := range rules {
			rules[i] = overlay.ClassRule{Class: "x", From: blocks(), To: blocks()}
			if rng.IntN(2) == 0 {
				first := uint16(1 + rng.IntN(8))
				rules[i].Ports = []overlay.PortRange{{Proto: []uint8{overlay.ProtoTCP, overlay.ProtoUDP}[rng.IntN(2)], First: first, Last: first + uint16(rng.IntN(4))}}
			}
		}
		c, err := NewClassifier(rules)
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			src, dst := addr(), addr()
			proto, sport, dport := []uint8{protoTCP, protoUDP}[rng.IntN(2)], uint16(1+rng.IntN(12)), uint16(1+rng.IntN(12))
			pkt := segment(src.String(), dst.String(), proto, sport, dport)
			if _, ok := new(info).check(pkt); !ok {
				continue // the same address twice
			}
			want := -1
			for i, r := range rules {
				if holds(r.From, src) && holds(r.To, dst) && matchPorts(r.Ports, proto, dport) || holds(r.From, dst) && holds(r.To, src) && matchPorts(r.Ports, proto, sport) {
					want = i
					hits++
					break
				}
			}
			if got := c.Rule(pkt); got != want {
				t.Fatalf("seed %d: %v:%d to %v:%d by %d is of rule %d, want %d of %+v", seed, src, sport, dst, dport, proto, got, want, rules)
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d packets were of a rule", hits)
	}
}

func BenchmarkClassify(b *testing.B) {
	c, err := NewClassifier(classRules)
	if err != nil {
		b.Fatal(err)
	}
	for name, pkt := range map[string][]byte{
		"IPv4": segment("10.1.2.1", "10.1.1.1", protoTCP, 80, 9), "IPv6": segment("fd00:2::9", "fd00:1::1", protoUDP, 5000, 9),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c.Rule(pkt)
			}
		})
	}
}
