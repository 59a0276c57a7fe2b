package main

import (
	"encoding/binary"
	"net/netip"

	"slicewire/overlay"
)

// traceMark is what a traced packet carries, so that whoever captures one knows
// where it comes from.
const traceMark = "slicewire trace"

// tracePacket makes a packet as a program would send it to begin with: a SYN, a
// datagram, an echo request or, of other protocols, the mark alone.
func tracePacket(src, dst netip.Addr, proto uint8, sport, dport uint16) []byte {
	var body []byte
	sum := -1 // where the checksum is
	switch proto {
	case overlay.ProtoTCP:
		body = make([]byte, 20)
		binary.BigEndian.PutUint16(body, sport)
		binary.BigEndian.PutUint16(body[2:], dport)
		body[12], body[13] = 5<<4, 2 // SYN
		binary.BigEndian.PutUint16(body[14:], 0xffff)
		sum = 16
	case overlay.ProtoUDP:
		body = append(make([]byte, 8), traceMark...)
		binary.BigEndian.PutUint16(body, sport)
		binary.BigEndian.PutUint16(body[2:], dport)
		binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
		sum = 6
	case overlay.ProtoICMP, 58:
		body = append(make([]byte, 8), traceMark...)
		if body[0] = 8; proto == 58 {
			body[0] = 128
		}
		binary.BigEndian.PutUint16(body[4:], sport)
		sum = 2
	default:
		body = []byte(traceMark)
	}
	if sum >= 0 {
		c := ^checksum(pseudo(src, dst, proto, len(body)), body)
		if proto == overlay.ProtoICMP {
			c = ^checksum(0, body)
		}
		if c == 0 && proto == overlay.ProtoUDP {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(body[sum:], c)
	}
	const ttl = 64
	if src.Is6() {
		h := make([]byte, 40, 40+len(body))
		h[0], h[6], h[7] = 0x60, proto, ttl
		binary.BigEndian.PutUint16(h[4:], uint16(len(body)))
		copy(h[8:], src.AsSlice())
		copy(h[24:], dst.AsSlice())
		return append(h, body...)
	}
	h := make([]byte, 20, 20+len(body))
	h[0], h[6], h[8], h[9] = 0x45, 0x40, ttl, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(body)))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^checksum(0, h))
	return append(h, body...)
}

// pseudo is the sum over the pseudo header.
func pseudo(src, dst netip.Addr, proto uint8, length int) uint32 {
	return uint32(checksum(0, src.AsSlice())) + uint32(checksum(0, dst.AsSlice())) + uint32(proto) + uint32(length)
}

// checksum is the RFC 1071 sum of b and start, not complemented.
func checksum(start uint32, b []byte) uint16 {
	s := uint64(start)
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
