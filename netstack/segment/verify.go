package segment

import (
	"encoding/binary"
)

// A Verdict is what Verify thinks of a packet.
type Verdict uint8

// The verdicts.
const (
	Reject  Verdict = iota // wrong in a way that no stack need see
	Unknown                // whole headers, but nothing that Verify checks: for the stack to judge
	Trusted                // lengths and all checksums are right
)

// A Shape is where things are in a trusted packet.
type Shape struct {
	IP   int // bytes of the IP header
	Head int // bytes of the IP and transport headers
	TCP  bool
}

// Verify checks all lengths and checksums of a TCP or UDP packet that is whole,
// without options or extension headers. It promises a stack what a network
// card that checks does. It never reads past pkt.
func Verify(pkt []byte) (Shape, Verdict) {
	var s Shape
	if len(pkt) < ipv4Header {
		return s, Reject
	}
	var proto uint8
	var addrs []byte
	switch pkt[0] >> 4 {
	case 4:
		s.IP = ipv4Header
		length := int(binary.BigEndian.Uint16(pkt[2:]))
		if pkt[0] != 0x45 || length != len(pkt) || Sum(pkt[:s.IP], 0) != 0xffff {
			return s, Reject
		}
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return s, Unknown
		}
		proto, addrs = pkt[9], pkt[12:20]
	case 6:
		s.IP = ipv6Header
		if len(pkt) < s.IP || s.IP+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return s, Reject
		}
		proto, addrs = pkt[6], pkt[8:40]
	default:
		return s, Reject
	}
	l4 := pkt[s.IP:]
	switch proto {
	case protoTCP:
		if len(l4) < tcpHeader {
			return s, Reject
		}
		offset := int(l4[12]>>4) * 4
		if offset < tcpHeader || offset > len(l4) {
			return s, Reject
		}
		s.TCP, s.Head = true, s.IP+offset
	case protoUDP:
		if len(l4) < udpHeader {
			return s, Reject
		}
		n := int(binary.BigEndian.Uint16(l4[4:]))
		if n < udpHeader || n > len(l4) {
			return s, Reject
		}
		s.Head = s.IP + udpHeader
		l4 = l4[:n]
		if l4[6] == 0 && l4[7] == 0 {
			if s.IP == ipv4Header {
				return s, Trusted // RFC 768: the sender made none
			}
			return s, Reject // RFC 8200 8.1: in IPv6 it must
		}
	default:
		return s, Unknown
	}
	sum := Sum(addrs, uint16(proto))
	sum = Combine(sum, uint16(len(l4)))
	if Sum(l4, sum) != 0xffff {
		return s, Reject
	}
	return s, Trusted
}

// IsTCP reports whether a packet without extension headers is TCP.
func IsTCP(pkt []byte) bool {
	switch {
	case len(pkt) >= ipv4Header && pkt[0]>>4 == 4:
		return pkt[9] == protoTCP
	case len(pkt) >= ipv6Header && pkt[0]>>4 == 6:
		return pkt[6] == protoTCP
	}
	return false
}
