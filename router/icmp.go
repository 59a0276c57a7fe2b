package router

import (
	"encoding/binary"
	"net/netip"

	"slicewire/overlay"
)

// The ICMP errors that a router owes whoever sent a packet that it drops: RFC
// 792 and 1812 for IPv4, RFC 4443 for IPv6. They are built here and not by the
// node's stack: gVisor forwards an IPv4 packet with a TTL of one instead of
// answering it, has one rate limit for all who ask, and would need every route
// of the slice a second time.

// Lengths of a whole error. One of IPv4 quotes as much as RFC 1812 lets it, one
// of IPv6 as much as fits everywhere.
const (
	errorMax4 = 576
	errorMax6 = 1280
	errorTTL  = 64
	// errorTOS is the precedence of RFC 1812 4.3.2.5, internetwork control, so
	// that errors get through where the traffic that they are about does not.
	errorTOS = 0xc0
)

// answerTo returns the type and code of the error that is owed for a drop. For
// most reasons nothing is: who sends garbage or with another's address must
// not learn of it, nor may somebody else be told in its place.
func answerTo(drop overlay.Drop, v6 bool) (typ, code uint8, ok bool) {
	switch drop {
	case overlay.DropTTL:
		if v6 {
			return 3, 0, true // hop limit exceeded in transit
		}
		return 11, 0, true // TTL exceeded in transit
	case overlay.DropNoRoute:
		if v6 {
			return 1, 0, true // no route to destination
		}
		return 3, 0, true // network unreachable
	case overlay.DropPolicy:
		if v6 {
			return 1, 1, true // administratively prohibited
		}
		return 3, 13, true // the same
	case overlay.DropTooBig:
		if v6 {
			return 2, 0, true
		}
		return 3, 4, true // fragmentation needed and DF set
	case overlay.DropProtocol:
		if v6 {
			return 4, 1, true // unrecognized next header
		}
		return 3, 2, true // protocol unreachable
	}
	return 0, 0, false
}

// answerable reports whether a checked packet may be answered with an error: it
// is none itself, as errors about errors never end, and it is not a later
// fragment, of which its sender could not say what it was.
func (in *info) answerable(pkt []byte) bool {
	switch {
	case in.later, in.proto == protoAH: // behind which an error may be
		return false
	case in.v6:
		return in.proto != protoICMPv6 || pkt[in.l4] >= 128
	case in.proto == protoICMP:
		switch pkt[in.l4] {
		case 0, 8, 13, 14, 15, 16, 17, 18: // questions and answers
			return true
		}
		return false
	}
	return true
}

// appendError appends an ICMP error from src to dst, of one family, about the
// packet quote. mtu is said by the errors that have a place for it.
func appendError(b []byte, src, dst netip.Addr, typ, code uint8, mtu int, quote []byte) []byte {
	at := len(b)
	if src.Is4() {
		quote = quote[:min(len(quote), errorMax4-ipv4Header-icmpHeader)]
		b = append(b, 0x45, errorTOS)
		b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+icmpHeader+len(quote)))
		b = append(b, 0, 0, 0x40, 0, errorTTL, protoICMP, 0, 0)
		s, d := src.As4(), dst.As4()
		b = append(append(b, s[:]...), d[:]...)
		binary.BigEndian.PutUint16(b[at+10:], ^sum(b[at:], 0))
		b = append(b, typ, code, 0, 0, 0, 0)
		if typ != 3 || code != 4 {
			mtu = 0
		}
		b = binary.BigEndian.AppendUint16(b, uint16(mtu))
		b = append(b, quote...)
		l4 := b[at+ipv4Header:]
		binary.BigEndian.PutUint16(l4[2:], ^sum(l4, 0))
		return b
	}
	quote = quote[:min(len(quote), errorMax6-ipv6Header-icmpHeader)]
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(icmpHeader+len(quote)))
	b = append(b, protoICMPv6, errorTTL)
	s, d := src.As16(), dst.As16()
	b = append(append(b, s[:]...), d[:]...)
	b = append(b, typ, code, 0, 0)
	switch typ {
	case 2:
	case 4:
		mtu = 6 // the place of the fault: the header's next-header field
	default:
		mtu = 0
	}
	b = binary.BigEndian.AppendUint32(b, uint32(mtu))
	b = append(b, quote...)
	l4 := b[at+ipv6Header:]
	pseudo := uint32(sum(b[at+8:at+40], 0)) + protoICMPv6 + uint32(len(l4))
	binary.BigEndian.PutUint16(l4[2:], ^sum(l4, pseudo))
	return b
}

// firstPiece makes the copy of a packet that stands for several into the first
// of them, as far as it will be quoted. Its transport checksum stays only begun.
func firstPiece(pkt []byte, v6 bool, size int) []byte {
	if v6 {
		binary.BigEndian.PutUint16(pkt[4:], uint16(size-ipv6Header))
	} else {
		old := binary.BigEndian.Uint16(pkt[2:])
		binary.BigEndian.PutUint16(pkt[2:], uint16(size))
		binary.BigEndian.PutUint16(pkt[10:], adjust(binary.BigEndian.Uint16(pkt[10:]), old, uint16(size)))
	}
	return pkt[:size]
}

// sum is the RFC 1071 sum of b and start, folded to 16 bits.
func sum(b []byte, start uint32) uint16 {
	s := uint64(start)
	for len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
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
