package router

import "slicewire/overlay"

// batch is the scratch space of one call of forward. One that is reused
// allocates nothing.
type batch struct {
	kept  [overlay.BatchSize][]byte // the packets that have a way out and are not yet written
	out   [overlay.BatchSize]*port  // that of kept[i]
	count [overlay.BatchSize]int    // of the packets that kept[i] stands for
	group [overlay.BatchSize][]byte
	lost  [overlay.NumDrops]int
	now   int64      // tick of the batch, with a policy
	entry *flowEntry // of the packet at hand: what allowed it, if anything remembers it
	back  bool       // the packet goes against the flow's first one
	said  verdict    // of the policy about the packet at hand, if it was asked
	dry   bool       // only asks: remembers and counts nothing
	flows flows      // outlives the batch
}

// forward takes the packets of one batch from in to their ways out. It changes
// the packets in place. Packets with the same way out keep their order.
func (r *Router) forward(in *port, bufs [][]byte, b *batch) {
	for len(bufs) > overlay.BatchSize {
		r.forward(in, bufs[:overlay.BatchSize], b)
		bufs = bufs[overlay.BatchSize:]
	}
	t := r.table.Load()
	from := t.sources[in]
	taps := r.taps.Load()
	if taps != nil {
		r.see(taps, in, bufs, false)
	}
	b.flows.renew(t.version, in)
	if t.policy != nil {
		b.now = ticks(r.clock())
	}
	b.entry = nil
	var bytes uint64
	left, packets := 0, 0
	for _, buf := range bufs {
		bytes += uint64(len(buf) - overlay.Headroom)
		var meta overlay.Meta
		n := 1
		if in.role == Outside {
			overlay.PutMeta(buf, meta) // there is a message's header
		} else if meta = overlay.MetaOf(buf); meta.Piece != 0 {
			n = meta.Packets(len(buf)-overlay.Headroom, ipv4Header)
		}
		packets += n
		out, size, drop := r.route(t, from, in, b, buf[overlay.Headroom:], meta)
		if out == nil {
			if !r.slow.punt(in, buf, meta, drop) {
				b.lost[drop] += n
				if taps != nil {
					r.seeDrop(taps, in, buf, drop)
				}
			}
			continue
		}
		b.kept[left], b.out[left], b.count[left] = buf[:overlay.Headroom+size], out, n
		left++
		if b.entry != nil {
			b.entry.account(b.back, n, size)
			b.entry = nil
		}
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
	for rest := left; rest > 0; {
		out, n, packets := b.split(rest)
		rest -= n
		r.send(taps, out, b.group[:n], packets)
		clear(b.group[:n]) // buffers that are not ours to keep
	}
	clear(b.kept[:left])
}

// split moves those of the first buffers kept that go where the very first
// goes into group, and those that do not to the front. It stores everything
// twice instead of asking where to: which way the next packet goes is what a
// processor cannot guess. packets is how many those in group stand for.
func (b *batch) split(kept int) (out *port, n, packets int) {
	out = b.out[0]
	for i := range kept {
		buf, o, count := b.kept[i], b.out[i], b.count[i]
		b.group[n], b.kept[i-n], b.out[i-n], b.count[i-n] = buf, buf, o, count
		one := 0
		if o == out {
			one = 1
		}
		packets += one * count
		n += one
	}
	return out, n, packets
}

// send writes one group, which stands for a number of packets, and accounts for it.
func (r *Router) send(taps []overlay.Tap, out *port, group [][]byte, packets int) {
	if taps != nil {
		r.see(taps, out, group, true)
	}
	bytes := uint64(0)
	for _, buf := range group {
		bytes += uint64(len(buf) - overlay.Headroom)
	}
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
	addrs := pairOf(pkt, p.v6)
	known := b.flows.slot(addrs)
	out := known.out
	if out == nil || known.pair != addrs {
		if out, drop = t.wayOut(from, in, pkt, p.v6); out == nil {
			if drop == overlay.DropNoRoute && t.policy != nil && in.role != Outside {
				drop = t.refuse(b, pkt, &p) // policy comes before the route
			}
			return nil, 0, drop
		}
		*known = flow{addrs, out}
	}
	if t.policy != nil {
		if drop, ok = t.police(b, in, out, pkt, &p); !ok {
			return nil, 0, drop
		}
	}
	if out.role == Local {
		if drop, ok := p.deliverable(); !ok {
			return nil, 0, drop
		}
	} else if in.role != Local && lastHop(pkt, p.v6) {
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
	if out.role != Local && in.role != Local { // only now: who is refused is quoted as it came
		decrementTTL(pkt, p.v6)
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

// wayOut asks the table about the addresses of a checked packet: where it goes
// or, with no way out, why not.
func (t *table) wayOut(from *sources, in *port, pkt []byte, v6 bool) (*port, overlay.Drop) {
	src, dst := addresses(pkt, v6)
	if from == nil || !from.Contains(src) {
		return nil, overlay.DropSource
	}
	out, ok := t.routes.Lookup(dst)
	if !ok || out == in && (in.role != Outside || !t.passes(src, dst)) {
		return nil, overlay.DropNoRoute
	}
	return out, 0
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
