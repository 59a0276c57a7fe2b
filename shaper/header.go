package shaper

import (
	"encoding/binary"
	"math/bits"
)

const (
	ipv4Header = 20
	ipv6Header = 40
	protoTCP   = 6
	protoUDP   = 17
)

// flowHash returns the hash of a packet's addresses, protocol and, where they
// are to be seen, ports. seed is a secret: nobody can choose packets that share
// a queue with another's. Anything is a packet to it.
func flowHash(pkt []byte, seed uint64) uint32 {
	h := seed
	mix := func(v uint64) {
		hi, lo := bits.Mul64(h^v, 0x9e3779b97f4a7c15)
		h = hi ^ lo
	}
	var proto byte
	l4 := 0
	switch {
	case len(pkt) >= ipv4Header && pkt[0]>>4 == 4:
		mix(binary.BigEndian.Uint64(pkt[12:]))
		proto = pkt[9]
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff == 0 {
			l4 = int(pkt[0]&15) * 4
		}
	case len(pkt) >= ipv6Header && pkt[0]>>4 == 6:
		for i := 8; i < ipv6Header; i += 8 {
			mix(binary.BigEndian.Uint64(pkt[i:]))
		}
		proto, l4 = pkt[6], ipv6Header
	}
	ports := uint64(0)
	if (proto == protoTCP || proto == protoUDP) && l4 > 0 && len(pkt) >= l4+4 {
		ports = uint64(binary.BigEndian.Uint32(pkt[l4:]))
	}
	mix(ports<<8 | uint64(proto))
	return uint32(h ^ h>>32)
}

const ecnMask, ecnCE = 3, 3

// markCE sets Congestion Experienced in a packet whose sender understands it
// (RFC 3168), and reports whether it does.
func markCE(pkt []byte) bool {
	switch {
	case len(pkt) >= ipv4Header && pkt[0]>>4 == 4:
		old := binary.BigEndian.Uint16(pkt)
		if old&ecnMask == 0 {
			return false
		}
		now := old | ecnCE
		pkt[1] |= ecnCE
		adjust(pkt, old, now)
		return true
	case len(pkt) >= ipv6Header && pkt[0]>>4 == 6:
		if pkt[1]>>4&ecnMask == 0 {
			return false
		}
		pkt[1] |= ecnCE << 4
		return true
	}
	return false
}

// setDSCP sets the codepoint of a packet and leaves its ECN bits.
func setDSCP(pkt []byte, dscp uint8) {
	switch {
	case len(pkt) >= ipv4Header && pkt[0]>>4 == 4:
		old := binary.BigEndian.Uint16(pkt)
		pkt[1] = pkt[1]&ecnMask | dscp<<2
		adjust(pkt, old, binary.BigEndian.Uint16(pkt))
	case len(pkt) >= ipv6Header && pkt[0]>>4 == 6:
		pkt[0] = pkt[0]&0xf0 | dscp>>2
		pkt[1] = pkt[1]&0x3f | dscp<<6
	}
}

// adjust corrects the checksum of an IPv4 header in which a word was changed:
// RFC 1624 equation 3.
func adjust(pkt []byte, old, now uint16) {
	s := uint32(^binary.BigEndian.Uint16(pkt[10:])) + uint32(^old) + uint32(now)
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	binary.BigEndian.PutUint16(pkt[10:], ^uint16(s))
}
