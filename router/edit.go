package router

import "encoding/binary"

// The edits a router makes in a packet it forwards. All are in place and keep
// checksums right by RFC 1624's difference, so that a packet whose checksum was
// wrong stays recognisably wrong.

// lastHop reports whether the TTL or hop limit of a checked packet ends here.
func lastHop(pkt []byte, v6 bool) bool {
	if v6 {
		return pkt[7] <= 1
	}
	return pkt[8] <= 1
}

// decrementTTL takes one from the TTL or hop limit of a checked packet. It
// reports false, and changes nothing, if that leaves none.
func decrementTTL(pkt []byte, v6 bool) bool {
	if v6 {
		if pkt[7] <= 1 {
			return false
		}
		pkt[7]--
		return true
	}
	_ = pkt[ipv4Header-1]
	if pkt[8] <= 1 {
		return false
	}
	pkt[8]--
	// The TTL is the upper byte of its word, so the sum of the header falls by
	// 0x100 and its complement rises by that, with the carry taken around.
	// Of its two zeroes the sum of a header has this one, as everybody has it.
	c := uint32(binary.BigEndian.Uint16(pkt[10:])) + 0x101
	binary.BigEndian.PutUint16(pkt[10:], uint16(c-1+c>>16))
	return true
}

const (
	tcpFIN      = 1
	tcpSYN      = 2
	tcpRST      = 4
	tcpACK      = 16
	optEnd      = 0
	optNop      = 1
	optMSS      = 2
	optMSSBytes = 4
)

// clampMSS lowers the MSS option of a SYN or SYN-ACK to most. segment starts
// with a TCP header that passed check.
func clampMSS(segment []byte, most uint16) {
	end := int(segment[12]>>4) * 4
	for i := tcpHeader; i < end; {
		switch segment[i] {
		case optEnd:
			return
		case optNop:
			i++
			continue
		}
		if i+1 >= end {
			return
		}
		size := int(segment[i+1])
		if size < 2 || i+size > end {
			return
		}
		if segment[i] == optMSS && size == optMSSBytes {
			old := binary.BigEndian.Uint16(segment[i+2:])
			if old <= most {
				return
			}
			binary.BigEndian.PutUint16(segment[i+2:], most)
			now := most
			if i%2 == 1 { // the value straddles two words of the sum
				old, now = old<<8|old>>8, now<<8|now>>8
			}
			sum := binary.BigEndian.Uint16(segment[16:])
			binary.BigEndian.PutUint16(segment[16:], adjust(sum, old, now))
			return
		}
		i += size
	}
}

// adjust is RFC 1624 equation 3: the checksum after one word of the data went
// from old to now.
func adjust(sum, old, now uint16) uint16 {
	s := uint32(^sum) + uint32(^old) + uint32(now)
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return ^uint16(s)
}
