package router

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func everyone() []overlay.Block {
	return []overlay.Block{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}
}

func just(s ...string) (out []overlay.Block) {
	for _, p := range prefixes(s...) {
		out = append(out, overlay.Block{Prefix: p})
	}
	return out
}

func policyOf(t testing.TB, rules ...overlay.Rule) *Policy {
	t.Helper()
	p, err := NewPolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// police gives the rig a policy.
func (g *rig) police(t testing.TB, rules ...overlay.Rule) {
	t.Helper()
	g.state.Policy = policyOf(t, rules...)
	if err := g.Set(g.state); err != nil {
		t.Fatal(err)
	}
}

func udpOf(src, dst string, sp, dp uint16) []byte {
	return overlaytest.UDP(ap(netip.MustParseAddr(src), sp), ap(netip.MustParseAddr(dst), dp), []byte("x"))
}

func (g *rig) passes(from string, pkt []byte) bool {
	g.put(from, slices.Clone(pkt))
	return len(g.got()) == 1
}

// NewPolicy agrees with reading its rules one by one.
func TestPolicyAgreesWithItsRules(t *testing.T) {
	const seed = 3
	rng := rand.New(rand.NewPCG(seed, 1))
	var addrs [2][]netip.Addr
	for range 20 {
		addrs[0] = append(addrs[0], netip.AddrFrom4([4]byte{10, byte(rng.IntN(2)), byte(rng.IntN(2)), byte(rng.IntN(4))}))
		addrs[1] = append(addrs[1], netip.AddrFrom16([16]byte{0xfd, 0, 0, byte(rng.IntN(2)), 15: byte(rng.IntN(4))}))
	}
	allowed := 0
	for i := range 10_000 {
		m := &modelPolice{rules: randomRules(rng, addrs)}
		p := policyOf(t, m.rules...)
		for range 10 {
			f := rng.IntN(2)
			k := modelFlow{addrs[f][rng.IntN(20)], addrs[f][rng.IntN(20)], []int{1, 6, 17, 47, 58}[rng.IntN(5)], 0, uint16(rng.IntN(600))}
			ends := rng.IntN(4)
			v := p.decide(k.src, k.dst, uint8(k.proto), k.dp, ends&1 != 0, ends&2 != 0)
			if v.allowed != m.allows(k, ends) {
				t.Fatalf("seed %d case %d: %+v ends %d: %+v, the rules say %v: %+v", seed, i, k, ends, v, !v.allowed, m.rules)
			}
			if v.allowed {
				allowed++
			}
		}
	}
	if allowed < 10_000 || allowed > 90_000 {
		t.Errorf("%d of 100000 allowed: the test tests nothing", allowed)
	}
}

func TestNewPolicyRefuses(t *testing.T) {
	for name, rules := range map[string][]overlay.Rule{
		"a rule without a name":   {{}},
		"two rules with one name": {{Name: "a"}, {Name: "a"}},
		"an unknown tier":         {{Name: "a", Tier: 7}},
		"a prefix that is none":   {{Name: "a", Subject: make([]overlay.Block, 1)}},
		"an IPv4-mapped prefix":   {{Name: "a", Peer: just("::ffff:10.0.0.0/104")}},
		"too many rules":          make([]overlay.Rule, MaxRules+1),
	} {
		if _, err := NewPolicy(rules); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestSpoofedSources(t *testing.T) {
	const seed, each = 8, 10_000
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newRig(t)
	g.police(t, overlay.Rule{Name: "out", Subject: everyone(), Peer: everyone()}, overlay.Rule{Name: "in", Ingress: true, Subject: everyone(), Peer: everyone()})
	within := func(s string) netip.Addr { return random(rng, netip.MustParsePrefix(s)) }
	sent := uint64(0)
	for _, c := range []struct {
		what, from string
		src, dst   func() netip.Addr
	}{
		{"another workload", "a", func() netip.Addr { return netip.MustParseAddr("10.1.0.3") }, func() netip.Addr { return within("10.1.16.0/20") }},
		{"another node of the site", "a", func() netip.Addr { return within("10.1.8.0/22") }, func() netip.Addr { return within("10.1.16.0/20") }},
		{"another site", "a", func() netip.Addr { return within("10.1.16.0/20") }, func() netip.Addr { return netip.MustParseAddr("10.1.0.3") }},
		{"the node itself", "a", func() netip.Addr { return netip.MustParseAddr("10.1.0.1") }, func() netip.Addr { return within("10.1.16.0/20") }},
		{"a service of the node", "b", func() netip.Addr { return netip.MustParseAddr("10.1.0.200") }, func() netip.Addr { return netip.MustParseAddr("10.1.0.2") }},
		{"a workload here, from outside", OutsideName, func() netip.Addr { return netip.MustParseAddr("10.1.0.3") }, func() netip.Addr { return netip.MustParseAddr("10.1.0.2") }},
		{"another workload, IPv6", "a", func() netip.Addr { return netip.MustParseAddr("fd00:1::3") }, func() netip.Addr { return within("fd00:1:0:100::/56") }},
		{"another site, IPv6", "a", func() netip.Addr { return within("fd00:1:0:100::/56") }, func() netip.Addr { return netip.MustParseAddr("fd00:1::3") }},
		{"its own address, IPv4-mapped", "a", func() netip.Addr { return netip.AddrFrom16(netip.MustParseAddr("10.1.0.2").As16()) }, func() netip.Addr { return within("fd00:1:0:100::/56") }},
		{"its own address, 6to4", "a", func() netip.Addr { return netip.MustParseAddr("2002:a01:2::1") }, func() netip.Addr { return within("fd00:1:0:100::/56") }},
		{"a peer's address, IPv4-mapped, from outside", OutsideName, func() netip.Addr { return netip.AddrFrom16(netip.MustParseAddr("10.1.16.9").As16()) }, func() netip.Addr { return netip.MustParseAddr("fd00:1::2") }},
		{"a peer's address, NAT64, from outside", OutsideName, func() netip.Addr { return netip.MustParseAddr("64:ff9b::10.1.16.9") }, func() netip.Addr { return netip.MustParseAddr("fd00:1::2") }},
		{"a peer's address, 6to4, from outside", OutsideName, func() netip.Addr { return netip.MustParseAddr("2002:a01:1009::1") }, func() netip.Addr { return netip.MustParseAddr("fd00:1::2") }},
		{"its own address, NAT64", "a", func() netip.Addr { return netip.MustParseAddr("64:ff9b::10.1.0.2") }, func() netip.Addr { return within("fd00:1:0:100::/56") }},
	} {
		for range each {
			g.put(c.from, overlaytest.UDP(ap(c.src(), uint16(rng.Uint32())), ap(c.dst(), uint16(rng.Uint32())), nil))
		}
		sent += each
		if got := g.got(); len(got) != 0 || g.drops.Get(overlay.DropSource) != sent {
			t.Errorf("%s: %d ports got some, %v of %d", c.what, len(got), g.drops.Snapshot(), sent)
		}
	}
}

// Trace says what happens, of any packet, and changes nothing.
func TestTraceAgreesWithTheFateOfPackets(t *testing.T) {
	const seed = 13
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newRig(t)
	traffic := newPoliceTraffic(rng)
	names := []string{"a", "b", "node", OutsideName}
	var now time.Duration
	g.clock = func() time.Duration { return now }
	reasons := make(map[string]int)
	for i := range 10_000 {
		if i%500 == 0 {
			g.police(t, append(randomRules(rng, traffic.addrs), overlay.Rule{Name: "none"})...)
		}
		now += time.Duration(rng.Int64N(int64(time.Second)))
		p := traffic.packet()
		if rng.IntN(20) == 0 {
			p[rng.IntN(len(p))] ^= 1 << rng.IntN(8)
		}
		from := g.comesFrom(p, rng, names)
		books := func() string { return fmt.Sprint(g.Rules(), g.Counters(), g.Flows()) }
		shown := books()
		tr, ok := g.Trace(from, p)
		if !ok || shown != books() {
			t.Fatalf("seed %d packet %d: %v, it changed %s\nto %s", seed, i, ok, shown, books())
		}
		before := g.Counters().Drops
		g.put(from, p)
		fate, reason := "", ""
		for name := range g.got() {
			fate = name
		}
		for name, n := range g.Counters().Drops {
			if n != before[name] {
				reason = name
			}
		}
		if tr.Out != fate || tr.Reason != reason || (reason == "policy") != (tr.Policy.Denied != "") {
			t.Fatalf("seed %d packet %d from %s: traced %+v, went to %q, dropped for %q: %x", seed, i, from, tr, fate, reason, p)
		}
		reasons[fate+reason]++
	}
	for _, x := range append(names, "policy", "fragment", "source", "no-route") {
		if reasons[x] < 50 {
			t.Errorf("only %v: the test tests nothing", reasons)
		}
	}
}

// Every packet is counted by the rule that allowed its flow, or denied it.
func TestRulesCount(t *testing.T) {
	g := newRig(t)
	g.police(t, overlay.Rule{Name: "dns", Subject: just("10.1.0.2/32"), Peer: everyone(), Ports: []overlay.PortRange{{Proto: overlay.ProtoUDP, First: 53, Last: 53}}})
	for range 3 {
		g.passes("a", udpOf("10.1.0.2", "10.1.16.9", 5, 53))
		g.passes(OutsideName, udpOf("10.1.16.9", "10.1.0.2", 53, 5))
		g.passes("a", udpOf("10.1.0.2", "10.1.16.9", 5, 54))
	}
	want := RuleCount{"dns", 1, 6, 6 * 29, 3}
	if got := g.Rules(); len(got) != 1 || got[0] != want {
		t.Errorf("%+v", got)
	}
	flows := g.Flows()
	if len(flows) != 1 || flows[0].Egress != "dns" || flows[0].Forth.Packets != 3 || flows[0].Back.Packets != 3 || !flows[0].SrcHere || flows[0].DstHere {
		t.Errorf("%+v", flows)
	}
	// A flow whose permission ends is dropped at its next packet; the rule keeps its counts.
	g.police(t, overlay.Rule{Name: "dns", Subject: just("10.1.0.2/32")})
	if g.passes("a", udpOf("10.1.0.2", "10.1.16.9", 5, 53)) || g.drops.Get(overlay.DropPolicy) != 4 {
		t.Errorf("passed after its permission ended: %v", g.drops.Snapshot())
	}
	if want.Denied++; g.Rules()[0] != want {
		t.Errorf("%+v", g.Rules())
	}
}

// Many batches at once, flows that come and go, policies that change.
func TestPoliceConcurrently(t *testing.T) {
	g := newRig(t)
	r := g.Router
	r.maxFlows = 64
	allow := []overlay.Rule{{Name: "all", Subject: everyone(), Peer: everyone()}}
	g.police(t, allow...)
	for _, p := range []string{"a", "b"} {
		g.port(p).link = discard{}
	}
	var wg sync.WaitGroup
	var sent [4]uint64
	for w, from := range []string{"a", "b", "a", "b"} {
		in := r.ports[from]
		wg.Go(func() {
			rng, b := rand.New(rand.NewPCG(9, uint64(w))), new(batch)
			for range 5000 {
				src, dst := "10.1.0.2", "10.1.0.3"
				if from == "b" {
					src, dst = dst, src
				}
				g.forward(in, withHeadroom(udpOf(src, dst, uint16(rng.IntN(20)), uint16(rng.IntN(20)))), b)
				sent[w]++
			}
		})
	}
	wg.Go(func() {
		for i := range 200 {
			s := g.state
			s.Policy = policyOf(t, append(allow, overlay.Rule{Name: fmt.Sprint(i), Ingress: true, Subject: just("10.1.0.3/32")})...)
			if i%2 == 0 {
				s.Policy = policyOf(t, allow...)
			}
			if err := r.Set(s); err != nil {
				t.Error(err)
			}
			r.Flows()
			r.Rules()
		}
	})
	wg.Wait()
	total := uint64(0)
	for _, p := range r.Counters().Ports {
		total += p.OutPackets
	}
	for _, n := range r.Counters().Drops {
		total += n
	}
	if want := sent[0] + sent[1] + sent[2] + sent[3]; total != want {
		t.Errorf("%d sent, %d accounted for", want, total)
	}
}

func TestPoliceAllocatesNothing(t *testing.T) {
	g := newRig(t)
	g.maxFlows = 64
	g.police(t, append(manyRules(t, 100).rules, overlay.Rule{Name: "not b", Subject: just("10.1.0.200/32"), Tier: overlay.TierIsolation})...)
	g.port("b").link = discard{}
	in, b := g.port("a"), new(batch)
	bufs := withHeadroom(udpOf("10.1.0.2", "10.1.0.3", 1, 2), udpOf("10.1.0.200", "10.1.0.3", 1, 2), udpOf("fd00:1::2", "fd00:1::3", 1, 2), udpOf("10.1.0.2", "10.1.0.3", 1, 2))
	work := make([][]byte, len(bufs))
	port := uint16(0)
	if n := testing.AllocsPerRun(2000, func() {
		copy(work, bufs)
		port++ // a new flow every time, which replaces an old one
		work[3][overlay.Headroom+20], work[3][overlay.Headroom+21] = byte(port>>8), byte(port)
		for _, p := range work {
			at := 8
			if p[overlay.Headroom]>>4 == 6 {
				at = 7
			}
			p[overlay.Headroom+at] = 64
			overlaytest.Fix(p[overlay.Headroom:])
		}
		g.forward(in, work, b)
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations a batch", n)
	}
	if d := g.drops.Snapshot(); len(d) != 1 || d["policy"] != 2001 {
		t.Errorf("%v", d)
	}
}
