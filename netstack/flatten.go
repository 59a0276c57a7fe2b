package netstack

import (
	"encoding/binary"

	"slicewire/netstack/segment"
	"slicewire/overlay"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// maxHeaders is an IPv6 header and a TCP header with all options.
const maxHeaders = header.IPv6MinimumSize + header.TCPHeaderMaximumSize

// flatten copies a packet of the stack to b and returns its size and what it
// is. A TCP segment that left its checksum to us gets it, or, when it stands for
// several of at most mtu bytes, the sum of the pseudo-header as whoever cuts it
// expects. It fails for what does not fit or is nothing we can send.
func flatten(b []byte, pkt *stack.PacketBuffer, mtu int) (size int, meta overlay.Meta, ok bool) {
	size = pkt.Size()
	if size == 0 || size > len(b) {
		return 0, meta, false
	}
	b = b[:size]
	views, off := pkt.AsViewList()
	n := 0
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		if off >= len(s) {
			off -= len(s)
			continue
		}
		n += copy(b[n:], s[off:])
		off = 0
	}
	if n != size {
		return 0, meta, false
	}
	if !pkt.GSOOptions.NeedsCsum {
		return size, meta, true
	}
	ip, tcp := len(pkt.NetworkHeader().Slice()), len(pkt.TransportHeader().Slice())
	if ip < header.IPv4MinimumSize || tcp < header.TCPMinimumSize || ip+tcp > min(maxHeaders, size) {
		return 0, meta, false
	}
	addrs := b[12:20]
	if b[0]>>4 == 6 {
		addrs = b[8:40]
	}
	l4 := b[ip:]
	sum := segment.Combine(segment.Sum(addrs, uint16(header.TCPProtocolNumber)), uint16(len(l4)))
	binary.BigEndian.PutUint16(l4[16:], sum)
	mss := mtu - ip - tcp
	if m := int(pkt.GSOOptions.MSS); m > 0 {
		mss = min(m, mss)
	}
	if size-ip-tcp > mss {
		meta.Piece = uint16(mss)
		return size, meta, mss > 0
	}
	return size, meta, segment.Complete(b, ip, 16)
}
