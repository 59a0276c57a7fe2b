package router

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// modelPolice is the naive model of the flow and policy stages: rules are read
// one after another, flows are a map that forgets nothing but what is too old.
type modelPolice struct {
	rules   []overlay.Rule
	version int
	now     time.Duration
	flows   map[modelFlow]*modelState
	firsts  map[modelFragment]modelFirst
}

type modelFlow struct {
	src, dst netip.Addr
	proto    int
	sp, dp   uint16
}

type modelState struct {
	version, ends   int
	seen            time.Duration
	replied, closed bool
}

type modelFragment struct {
	src, dst netip.Addr
	proto    int // of IPv4
	id       uint32
}

type modelFirst struct {
	version, ends int
	at            time.Duration
}

func (f modelFlow) reverse() modelFlow { return modelFlow{f.dst, f.src, f.proto, f.dp, f.sp} }

func (m *modelPolice) allows(f modelFlow, ends int) bool {
	for tier := range overlay.NumTiers {
		for dir, here := range []bool{ends&1 != 0, ends&2 != 0} {
			if !here {
				continue
			}
			subject, peer := f.src, f.dst
			if dir == 1 {
				subject, peer = f.dst, f.src
			}
			selected, allowed := false, false
			for _, r := range m.rules {
				if r.Tier != tier || r.Ingress != (dir == 1) || !inAny(r.Subject, subject) {
					continue
				}
				selected = true
				if inAny(r.Peer, peer) && (len(r.Ports) == 0 || slices.ContainsFunc(r.Ports, func(x overlay.PortRange) bool {
					same := x.Proto == 0 || int(x.Proto) == f.proto || x.Proto == 1 && f.proto == 58
					return same && (x.First == 0 && x.Last == 0 || (f.proto == 6 || f.proto == 17) && x.First <= f.dp && f.dp <= x.Last)
				})) {
					allowed = true
				}
			}
			if selected && !allowed {
				return false
			}
		}
	}
	return true
}

func inAny(blocks []overlay.Block, a netip.Addr) bool {
	return slices.ContainsFunc(blocks, func(b overlay.Block) bool {
		return b.Prefix.Contains(a) && !slices.ContainsFunc(b.Except, func(x netip.Prefix) bool { return x.Contains(a) })
	})
}

func (m *modelPolice) over(f modelFlow, s *modelState) bool {
	idle := idleOther
	switch f.proto {
	case 1, 58:
		idle = idleICMP
	case 6:
		idle = idleTCPOther
		if s.replied && !s.closed {
			idle = idleTCP
		}
	case 17:
		idle = idleUDPOne
		if s.replied {
			idle = idleUDP
		}
	}
	return ticks(m.now)-ticks(s.seen) > ticks(idle)
}

// fragment reads what the packet is a fragment of.
func (p *modelPacket) fragmentOf() (key modelFragment, is bool) {
	key = modelFragment{src: p.src, dst: p.dst}
	if p.src.Is4() {
		key.id, key.proto = uint32(binary.BigEndian.Uint16(p.data[4:])), p.proto
		return key, binary.BigEndian.Uint16(p.data[6:])&0x3fff != 0
	}
	for next, at := int(p.data[6]), 40; ; {
		switch next {
		case 44:
			key.id = binary.BigEndian.Uint32(p.data[at+4:])
			return key, binary.BigEndian.Uint16(p.data[at+2:])&0xfff9 != 0
		case 0, 60:
			next, at = int(p.data[at]), at+8+8*int(p.data[at+1])
		default:
			return key, false
		}
	}
}

func (m *modelPolice) police(p *modelPacket, in, out Role, routed bool) (overlay.Drop, bool) {
	if m.rules == nil || in == Outside && out == Outside {
		return 0, true
	}
	ends := 0
	if in != Outside {
		ends = 1
	}
	if out != Outside {
		ends |= 2
	}
	key, fragment := p.fragmentOf()
	if p.l4 < 0 {
		first, known := m.firsts[key]
		if routed && (!known || first.version != m.version || first.ends != ends || ticks(m.now)-ticks(first.at) > ticks(idleFragment)) {
			return overlay.DropFragment, false
		}
		return 0, true
	}
	s := p.data[p.l4:]
	f := modelFlow{src: p.src, dst: p.dst, proto: p.proto}
	asks, quotes := false, false
	switch {
	case p.proto == 6 || p.proto == 17:
		f.sp, f.dp = binary.BigEndian.Uint16(s), binary.BigEndian.Uint16(s[2:])
		asks = p.proto == 6 && s[13]&(2|16|4) == 2
	case p.proto == 1 && (s[0] == 8 || s[0] == 0) || p.proto == 58 && (s[0] == 128 || s[0] == 129):
		f.sp = binary.BigEndian.Uint16(s[4:])
		f.dp = f.sp
		asks = s[0] == 8 || s[0] == 128
	case p.proto == 1:
		quotes = s[0] == 3 || s[0] == 11 || s[0] == 12
	case p.proto == 58:
		quotes = s[0] >= 1 && s[0] <= 4
	}
	if !routed {
		if !m.allows(f, 1) {
			return overlay.DropPolicy, false
		}
		return 0, true
	}
	ok := false
	if quotes {
		ok = m.related(p.dst, s[8:]) || m.allows(f, ends)
	} else {
		ok = m.flow(f, ends, asks, p.proto == 6 && s[13]&5 != 0)
	}
	if !ok {
		return overlay.DropPolicy, false
	}
	if fragment {
		m.firsts[key] = modelFirst{m.version, ends, m.now}
	}
	return 0, true
}

func (m *modelPolice) related(to netip.Addr, q []byte) bool {
	var f modelFlow
	var s []byte
	switch {
	case to.Is4() && len(q) >= 28 && q[0] == 0x45 && binary.BigEndian.Uint16(q[6:])&0x1fff == 0:
		f.src, f.dst = netip.AddrFrom4([4]byte(q[12:16])), netip.AddrFrom4([4]byte(q[16:20]))
		f.proto, s = int(q[9]), q[20:]
	case to.Is6() && len(q) >= 48 && q[0]>>4 == 6:
		f.src, f.dst = netip.AddrFrom16([16]byte(q[8:24])), netip.AddrFrom16([16]byte(q[24:40]))
		f.proto, s = int(q[6]), q[40:]
	default:
		return false
	}
	switch f.proto {
	case 6, 17:
		f.sp, f.dp = binary.BigEndian.Uint16(s), binary.BigEndian.Uint16(s[2:])
	case 1, 58:
		if f.proto == 1 && s[0] != 8 && s[0] != 0 || f.proto == 58 && s[0] != 128 && s[0] != 129 {
			break
		}
		f.sp = binary.BigEndian.Uint16(s[4:])
		f.dp = f.sp
	}
	if f.src != to {
		return false
	}
	for _, k := range []modelFlow{f, f.reverse()} {
		if x := m.flows[k]; x != nil && x.version == m.version && !m.over(k, x) {
			return true
		}
	}
	return false
}

// flow says whether a packet passes, and remembers it as one of its flow.
func (m *modelPolice) flow(f modelFlow, ends int, asks, closes bool) bool {
	k, back, e := f, false, ends
	x := m.flows[f]
	if x == nil {
		k, back, e = f.reverse(), true, ends>>1&1|ends&1<<1
		x = m.flows[k]
	}
	if x != nil && !m.over(k, x) && !(back && asks) {
		if x.version == m.version && x.ends == e || m.allows(k, e) {
			x.version, x.ends, x.seen = m.version, e, m.now
			x.replied = x.replied || back
			if !closes && !back && asks && x.closed {
				x.closed, x.replied = false, false
			}
			x.closed = x.closed || closes
			return true
		}
		delete(m.flows, k)
	}
	if !m.allows(f, ends) {
		return false
	}
	delete(m.flows, k)
	m.flows[f] = &modelState{version: m.version, ends: ends, seen: m.now, closed: closes}
	return true
}

// policeTraffic makes packets that meet each other: few addresses, few ports.
type policeTraffic struct {
	rng   *rand.Rand
	addrs [2][]netip.Addr
}

func newPoliceTraffic(rng *rand.Rand) *policeTraffic {
	g := &policeTraffic{rng: rng}
	for _, s := range []string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.16.3", "10.1.17.4", "10.7.0.1"} {
		g.addrs[0] = append(g.addrs[0], netip.MustParseAddr(s))
	}
	for _, s := range []string{"fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1:0:100::3", "fd00:7::1"} {
		g.addrs[1] = append(g.addrs[1], netip.MustParseAddr(s))
	}
	return g
}

func (g *policeTraffic) packet() []byte {
	r := g.rng
	f := r.IntN(2)
	src, dst := g.addrs[f][r.IntN(len(g.addrs[f]))], g.addrs[f][r.IntN(len(g.addrs[f]))]
	port := func() uint16 { return []uint16{53, 80, 443}[r.IntN(3)] }
	a, b := netip.AddrPortFrom(src, port()), netip.AddrPortFrom(dst, port())
	switch r.IntN(10) {
	case 0, 1, 2:
		flags := []uint8{overlaytest.SYN, overlaytest.SYN | overlaytest.ACK, overlaytest.ACK, overlaytest.ACK, overlaytest.ACK | overlaytest.FIN, overlaytest.RST}[r.IntN(6)]
		return overlaytest.TCP(a, b, 1, 1, flags, nil, nil)
	case 3, 4:
		return overlaytest.UDP(a, b, []byte("data"))
	case 5:
		return overlaytest.Echo(src, dst, r.IntN(2) == 0, uint16(r.IntN(3)), 1, nil)
	case 6: // an error about a packet that went the other way, or some other
		quoted := overlaytest.UDP(b, a, []byte("quoted"))
		if r.IntN(4) == 0 {
			quoted = overlaytest.TCP(netip.AddrPortFrom(g.addrs[f][r.IntN(len(g.addrs[f]))], port()), a, 1, 1, overlaytest.ACK, nil, nil)
		}
		quoted = quoted[:len(quoted)-r.IntN(3)]
		h := []byte{3, 1, 0, 0, 0, 0, 0, 0}
		proto := uint8(protoICMP)
		if f == 1 {
			h[0], proto = 1, protoICMPv6
		}
		p := overlaytest.AppendIP(nil, src, dst, proto, append(h, quoted...))
		overlaytest.Fix(p)
		return p
	case 7: // GRE
		p := overlaytest.AppendIP(nil, src, dst, 47, make([]byte, 8))
		return p
	case 8, 9: // fragments of a UDP packet, with few identifications
		id, later := uint32(r.IntN(2)), r.IntN(2) == 1
		udp := overlaytest.UDP(a, b, make([]byte, 16))
		if f == 0 {
			binary.BigEndian.PutUint16(udp[4:], uint16(id))
			binary.BigEndian.PutUint16(udp[6:], 0x2000)
			if later {
				binary.BigEndian.PutUint16(udp[6:], 3)
			}
			overlaytest.Fix(udp)
			return udp
		}
		h := []byte{17, 0, 0, 1, 0, 0, 0, byte(id)}
		if later {
			h[3] = 24
		}
		return overlaytest.AppendIP(nil, src, dst, 44, append(h, udp[40:]...))
	}
	return nil
}

// comesFrom is mostly the port that a packet's source belongs to.
func (g *rig) comesFrom(p []byte, rng *rand.Rand, names []string) string {
	if src := sourceOf(p); rng.IntN(8) != 0 {
		for _, x := range g.state.Ports {
			if slices.ContainsFunc(x.Sources, func(s netip.Prefix) bool { return s.Contains(src) }) {
				return x.Name
			}
		}
	}
	return names[rng.IntN(len(names))]
}

func sourceOf(p []byte) netip.Addr {
	if p[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(p[12:16]))
	}
	return netip.AddrFrom16([16]byte(p[8:24]))
}

// randomRules are rules over the addresses of traffic, in all shapes.
func randomRules(rng *rand.Rand, addrs [2][]netip.Addr) []overlay.Rule {
	block := func() overlay.Block {
		list := addrs[rng.IntN(2)]
		a := list[rng.IntN(len(list))]
		wide := func(bits int) netip.Prefix { p, _ := a.Prefix(bits); return p }
		bits := []int{a.BitLen(), a.BitLen() - 8, a.BitLen() / 2, 8, 0}[rng.IntN(5)]
		b := overlay.Block{Prefix: wide(bits)}
		for range rng.IntN(3) {
			x := list[rng.IntN(len(list))]
			p, _ := x.Prefix(min(x.BitLen(), bits+rng.IntN(x.BitLen()-bits+1)))
			b.Except = append(b.Except, p)
		}
		return b
	}
	blocks := func() (out []overlay.Block) {
		for range rng.IntN(3) {
			out = append(out, block())
		}
		if rng.IntN(5) == 0 {
			out = append(out, overlay.Block{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, overlay.Block{Prefix: netip.MustParsePrefix("::/0")})
		}
		return out
	}
	rules := make([]overlay.Rule, rng.IntN(12))
	for i := range rules {
		r := overlay.Rule{Name: string(rune('A' + i)), Tier: overlay.Tier(rng.IntN(2)), Ingress: rng.IntN(2) == 0, Subject: blocks(), Peer: blocks()}
		for range rng.IntN(3) {
			x := overlay.PortRange{Proto: []uint8{0, 1, 6, 17, 47}[rng.IntN(5)]}
			if x.Proto != 1 && x.Proto != 47 && rng.IntN(2) == 0 {
				x.First = uint16(rng.IntN(100) + 1)
				x.Last = x.First + uint16(rng.IntN(500))
			}
			r.Ports = append(r.Ports, x)
		}
		rules[i] = r
	}
	return rules
}

func TestPoliceAgreesWithTheModel(t *testing.T) {
	const seed = 21
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newRig(t)
	m := &modelPolice{flows: make(map[modelFlow]*modelState), firsts: make(map[modelFragment]modelFirst)}
	g.clock = func() time.Duration { return m.now }
	traffic := newPoliceTraffic(rng)
	names := []string{"a", "b", "node", OutsideName}
	fates := make(map[string]int)
	sent := uint64(0)
	for i := range 150_000 {
		if i%2000 == 0 {
			m.rules, g.state.Policy = nil, nil
			if rng.IntN(8) != 0 {
				m.rules = randomRules(rng, traffic.addrs)
				if len(m.rules) == 0 {
					m.rules = []overlay.Rule{{Name: "none"}}
				}
				var err error
				if g.state.Policy, err = NewPolicy(m.rules); err != nil {
					t.Fatal(err)
				}
			} else {
				clear(m.flows) // without a policy nothing is remembered
				clear(m.firsts)
			}
			m.version++
		}
		if i%1000 == 500 { // the address of b moves outside and back
			g.state.Routes[3].Port, g.state.Routes[4].Port = "b", "b"
			if rng.IntN(2) == 0 {
				g.state.Routes[3].Port, g.state.Routes[4].Port = OutsideName, OutsideName
			}
		}
		if i%500 == 0 {
			if err := g.Set(g.state); err != nil {
				t.Fatal(err)
			}
		}
		m.now += time.Duration(rng.Int64N(int64(100 * time.Millisecond)))
		if rng.IntN(500) == 0 {
			m.now += time.Duration(rng.Int64N(int64(10 * time.Minute)))
		}
		p := traffic.packet()
		if rng.IntN(10) == 0 {
			p[8] = byte(rng.IntN(2))
			overlaytest.Fix(p)
		}
		from := g.comesFrom(p, rng, names)
		to, _, drop := naiveRoutePoliced(g.state, testMTU, from, p, m.police)
		before := g.drops.Get(drop)
		g.put(from, p)
		sent++
		got := g.got()
		if to == "" {
			fates[drop.String()]++
			if len(got) != 0 || g.drops.Get(drop) != before+1 {
				t.Fatalf("seed %d packet %d from %s: went to %v, the model drops it as %v: %x", seed, i, from, got, drop, p)
			}
			continue
		}
		fates[to]++
		if len(got) != 1 || len(got[to]) != 1 {
			t.Fatalf("seed %d packet %d from %s: went to %v, drops %v, the model says %s: %x\n%+v", seed, i, from, got, g.drops.Snapshot(), to, p, m.rules)
		}
	}
	total := uint64(fates["a"] + fates["b"] + fates["node"] + fates[OutsideName])
	for _, n := range g.drops.Snapshot() {
		total += n
	}
	if total != sent {
		t.Errorf("%d sent, %d accounted for", sent, total)
	}
	for _, name := range append(names, "policy", "fragment", "source", "no-route") {
		if fates[name] < 1000 {
			t.Errorf("only %v: the test tests nothing", fates)
		}
	}
	t.Log(fates)
}
