package segment

import (
	"encoding/binary"
	"math/bits"
)

// Sizes of headers without options.
const (
	ipv4Header = 20
	ipv6Header = 40
	tcpHeader  = 20
	udpHeader  = 8
)

// Protocol numbers.
const (
	protoTCP = 6
	protoUDP = 17
)

// The TCP flags that segments are joined and cut by.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	_
	CWR
)

// Sum returns the ones' complement sum of b as big-endian words, an odd byte
// being the high half of the last, added to start: RFC 1071, not inverted.
func Sum(b []byte, start uint16) uint16 {
	// The sum of 64-bit words in any byte order is, folded, the sum of 16-bit
	// words in that order: RFC 1071 section 2.
	var a, c uint64
	for len(b) >= 64 {
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[8:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[16:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[24:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[32:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[40:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[48:]), c)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b[56:]), c)
		b = b[64:]
	}
	for len(b) >= 8 {
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(b), c)
		b = b[8:]
	}
	if len(b) > 0 {
		var rest [8]byte
		copy(rest[:], b)
		a, c = bits.Add64(a, binary.NativeEndian.Uint64(rest[:]), c)
	}
	a, c = bits.Add64(a, 0, c)
	a += c
	a = a>>32 + a&0xffffffff
	a = a>>32 + a&0xffffffff
	a = a>>16 + a&0xffff
	a = a>>16 + a&0xffff
	var w [2]byte
	binary.NativeEndian.PutUint16(w[:], uint16(a))
	return Combine(binary.BigEndian.Uint16(w[:]), start)
}

// Combine adds two sums.
func Combine(a, b uint16) uint16 {
	s := uint32(a) + uint32(b)
	return uint16(s + s>>16)
}
