package router

import (
	"fmt"
	"net/netip"
	"testing"

	"slicewire/overlay"
)

// manyRules are n rules of which all select everything and only the last one
// allows what newLoad sends.
func manyRules(t testing.TB, n int) *Policy {
	every := []overlay.Block{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}
	var rules []overlay.Rule
	for i := range n {
		r := overlay.Rule{
			Name: fmt.Sprint("rule ", i), Tier: overlay.TierPolicy, Ingress: i%2 == 0, Subject: every, Peer: every,
			Ports: []overlay.PortRange{{Proto: overlay.ProtoTCP}, {Proto: overlay.ProtoUDP, First: 1000, Last: 2000 + uint16(i)}},
		}
		if i%4 < 2 {
			r.Peer = []overlay.Block{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(16 + i), byte(i), 0, 0}), 12+i%12).Masked()}}
		}
		if i >= n-2 {
			r.Ports = nil
		}
		rules = append(rules, r)
	}
	p, err := NewPolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func BenchmarkPolice(b *testing.B) {
	for _, c := range []struct {
		name  string
		v6    bool
		flows int
	}{{"one flow", false, 1}, {"100 flows", false, 100}, {"100 flows of IPv6", true, 100}, {"10000 flows", false, 10_000}, {"all different", false, 0}} {
		for _, rules := range []int{0, 100} {
			b.Run(fmt.Sprintf("%s/rules=%d", c.name, rules), func(b *testing.B) {
				l := newLoad(b, Inside, c.v6, 10_000, c.flows)
				if rules > 0 {
					l.state.Policy = manyRules(b, rules)
					if err := l.r.Set(l.state); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					l.cross()
					n += overlay.BatchSize
				}
				if l.packets() != n {
					b.Fatalf("%d of %d came out: %v", l.packets(), n, l.r.drops.Snapshot())
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
			})
		}
	}
}
