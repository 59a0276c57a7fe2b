package router

import "encoding/binary"

const (
	flagDF = 0x4000
	flagMF = 0x2000
)

// mayCut reports whether a checked packet may be cut into fragments on its way:
// one of IPv4 whose sender does not forbid it.
func mayCut(pkt []byte, v6 bool) bool {
	return !v6 && binary.BigEndian.Uint16(pkt[6:])&flagDF == 0
}

// appendFragment appends the first fragment of at most mtu bytes of what is left
// of a checked IPv4 packet, a fragment itself or not, from offset done of its
// data on, and returns it with the offset of the next; the last time that is the
// length of all data.
func appendFragment(b, pkt []byte, done, mtu int) (out []byte, next int) {
	data := pkt[ipv4Header:]
	n := len(data) - done
	last := n <= mtu-ipv4Header
	if !last {
		n = (mtu - ipv4Header) &^ 7
	}
	at := len(b)
	b = append(append(b, pkt[:ipv4Header]...), data[done:done+n]...)
	h := b[at:]
	field := binary.BigEndian.Uint16(pkt[6:]) + uint16(done/8)
	if !last {
		field |= flagMF
	}
	binary.BigEndian.PutUint16(h[2:], uint16(ipv4Header+n))
	binary.BigEndian.PutUint16(h[6:], field)
	binary.BigEndian.PutUint16(h[10:], 0)
	binary.BigEndian.PutUint16(h[10:], ^sum(h[:ipv4Header], 0))
	return b, done + n
}
