package netstack

import (
	"encoding/binary"

	"slicewire/netstack/segment"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxHeaders is an IPv6 header and a TCP header with all options.
const maxHeaders = header.IPv6MinimumSize + header.TCPHeaderMaximumSize

// cutter turns a packet of the stack into packets of the MTU. A TCP segment
// that left its checksum to us is cut at its MSS and each piece gets headers of
// its own; any other packet is copied as it is.
type cutter struct {
	mtu  int
	pkt  *stack.PacketBuffer // nil when idle; a reference of ours
	view *buffer.View        // where the next byte is
	off  int                 // and how far into view
	left int                 // bytes not yet copied

	whole   bool // copy as it is
	ip, tcp int  // bytes of the headers
	mss     int
	seq     uint32
	id      uint16
	pseudo  uint16 // sum of addresses and protocol
	flags   byte
	head    [maxHeaders]byte
}

func (c *cutter) busy() bool { return c.pkt != nil }

// start begins with pkt, whose reference becomes the cutter's, unless it is
// nothing we can send.
func (c *cutter) start(pkt *stack.PacketBuffer) bool {
	views, off := pkt.AsViewList()
	c.view, c.off, c.left = views.Front(), off, pkt.Size()
	c.skip()
	c.whole = !pkt.GSOOptions.NeedsCsum
	if c.whole {
		if c.left > 0 {
			c.pkt = pkt
		}
		return c.left > 0
	}
	c.ip, c.tcp = len(pkt.NetworkHeader().Slice()), len(pkt.TransportHeader().Slice())
	if c.ip < header.IPv4MinimumSize || c.tcp < header.TCPMinimumSize || c.ip+c.tcp > min(maxHeaders, c.left) {
		return false
	}
	c.copy(c.head[:c.ip+c.tcp])
	ip, tcp := c.head[:c.ip], c.head[c.ip:c.ip+c.tcp]
	addrs := ip[12:20]
	if ip[0]>>4 == 6 {
		addrs = ip[8:40]
	} else {
		c.id = binary.BigEndian.Uint16(ip[4:])
	}
	c.pseudo = checksum.Checksum(addrs, uint16(header.TCPProtocolNumber))
	c.seq, c.flags = binary.BigEndian.Uint32(tcp[4:]), tcp[13]
	most := c.mtu - c.ip - c.tcp
	c.mss = most
	if m := int(pkt.GSOOptions.MSS); m > 0 {
		c.mss = min(m, most)
	}
	c.pkt = pkt
	return true
}

// stop forgets what is left of the current packet.
func (c *cutter) stop() {
	if c.pkt != nil {
		c.pkt.DecRef()
		c.pkt, c.view = nil, nil
	}
}

// next writes one packet to b and returns its size, or 0 when b is too short,
// in which case the whole packet is lost.
func (c *cutter) next(b []byte) int {
	if c.whole {
		n := c.left
		if n > len(b) {
			n = 0
		}
		c.copy(b[:n])
		c.stop()
		return n
	}
	head := c.ip + c.tcp
	n := min(c.left, c.mss)
	if head+n > len(b) {
		c.stop()
		return 0
	}
	b = b[:head+n]
	copy(b, c.head[:head])
	c.copy(b[head:])
	last := c.left == 0

	tcp := b[c.ip:]
	binary.BigEndian.PutUint32(tcp[4:], c.seq)
	tcp[13] = c.flags
	if !last {
		tcp[13] &^= segment.FIN | segment.PSH
	}
	tcp[16], tcp[17] = 0, 0
	sum := checksum.Combine(c.pseudo, uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^checksum.Checksum(tcp, sum))
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], c.id)
		b[10], b[11] = 0, 0
		binary.BigEndian.PutUint16(b[10:], ^checksum.Checksum(b[:c.ip], 0))
	} else {
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6MinimumSize))
	}
	c.seq += uint32(n)
	c.id++
	c.flags &^= segment.CWR // RFC 3168: said once
	if last {
		c.stop()
	}
	return len(b)
}

// copy fills b from where the cutter is. The packet has that many bytes left.
func (c *cutter) copy(b []byte) {
	c.left -= len(b)
	for len(b) > 0 {
		n := copy(b, c.view.AsSlice()[c.off:])
		b = b[n:]
		c.off += n
		c.skip()
	}
}

// skip goes on to the next view when this one is used up.
func (c *cutter) skip() {
	for c.view != nil && c.off >= c.view.Size() {
		c.off -= c.view.Size()
		c.view = c.view.Next()
	}
}
