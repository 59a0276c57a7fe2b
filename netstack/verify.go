package netstack

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// verdict is what verify thinks of a packet.
type verdict uint8

const (
	reject  verdict = iota // wrong in a way that gVisor need not see
	unknown                // for gVisor to check
	trusted                // lengths and all checksums are right
)

// shape is where things are in a trusted packet.
type shape struct {
	ip   int // bytes of the IP header
	head int // bytes of the IP and transport headers
	tcp  bool
}

// verify checks all lengths and checksums of a TCP or UDP packet that is whole,
// without options or extension headers. It promises to gVisor what a network
// card that checks does. It never reads past pkt.
func verify(pkt []byte) (shape, verdict) {
	var s shape
	if len(pkt) < header.IPv4MinimumSize {
		return s, reject
	}
	var proto uint8
	var addrs []byte
	switch pkt[0] >> 4 {
	case 4:
		s.ip = header.IPv4MinimumSize
		length := int(binary.BigEndian.Uint16(pkt[2:]))
		if pkt[0] != 0x45 || length != len(pkt) || checksum.Checksum(pkt[:s.ip], 0) != 0xffff {
			return s, reject
		}
		if binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return s, unknown
		}
		proto, addrs = pkt[9], pkt[12:20]
	case 6:
		s.ip = header.IPv6MinimumSize
		if len(pkt) < s.ip || s.ip+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return s, reject
		}
		proto, addrs = pkt[6], pkt[8:40]
	default:
		return s, reject
	}
	l4 := pkt[s.ip:]
	switch proto {
	case uint8(header.TCPProtocolNumber):
		if len(l4) < header.TCPMinimumSize {
			return s, reject
		}
		offset := int(l4[12]>>4) * 4
		if offset < header.TCPMinimumSize || offset > len(l4) {
			return s, reject
		}
		s.tcp, s.head = true, s.ip+offset
	case uint8(header.UDPProtocolNumber):
		if len(l4) < header.UDPMinimumSize {
			return s, reject
		}
		n := int(binary.BigEndian.Uint16(l4[4:]))
		if n < header.UDPMinimumSize || n > len(l4) {
			return s, reject
		}
		s.head = s.ip + header.UDPMinimumSize
		l4 = l4[:n]
		if l4[6] == 0 && l4[7] == 0 {
			if s.ip == header.IPv4MinimumSize {
				return s, trusted // RFC 768: the sender made none
			}
			return s, reject // RFC 8200 8.1: in IPv6 it must
		}
	default:
		return s, unknown
	}
	sum := checksum.Checksum(addrs, uint16(proto))
	sum = checksum.Combine(sum, uint16(len(l4)))
	if checksum.Checksum(l4, sum) != 0xffff {
		return s, reject
	}
	return s, trusted
}
