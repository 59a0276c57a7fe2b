package segment

import "encoding/binary"

// A Cutter turns one large TCP or UDP packet into packets with headers and
// checksums of their own. The zero Cutter is idle.
type Cutter struct {
	pkt    []byte // nil when idle
	ip     int    // bytes of the IP header
	head   int    // bytes of all headers
	mss    int
	off    int // of the next byte of data
	tcp    bool
	seq    uint32
	id     uint16
	pseudo uint16 // sum of addresses and protocol
	flags  byte
}

// Busy reports whether there is more to cut.
func (c *Cutter) Busy() bool { return c.pkt != nil }

// Stop forgets the rest.
func (c *Cutter) Stop() { c.pkt = nil }

// PieceSize returns the size of the largest piece.
func (c *Cutter) PieceSize() int { return c.head + min(c.mss, len(c.pkt)-c.head) }

// Pieces returns how many packets are left.
func (c *Cutter) Pieces() int {
	if c.pkt == nil {
		return 0
	}
	return (len(c.pkt) - c.off + c.mss - 1) / c.mss
}

// IPHeader and Header return the bytes of the IP header and of all headers of a
// packet that was started.
func (c *Cutter) IPHeader() int { return c.ip }

// Header is documented with IPHeader.
func (c *Cutter) Header() int { return c.head }

// Start begins with pkt, of whose data every piece gets mss bytes. It believes
// nothing: a packet whose lengths contradict each other, that is no TCP or UDP
// as tcp says, or that has no data is refused. pkt stays the caller's, and
// unchanged, until the Cutter is idle. Checksums in it are not looked at.
func (c *Cutter) Start(pkt []byte, tcp bool, mss int) bool {
	c.pkt = nil
	if len(pkt) < ipv4Header || mss <= 0 {
		return false
	}
	var proto byte
	var addrs []byte
	switch pkt[0] >> 4 {
	case 4:
		c.ip = int(pkt[0]&15) * 4
		if c.ip < ipv4Header || int(binary.BigEndian.Uint16(pkt[2:])) != len(pkt) ||
			binary.BigEndian.Uint16(pkt[6:])&0x3fff != 0 {
			return false
		}
		proto, addrs = pkt[9], pkt[12:20]
		c.id = binary.BigEndian.Uint16(pkt[4:])
	case 6:
		c.ip = ipv6Header
		if len(pkt) < ipv6Header || ipv6Header+int(binary.BigEndian.Uint16(pkt[4:])) != len(pkt) {
			return false
		}
		proto, addrs = pkt[6], pkt[8:40]
	default:
		return false
	}
	c.tcp, c.mss = tcp, min(mss, len(pkt))
	if tcp {
		if proto != protoTCP || len(pkt) < c.ip+tcpHeader {
			return false
		}
		l4 := pkt[c.ip:]
		c.head = c.ip + int(l4[12]>>4)*4
		if c.head < c.ip+tcpHeader {
			return false
		}
		c.seq, c.flags = binary.BigEndian.Uint32(l4[4:]), l4[13]
	} else {
		if proto != protoUDP {
			return false
		}
		c.head = c.ip + udpHeader
	}
	if c.head >= len(pkt) {
		return false
	}
	c.pseudo = Sum(addrs, uint16(proto))
	c.off = c.head
	c.pkt = pkt
	return true
}

// Next writes one piece to b and returns its size, or 0 when b is too short, in
// which case what is left is lost.
func (c *Cutter) Next(b []byte) int {
	n := min(len(c.pkt)-c.off, c.mss)
	if c.head+n > len(b) {
		c.pkt = nil
		return 0
	}
	b = b[:c.head+n]
	copy(b, c.pkt[:c.head])
	copy(b[c.head:], c.pkt[c.off:])
	c.off += n
	last := c.off == len(c.pkt)

	l4, at := b[c.ip:], 6
	if c.tcp {
		at = 16
		binary.BigEndian.PutUint32(l4[4:], c.seq)
		l4[13] = c.flags
		if !last {
			l4[13] &^= FIN | PSH
		}
		c.seq += uint32(n)
		c.flags &^= CWR // RFC 3168: said once
	} else {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
	}
	l4[at], l4[at+1] = 0, 0
	put(l4[at:], Sum(l4, Combine(c.pseudo, uint16(len(l4)))))
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], c.id)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^Sum(b[:c.ip], 0))
		c.id++
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-ipv6Header))
	}
	if last {
		c.pkt = nil
	}
	return len(b)
}

// put writes the checksum that belongs to a sum. Zero would mean none in UDP
// and is the same number as 0xffff.
func put(b []byte, sum uint16) {
	sum = ^sum
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b, sum)
}

// Complete makes the checksum at pkt[start+offset] whole that so far is the sum
// of a pseudo-header; it covers pkt[start:]. It reports whether there is such a
// place in pkt.
func Complete(pkt []byte, start, offset int) bool {
	if start < 0 || offset < 0 || start+offset+2 > len(pkt) {
		return false
	}
	put(pkt[start+offset:], Sum(pkt[start:], 0))
	return true
}
