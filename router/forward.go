package router

import (
	"net/netip"

	"slicewire/overlay"
)

// batch is the scratch space of one call of forward. One that is reused
// allocates nothing.
type batch struct {
	out   [overlay.BatchSize]*port // way out of packet i; nil when it is lost
	group [overlay.BatchSize][]byte
	count [overlay.BatchSize]int // of the packets that packet i stands for
	lost  [overlay.NumDrops]int

	// The pair of addresses that was looked up last in this batch, and its way
	// out: packets of one flow come in a row.
	src, dst netip.Addr
	to       *port
}

// forward takes the packets of one batch from in to their ways out. It may
// reorder and shorten bufs' elements and changes the packets in place. Packets
// with the same way out keep their order.
func (r *Router) forward(in *port, bufs [][]byte, b *batch) {
	for len(bufs) > overlay.BatchSize {
		r.forward(in, bufs[:overlay.BatchSize], b)
		bufs = bufs[overlay.BatchSize:]
	}
	t := r.table.Load()
	from := t.sources[in]
	b.to = nil
	var bytes uint64
	left, packets := 0, 0 // left have a way out and are not yet written
	for i, buf := range bufs {
		bytes += uint64(len(buf) - overlay.Headroom)
		var meta overlay.Meta
		if in.role == Outside {
			overlay.PutMeta(buf, meta) // there is a message's header
		} else {
			meta = overlay.MetaOf(buf)
		}
		out, size, drop := r.route(t, from, in, b, buf[overlay.Headroom:], meta)
		n := 1
		if meta.Piece != 0 {
			n = meta.Packets(len(buf)-overlay.Headroom, ipv4Header)
		}
		packets += n
		b.out[i], b.count[i] = out, n
		if out == nil {
			b.lost[drop] += n
			continue
		}
		bufs[i] = buf[:overlay.Headroom+size]
		left++
	}
	in.n.inPackets.Add(uint64(packets))
	in.n.inBytes.Add(bytes)
	if left < len(bufs) {
		for d := range b.lost {
			if b.lost[d] != 0 {
				r.drops.Add(overlay.Drop(d), b.lost[d])
				b.lost[d] = 0
			}
		}
	}
	for first := 0; left > 0; first++ {
		out := b.out[first]
		if out == nil {
			continue
		}
		n, packets, sent := 0, 0, uint64(0)
		for i := first; i < len(bufs); i++ {
			if b.out[i] == out {
				b.out[i] = nil
				b.group[n] = bufs[i]
				packets += b.count[i]
				sent += uint64(len(bufs[i]) - overlay.Headroom)
				n++
			}
		}
		left -= n
		r.send(out, b.group[:n], packets, sent)
		clear(b.group[:n])
	}
}

// send writes one group, which stands for a number of packets, and accounts for it.
func (r *Router) send(out *port, group [][]byte, packets int, bytes uint64) {
	if err := out.link.Write(group); err != nil {
		r.drops.Add(overlay.DropClosed, packets)
		return
	}
	out.n.outPackets.Add(uint64(packets))
	out.n.outBytes.Add(bytes)
}

// route decides about one packet: its way out and its length, or, with no way
// out, the reason. It makes the edits of a forwarded packet.
func (r *Router) route(t *table, from *sources, in *port, b *batch, pkt []byte, meta overlay.Meta) (*port, int, overlay.Drop) {
	var p info
	drop, ok := p.check(pkt)
	if !ok {
		return nil, 0, drop
	}
	var src, dst netip.Addr
	if p.v6 {
		src, dst = netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40]))
	} else {
		src, dst = netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20]))
	}
	out := b.to
	if out == nil || dst != b.dst || src != b.src {
		if from == nil || !from.Contains(src) {
			return nil, 0, overlay.DropSource
		}
		if out, ok = t.routes.Lookup(dst); !ok || out == in {
			return nil, 0, overlay.DropNoRoute
		}
		b.src, b.dst, b.to = src, dst, out
	}
	if out.role == Local {
		if drop, ok := p.deliverable(); !ok {
			return nil, 0, drop
		}
	} else if in.role != Local && !decrementTTL(pkt, p.v6) {
		return nil, 0, overlay.DropTTL
	}
	size := p.length
	if meta.Piece != 0 {
		if size, ok = p.pieceSize(pkt, meta); !ok {
			return nil, 0, overlay.DropMalformed
		}
	}
	if size > r.mtu {
		return nil, 0, overlay.DropTooBig
	}
	if p.proto == protoTCP && (in.role == Outside || out.role == Outside) && !p.later && pkt[p.l4+13]&tcpSYN != 0 {
		most := r.mss4
		if p.v6 {
			most = r.mss6
		}
		clampMSS(pkt[p.l4:p.length], most)
	}
	return out, p.length, 0
}

// pieceSize returns the size of the packets that a checked one stands for. It
// fails for one that cannot be cut.
func (p *info) pieceSize(pkt []byte, meta overlay.Meta) (int, bool) {
	if p.fragment || p.options || p.length != len(pkt) {
		return 0, false
	}
	switch p.proto {
	case protoTCP:
		return p.l4 + int(pkt[p.l4+12]>>4)*4 + int(meta.Piece), true
	case protoUDP:
		return p.l4 + udpHeader + int(meta.Piece), true
	}
	return 0, false
}

// deliverable reports whether the node's own stack takes the packet. It fails
// closed: the stack sees only what this package has understood.
func (p *info) deliverable() (overlay.Drop, bool) {
	if p.options {
		return overlay.DropOptions, false
	}
	switch p.proto {
	case protoTCP, protoUDP, protoICMP, protoICMPv6:
		return 0, true
	}
	return overlay.DropProtocol, false
}
