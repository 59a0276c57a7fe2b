package overlaytest

import (
	"encoding/binary"
	"net/netip"
)

// IP protocol numbers that the builders and the generator use.
const (
	ProtoICMP   = 1
	ProtoTCP    = 6
	ProtoUDP    = 17
	ProtoICMPv6 = 58
)

// TCP flags.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// ttl is the TTL or hop limit of every packet built here.
const ttl = 64

// AppendIP appends an IP packet from src to dst, which are of one family, and
// returns the longer slice. Transport checksums are the caller's; see Fix.
func AppendIP(b []byte, src, dst netip.Addr, proto uint8, payload []byte) []byte {
	if src.Is4() {
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+len(payload)))
		b = append(b, 0, 0, 0x40, 0, ttl, proto, 0, 0) // don't fragment
		b = append(b, src.AsSlice()...)
		b = append(b, dst.AsSlice()...)
		h := b[len(b)-20:]
		binary.BigEndian.PutUint16(h[10:], ^sum(h, 0))
		return append(b, payload...)
	}
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, proto, ttl)
	s, d := src.As16(), dst.As16()
	b = append(b, s[:]...)
	b = append(b, d[:]...)
	return append(b, payload...)
}

// UDP returns a well-formed UDP packet.
func UDP(src, dst netip.AddrPort, payload []byte) []byte {
	h := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(h[0:], src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(payload)))
	p := AppendIP(nil, src.Addr(), dst.Addr(), ProtoUDP, append(h, payload...))
	Fix(p)
	return p
}

// TCP returns a well-formed TCP segment. The length of options must be a
// multiple of four and at most 40.
func TCP(src, dst netip.AddrPort, seq, ack uint32, flags uint8, options, payload []byte) []byte {
	h := make([]byte, 20, 20+len(options)+len(payload))
	binary.BigEndian.PutUint16(h[0:], src.Port())
	binary.BigEndian.PutUint16(h[2:], dst.Port())
	binary.BigEndian.PutUint32(h[4:], seq)
	binary.BigEndian.PutUint32(h[8:], ack)
	h[12] = uint8(5+len(options)/4) << 4
	h[13] = flags
	binary.BigEndian.PutUint16(h[14:], 0xffff)
	p := AppendIP(nil, src.Addr(), dst.Addr(), ProtoTCP, append(append(h, options...), payload...))
	Fix(p)
	return p
}

// Echo returns an ICMP or ICMPv6 echo request or reply.
func Echo(src, dst netip.Addr, reply bool, id, seq uint16, payload []byte) []byte {
	typ, proto := uint8(8), uint8(ProtoICMP)
	if reply {
		typ = 0
	}
	if src.Is6() {
		typ, proto = 128, ProtoICMPv6
		if reply {
			typ = 129
		}
	}
	h := []byte{typ, 0, 0, 0}
	h = binary.BigEndian.AppendUint16(h, id)
	h = binary.BigEndian.AppendUint16(h, seq)
	p := AppendIP(nil, src, dst, proto, append(h, payload...))
	Fix(p)
	return p
}

// PacketOfDeath returns 40 bytes, 20 of IPv4 and 20 of TCP, whose TCP data
// offset says 60: a stack that believes it reads past the end of the packet.
func PacketOfDeath(src, dst netip.AddrPort) []byte {
	p := TCP(src, dst, 1, 0, SYN, nil, nil)
	p[len(p)-20+12] = 0xf0
	Fix(p)
	return p
}

// Fix makes the checksums of pkt right as far as its lengths allow, so that a
// mutated packet is not dropped for its checksum alone. It follows no IPv6
// extension headers.
func Fix(pkt []byte) {
	if len(pkt) < 20 {
		return
	}
	var l4 []byte
	var proto uint8
	var pseudo uint32
	switch pkt[0] >> 4 {
	case 4:
		ihl := int(pkt[0]&15) * 4
		if ihl < 20 || ihl > len(pkt) {
			return
		}
		pkt[10], pkt[11] = 0, 0
		binary.BigEndian.PutUint16(pkt[10:], ^sum(pkt[:ihl], 0))
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return // a fragment holds only a part of what its checksum covers
		}
		end := min(int(binary.BigEndian.Uint16(pkt[2:])), len(pkt))
		if end < ihl {
			return
		}
		l4, proto = pkt[ihl:end], pkt[9]
		pseudo = uint32(sum(pkt[12:20], 0))
	case 6:
		if len(pkt) < 40 {
			return
		}
		end := min(40+int(binary.BigEndian.Uint16(pkt[4:])), len(pkt))
		l4, proto = pkt[40:end], pkt[6]
		pseudo = uint32(sum(pkt[8:40], 0))
	default:
		return
	}
	pseudo += uint32(proto) + uint32(len(l4))
	at := 16
	switch proto {
	case ProtoTCP:
	case ProtoUDP:
		at = 6
	case ProtoICMP:
		at, pseudo = 2, 0
	case ProtoICMPv6:
		at = 2
	default:
		return
	}
	if len(l4) < at+2 {
		return
	}
	l4[at], l4[at+1] = 0, 0
	c := ^sum(l4, pseudo)
	if c == 0 && proto == ProtoUDP {
		c = 0xffff // zero would say that there is no checksum
	}
	binary.BigEndian.PutUint16(l4[at:], c)
}

// ChecksumsOK reports whether the checksums of a well-formed packet without
// options or extension headers are right: the check a receiving kernel makes. In
// ones' complement 0xffff is zero too, and who updates a checksum may leave the
// one where who computes it anew has the other.
func ChecksumsOK(pkt []byte) bool {
	q, p := append([]byte(nil), pkt...), append([]byte(nil), pkt...)
	Fix(q)
	oneZero(q)
	oneZero(p)
	return string(q) == string(p)
}

// oneZero has checksums of zero in one form only. UDP's are left: there, zero is
// none.
func oneZero(pkt []byte) {
	zero := func(at int) {
		if at+2 <= len(pkt) && pkt[at] == 0xff && pkt[at+1] == 0xff {
			pkt[at], pkt[at+1] = 0, 0
		}
	}
	l4, proto := 40, uint8(0)
	switch {
	case len(pkt) >= 20 && pkt[0]>>4 == 4:
		zero(10)
		l4, proto = 20, pkt[9]
	case len(pkt) >= 40:
		proto = pkt[6]
	}
	switch proto {
	case ProtoTCP:
		zero(l4 + 16)
	case ProtoICMP, ProtoICMPv6:
		zero(l4 + 2)
	}
}

// sum is the RFC 1071 sum of b and start, folded to 16 bits.
func sum(b []byte, start uint32) uint16 {
	s := uint64(start)
	for len(b) >= 2 {
		s += uint64(b[0])<<8 | uint64(b[1])
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
