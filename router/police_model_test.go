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
	if x != nil && !m.over(k, x) && (!back || !asks) {
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
