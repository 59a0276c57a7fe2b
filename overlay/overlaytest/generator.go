package overlaytest

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// A Generator makes packets from a seed. Packets go from one of its sources to
// one of its destinations of the same family, mostly to a few well-known ports
// so that some meet a listener.
type Generator struct {
	rng *rand.Rand
	src [2][]netip.Addr // IPv4, IPv6
	dst [2][]netip.Addr
}

// NewGenerator returns a generator. Sources and destinations each need at
// least one address of each family.
func NewGenerator(seed uint64, sources, destinations []netip.Addr) *Generator {
	g := &Generator{rng: rand.New(rand.NewPCG(seed, 0x51c3))}
	for _, a := range sources {
		g.src[family(a)] = append(g.src[family(a)], a)
	}
	for _, a := range destinations {
		g.dst[family(a)] = append(g.dst[family(a)], a)
	}
	return g
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Valid returns a well-formed TCP, UDP or echo packet of at most 1400 bytes.
func (g *Generator) Valid() []byte {
	f := g.rng.IntN(2)
	src, dst := pick(g, g.src[f]), pick(g, g.dst[f])
	sp, dp := netip.AddrPortFrom(src, g.port()), netip.AddrPortFrom(dst, g.port())
	payload := g.bytes(g.size())
	switch g.rng.IntN(4) {
	case 0:
		return Echo(src, dst, g.rng.IntN(2) == 0, uint16(g.rng.Uint32()), uint16(g.rng.Uint32()), payload)
	case 1:
		return UDP(sp, dp, payload)
	default:
		return TCP(sp, dp, g.rng.Uint32(), g.rng.Uint32(), uint8(g.rng.IntN(64)), g.tcpOptions(), payload)
	}
}

// Malformed returns a packet with one to three faults, or, now and then, plain
// noise. By luck the result may still be well-formed. Three of four have their
// checksums made right again, so that the faults reach what lies behind them.
func (g *Generator) Malformed() []byte {
	if g.rng.IntN(50) == 0 {
		return g.bytes(g.rng.IntN(100))
	}
	p := g.Valid()
	if g.rng.IntN(6) == 0 {
		p = g.icmpError(p)
	}
	for range 1 + g.rng.IntN(3) {
		p = g.mutate(p)
	}
	if g.rng.IntN(4) != 0 {
		Fix(p)
	}
	return p
}

func pick[T any](g *Generator, s []T) T { return s[g.rng.IntN(len(s))] }

func (g *Generator) port() uint16 {
	return pick(g, []uint16{0, 53, 80, 443, 7000, uint16(g.rng.Uint32())})
}

// size prefers the edges: nothing, a few bytes, a full packet.
func (g *Generator) size() int {
	switch g.rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return g.rng.IntN(16)
	case 2:
		return g.rng.IntN(200)
	default:
		return 1000 + g.rng.IntN(300)
	}
}

// bytes returns n random bytes.
func (g *Generator) bytes(n int) []byte {
	b := make([]byte, n+7)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:i+8:len(b)], g.rng.Uint64())
	}
	return b[:n:n]
}

func (g *Generator) tcpOptions() []byte {
	switch g.rng.IntN(4) {
	case 0:
		return nil
	case 1:
		return []byte{2, 4, byte(g.rng.IntN(256)), byte(g.rng.IntN(256))} // MSS
	case 2:
		o := []byte{1, 2, 4, 5, 0xb4, 3, 3, 7, 4, 2, 1, 1} // MSS at an odd offset, window scale, SACK
		return o
	default:
		return g.bytes(4 * g.rng.IntN(11))
	}
}

// icmpError wraps p into an ICMP error as a router would send it.
func (g *Generator) icmpError(p []byte) []byte {
	if p[0]>>4 == 4 {
		src, dst := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
		quoted := p[:min(len(p), 20+g.rng.IntN(60))]
		copy(quoted[12:20], append(dst.AsSlice(), src.AsSlice()...))
		h := []byte{pick(g, []byte{3, 11, 12, 5}), byte(g.rng.IntN(16)), 0, 0, 0, 0, byte(g.rng.IntN(8)), byte(g.rng.IntN(256))}
		q := AppendIP(nil, src, dst, ProtoICMP, append(h, quoted...))
		Fix(q)
		return q
	}
	src, dst := netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	quoted := p[:min(len(p), 40+g.rng.IntN(60))]
	copy(quoted[8:40], append(dst.AsSlice(), src.AsSlice()...))
	h := []byte{pick(g, []byte{1, 2, 3, 4, 137, 134}), byte(g.rng.IntN(8)), 0, 0, 0, 0, byte(g.rng.IntN(8)), byte(g.rng.IntN(256))}
	q := AppendIP(nil, src, dst, ProtoICMPv6, append(h, quoted...))
	Fix(q)
	return q
}

// mutate makes one fault in p and returns it, possibly with another length.
func (g *Generator) mutate(p []byte) []byte {
	if len(p) < 20 {
		return p
	}
	v4 := p[0]>>4 == 4
	head := 40
	if v4 {
		head = 20
	}
	switch g.rng.IntN(14) {
	case 0: // any byte of the headers
		p[g.rng.IntN(min(len(p), head+20))] = byte(g.rng.Uint32())
	case 1: // one bit
		p[g.rng.IntN(len(p))] ^= 1 << g.rng.IntN(8)
	case 2: // cut off
		p = p[:g.rng.IntN(len(p))]
	case 3: // trailing bytes
		p = append(p, g.bytes(g.rng.IntN(40))...)
	case 4: // header length, version
		p[0] = byte(g.rng.Uint32())
	case 5: // length of the datagram
		at := 4
		if v4 {
			at = 2
		}
		binary.BigEndian.PutUint16(p[at:], uint16(pick(g, []int{0, 1, 19, 20, 39, 40, len(p) - 1, len(p) + 1, 65535, g.rng.IntN(65536)})))
	case 6: // transport protocol
		at := 6
		if v4 {
			at = 9
		}
		p[at] = pick(g, []byte{0, 1, 2, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 255, byte(g.rng.Uint32())})
	case 7: // TCP data offset; in other protocols some field
		if len(p) > head+12 {
			p[head+12] = byte(g.rng.IntN(16)) << 4
		}
	case 8: // UDP length; in other protocols some field
		if len(p) >= head+6 {
			binary.BigEndian.PutUint16(p[head+4:], uint16(pick(g, []int{0, 1, 7, 8, len(p) - head, len(p) - head + 1, 65535})))
		}
	case 9: // fragmentation, or an IPv6 fragment header
		if v4 {
			binary.BigEndian.PutUint16(p[6:], uint16(pick(g, []int{0x2000, 0x2001, 0x0001, 0x1fff, 0x3fff, 0x8000, g.rng.IntN(65536)})))
			break
		}
		p = g.insert6(p, 44, []byte{0, 0, byte(g.rng.IntN(256)), byte(g.rng.IntN(256)), 1, 2, 3, byte(g.rng.IntN(4))})
	case 10: // IPv4 options, or an IPv6 extension header with any length byte
		if v4 {
			n := 4 * (1 + g.rng.IntN(10))
			q := append(append(append([]byte(nil), p[:20]...), g.bytes(n)...), p[20:]...)
			q[0] = 0x40 | byte(5+n/4)
			binary.BigEndian.PutUint16(q[2:], uint16(len(q)))
			p = q
			break
		}
		h := g.bytes(8 * (1 + g.rng.IntN(3)))
		h[1] = pick(g, []byte{byte(len(h)/8 - 1), byte(len(h)/8 - 1), 255, byte(g.rng.Uint32())})
		p = g.insert6(p, pick(g, []byte{0, 43, 60, 51, 135}), h)
	case 11: // addresses nobody may send from or to
		p = g.address(p, v4)
	case 12: // TTL, TOS
		p[1] = byte(g.rng.Uint32())
		p[8] = byte(g.rng.IntN(3))
	case 13: // noise in the payload, which is a quoted packet in ICMP errors
		if len(p) > head+8 {
			p[head+8+g.rng.IntN(len(p)-head-8)] = byte(g.rng.Uint32())
		}
	}
	return p
}

// insert6 puts an extension header of type typ right behind the IPv6 header.
func (g *Generator) insert6(p []byte, typ byte, ext []byte) []byte {
	if len(p) < 40 {
		return p
	}
	ext[0] = p[6]
	q := append(append(append([]byte(nil), p[:40]...), ext...), p[40:]...)
	q[6] = typ
	binary.BigEndian.PutUint16(q[4:], uint16(len(q)-40))
	return q
}

func (g *Generator) address(p []byte, v4 bool) []byte {
	if v4 {
		a := pick(g, []string{"0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "169.254.169.254", "8.8.8.8"})
		copy(p[12+4*g.rng.IntN(2):], netip.MustParseAddr(a).AsSlice())
		return p
	}
	if len(p) < 40 {
		return p
	}
	a := pick(g, []string{"::", "::1", "ff02::1", "fe80::1", "::ffff:10.1.0.1", "64:ff9b::1", "2001:db8::1"})
	copy(p[8+16*g.rng.IntN(2):], netip.MustParseAddr(a).AsSlice())
	return p
}
