package router

import (
	"encoding/binary"
	"math/bits"

	"slicewire/overlay"
)

// IP protocol and extension header numbers.
const (
	protoHopByHop = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
)

const (
	ipv4Header   = 20
	ipv6Header   = 40
	tcpHeader    = 20
	udpHeader    = 8
	icmpHeader   = 8 // the types we know have a second word
	maxTransport = 65535
	maxChain     = 8 // extension headers walked; more is an attack or a mistake
)

// info is what its check learnt of a well-formed packet.
type info struct {
	length   int   // of the datagram; what follows it in the buffer is padding
	l4       int   // where the transport header starts
	proto    uint8 // transport protocol, of later fragments too
	v6       bool
	fragment bool   // one of several pieces
	later    bool   // a fragment without the transport header
	options  bool   // has IPv6 extension headers other than a fragment header
	frag     uint16 // where the IPv6 fragment header is, if there is one
}

// check decides whether pkt is a well-formed unicast datagram that a slice
// carries, before anything else looks at it: every later stage, gVisor's stack
// above all, may rely on lengths and header walks that passed here. It is pure,
// bounded by maxChain and allocates nothing. It fills in, which is empty before,
// with what it learnt; when ok is false, drop says why. It fills instead of
// returning because info is too large for registers, and a copy made right
// after single bytes were stored waits for all of them.
//
// Of transport protocols it knows TCP, UDP, ICMP and ICMPv6; others are opaque
// and pass.
func (in *info) check(pkt []byte) (drop overlay.Drop, ok bool) {
	if len(pkt) < ipv4Header {
		return overlay.DropMalformed, false
	}
	switch pkt[0] >> 4 {
	case 4:
		return in.check4(pkt)
	case 6:
		return in.check6(pkt)
	}
	return overlay.DropMalformed, false
}

func (in *info) check4(pkt []byte) (drop overlay.Drop, ok bool) {
	_ = pkt[ipv4Header-1]
	if pkt[0] != 0x45 {
		if ihl := int(pkt[0]&15) * 4; ihl < ipv4Header || ihl > len(pkt) {
			return overlay.DropMalformed, false
		}
		return overlay.DropOptions, false // source routes, record route, timestamps: nothing a slice wants
	}
	in.length = int(binary.BigEndian.Uint16(pkt[2:]))
	if in.length < ipv4Header || in.length > len(pkt) || !headerSumOK(pkt) {
		return overlay.DropMalformed, false
	}
	if drop, ok = unicast4(binary.BigEndian.Uint32(pkt[12:]), binary.BigEndian.Uint32(pkt[16:])); !ok {
		return drop, false
	}
	in.l4, in.proto = ipv4Header, pkt[9]
	segment := pkt[ipv4Header:in.length]

	frag := binary.BigEndian.Uint16(pkt[6:])
	if frag&0x8000 != 0 {
		return overlay.DropMalformed, false // the reserved bit
	}
	if frag&0x3fff != 0 {
		more, offset := frag&0x2000 != 0, int(frag&0x1fff)*8
		in.fragment, in.later = true, offset != 0
		if !fragmentOK(in.proto, more, offset, len(segment), maxTransport-ipv4Header) {
			return overlay.DropFragment, false
		}
	}
	return in.checkTransport(segment)
}

func (in *info) check6(pkt []byte) (drop overlay.Drop, ok bool) {
	in.v6 = true
	if len(pkt) < ipv6Header {
		return overlay.DropMalformed, false
	}
	in.length = ipv6Header + int(binary.BigEndian.Uint16(pkt[4:]))
	if in.length > len(pkt) {
		return overlay.DropMalformed, false
	}
	if drop, ok = unicast6(pkt); !ok {
		return drop, false
	}
	pkt = pkt[:in.length]
	in.l4, in.proto = ipv6Header, pkt[6]

	fragmentHeader := false
	for n := 0; ; n++ {
		rest := pkt[in.l4:]
		switch in.proto {
		case protoHopByHop, protoDestOpts:
			if in.proto == protoHopByHop && n != 0 {
				return overlay.DropOptions, false // RFC 8200 4.1: first or not at all
			}
			if len(rest) < 8 {
				return overlay.DropMalformed, false
			}
			size := (int(rest[1]) + 1) * 8
			if size > len(rest) {
				if in.fragment {
					return overlay.DropFragment, false // RFC 7112: the first fragment holds all headers
				}
				return overlay.DropMalformed, false
			}
			in.options = true
			in.proto, in.l4 = rest[0], in.l4+size
		case protoRouting:
			// A source route would carry a packet past the source check and
			// the policy of its first destination; type 0 is RFC 5095's.
			return overlay.DropOptions, false
		case protoFragment:
			if len(rest) < 8 {
				return overlay.DropMalformed, false
			}
			if fragmentHeader {
				return overlay.DropFragment, false
			}
			fragmentHeader = true
			frag := binary.BigEndian.Uint16(rest[2:])
			more, offset := frag&1 != 0, int(frag&0xfff8)
			in.proto, in.frag, in.l4 = rest[0], uint16(in.l4), in.l4+8
			if !more && offset == 0 {
				break // RFC 6946: an atomic fragment is a whole packet
			}
			in.fragment, in.later = true, offset != 0
			if !fragmentOK(in.proto, more, offset, len(rest)-8, maxTransport) {
				return overlay.DropFragment, false
			}
			if in.later {
				return 0, true // what follows is payload, whatever it looks like
			}
		default:
			return in.checkTransport(rest)
		}
		if n == maxChain {
			return overlay.DropOptions, false
		}
	}
}

// fragmentOK is the sanity of one fragment: RFC 791 lengths, and RFC 1858's
// rule that no fragment may overwrite the header of a TCP segment.
func fragmentOK(proto uint8, more bool, offset, length, limit int) bool {
	return length > 0 && (!more || length%8 == 0) && offset+length <= limit &&
		(proto != protoTCP || offset != 8)
}

// checkTransport checks the transport header at the start of segment, which
// runs to the end of the datagram.
func (in *info) checkTransport(segment []byte) (overlay.Drop, bool) {
	if in.later {
		return 0, true
	}
	ok := true
	switch in.proto {
	case protoTCP:
		ok = len(segment) >= tcpHeader
		if ok {
			offset := int(segment[12]>>4) * 4
			ok = offset >= tcpHeader && offset <= len(segment)
		}
	case protoUDP:
		ok = len(segment) >= udpHeader
		if ok {
			n := int(binary.BigEndian.Uint16(segment[4:]))
			ok = n >= udpHeader && (n <= len(segment) || in.fragment)
		}
	case protoICMP:
		if in.v6 {
			return overlay.DropProtocol, false
		}
		ok = len(segment) >= icmpHeader
		if ok && segment[0] == 5 {
			return overlay.DropProtocol, false // redirect: routes come from records, not from packets
		}
	case protoICMPv6:
		if !in.v6 {
			return overlay.DropProtocol, false
		}
		ok = len(segment) >= icmpHeader
		if ok && linkControl6(segment[0]) {
			return overlay.DropProtocol, false
		}
	}
	if ok {
		return 0, true
	}
	if in.fragment {
		return overlay.DropFragment, false // a tiny first fragment hides its header
	}
	return overlay.DropMalformed, false
}

// linkControl6 reports whether an ICMPv6 type belongs to a link: multicast
// listeners, neighbour discovery, redirects. A slice has no links to control.
func linkControl6(typ uint8) bool {
	return typ >= 130 && typ <= 137 || typ >= 141 && typ <= 143 || typ >= 148 && typ <= 153
}

// unicast4 refuses addresses that no slice routes, by RFC 1122 and RFC 6890.
func unicast4(src, dst uint32) (overlay.Drop, bool) {
	if src>>28 >= 14 || src>>24 == 0 || src>>24 == 127 || src>>16 == 0xa9fe {
		return overlay.DropSource, false
	}
	if dst>>28 == 14 || dst == 0xffffffff {
		return overlay.DropMulticast, false
	}
	if dst>>28 == 15 || dst>>24 == 0 || dst>>24 == 127 || dst>>16 == 0xa9fe {
		return overlay.DropNoRoute, false
	}
	return 0, true
}

// unicast6 refuses addresses that no slice routes: RFC 4291 and RFC 4007, and
// whatever has an IPv4 address in it, which would be a second name for a host.
func unicast6(pkt []byte) (overlay.Drop, bool) {
	if !routable6(pkt[8:24]) {
		return overlay.DropSource, false
	}
	if pkt[24] == 0xff {
		return overlay.DropMulticast, false
	}
	if !routable6(pkt[24:40]) {
		return overlay.DropNoRoute, false
	}
	return 0, true
}

func routable6(a []byte) bool {
	hi, lo := binary.BigEndian.Uint64(a), binary.BigEndian.Uint64(a[8:])
	switch {
	case hi>>56 == 0xff: // multicast
	case hi>>54 == 0xfe80>>6: // link-local
	case hi == 0 && (lo>>32 == 0 || lo>>32 == 0xffff): // unspecified, loopback, IPv4-compatible, IPv4-mapped
	default:
		return true
	}
	return false
}

// headerSumOK verifies the checksum of a 20-byte IPv4 header.
func headerSumOK(h []byte) bool {
	_ = h[ipv4Header-1]
	s, c := bits.Add64(binary.BigEndian.Uint64(h), binary.BigEndian.Uint64(h[8:]), 0)
	s, c = bits.Add64(s, uint64(binary.BigEndian.Uint32(h[16:])), c)
	s, c = bits.Add64(s, 0, c)
	s += c
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return s == 0xffff
}
