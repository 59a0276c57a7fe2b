package router

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

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
