package router

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// slowPackets bounds what waits for the slow path; what does not fit is lost as
// if there were none. With packets of 64 KiB they are 4 MiB, else some 100 KiB.
const slowPackets = 64

// slowPath does what the fast path cannot do cheaply with a packet that it has
// refused: it answers it with an ICMP error or cuts it into fragments. Anybody
// may punt to it, without waiting; one goroutine, that of Router.Run, works. The
// packets are copies, in memory that is used again.
type slowPath struct {
	free  chan *punted
	queue chan *punted
	limit limiter
	start time.Time
	out   []byte // scratch
	n     slowCounts
}

type slowCounts struct {
	errors, limited, silent, overflow, cut, fragments atomic.Uint64
}

// SlowCount says what came of packets that the fast path refused. Errors and
// Fragments are packets that the Router made: they, and what came in by its
// ports less those Cut, are what went out by its ports and what was dropped.
type SlowCount struct {
	Errors    uint64 // ICMP errors sent
	Limited   uint64 // not sent: over the limit of the source or of the slice
	Silent    uint64 // not sent: nothing is owed about such a packet, or there is no address to say it from
	Overflow  uint64 // not sent or not cut: too many at once
	Cut       uint64 // packets that were cut
	Fragments uint64 // what they were cut into
	Waiting   int    // packets whose turn has not come
}

// A punted packet is one that the fast path refused.
type punted struct {
	in   *port
	drop overlay.Drop
	meta overlay.Meta
	buf  []byte // headroom and packet
}

func newSlowPath(errorRate int) *slowPath {
	s := &slowPath{free: make(chan *punted, slowPackets), queue: make(chan *punted, slowPackets), start: time.Now()}
	s.limit = newLimiter(errorRate)
	for range slowPackets {
		s.free <- new(punted)
	}
	return s
}

func (s *slowPath) count() SlowCount {
	return SlowCount{
		Errors: s.n.errors.Load(), Limited: s.n.limited.Load(), Silent: s.n.silent.Load(), Overflow: s.n.overflow.Load(),
		Cut: s.n.cut.Load(), Fragments: s.n.fragments.Load(),
		Waiting: slowPackets - len(s.free),
	}
}

// punt takes a copy of a packet that route refused for a reason that the slow
// path may have something to do about. It reports whether what becomes of the
// packet is not yet decided, so that it is not to be counted as dropped. What
// goes on here is the least that keeps a flood from costing the fast path more.
func (s *slowPath) punt(in *port, buf []byte, meta overlay.Meta, drop overlay.Drop) (undecided bool) {
	if _, _, ok := answerTo(drop, false); !ok {
		return false
	}
	var x *punted
	select {
	case x = <-s.free:
	default:
		s.n.overflow.Add(1)
		return false
	}
	x.in, x.drop, x.meta = in, drop, meta
	x.buf = append(x.buf[:0], buf...)
	cut := x.cuts() // before the packet is another's
	s.queue <- x    // it has room for all there are
	return cut
}

// cuts reports whether the packet, which the check let pass if it is too big,
// is to be cut.
func (x *punted) cuts() bool {
	pkt := x.buf[overlay.Headroom:]
	return x.drop == overlay.DropTooBig && x.meta.Piece == 0 && mayCut(pkt, pkt[0]>>4 == 6)
}

// serveSlow is the slow path's goroutine.
func (r *Router) serveSlow(ctx context.Context) {
	defer r.readers.Done()
	for {
		select {
		case x := <-r.slow.queue:
			r.handle(x)
		case <-ctx.Done():
			return
		}
	}
}

// drainSlow handles what waits for the slow path and returns.
func (r *Router) drainSlow() {
	for {
		select {
		case x := <-r.slow.queue:
			r.handle(x)
		default:
			return
		}
	}
}

func (r *Router) handle(x *punted) {
	t := r.table.Load()
	from := t.sources[x.in]
	pkt := x.buf[overlay.Headroom:]
	var p info
	_, ok := p.check(pkt)
	if ok && x.cuts() {
		r.cut(t, from, x.in, &p, pkt[:p.length])
	} else if !ok || !p.answerable(pkt) || !r.sendError(t, from, x, &p, pkt) {
		r.slow.n.silent.Add(1)
	}
	x.in = nil
	r.slow.free <- x
}

// sendError answers a packet, whose source is only now sure to be whose it was,
// by the way on which packets to its source go. An error whose way is not clear
// is not owed: that it reports.
func (r *Router) sendError(t *table, from *sources, x *punted, p *info, pkt []byte) (owed bool) {
	src, dst := addresses(pkt, p.v6)
	if from == nil || !from.Contains(src) {
		return false
	}
	self := t.self4
	if p.v6 {
		self = t.self6
	}
	if x.in.role == Local && self.IsValid() {
		self = dst // the node's stack takes nothing from its own address
	}
	out, known := t.routes.Lookup(src)
	typ, code, owed := answerTo(x.drop, p.v6)
	if !self.IsValid() || !known || !owed || x.in.role != Local && out.role == Local {
		return false
	}
	size := p.length
	if x.meta.Piece != 0 {
		if size, known = p.pieceSize(pkt, x.meta); !known || size > p.length {
			return false
		}
		pkt = firstPiece(pkt, p.v6, size)
	}
	if !r.slow.limit.allow(src, int64(time.Since(r.slow.start))) {
		r.slow.n.limited.Add(1)
		return true
	}
	s := r.slow
	s.out = appendError(append(s.out[:0], make([]byte, overlay.Headroom)...), self, src, typ, code, r.mtu, pkt[:size])
	s.n.errors.Add(1)
	r.send(r.taps.Load(), out, [][]byte{s.out}, 1)
	return true
}

// cut does what is left of route for a packet that is too big and sends it in
// fragments.
func (r *Router) cut(t *table, from *sources, in *port, p *info, pkt []byte) {
	out, drop := t.wayOut(from, in, pkt, p.v6)
	switch {
	case out == nil:
	case out.role != Local && in.role != Local && !decrementTTL(pkt, p.v6):
		out, drop = nil, overlay.DropTTL
	}
	if out == nil {
		r.drops.Add(drop, 1)
		if taps := r.taps.Load(); taps != nil {
			r.seeDrop(taps, in, append(make([]byte, overlay.Headroom), pkt...), drop)
		}
		return
	}
	s := r.slow
	s.n.cut.Add(1)
	for done, size := 0, len(pkt)-ipv4Header; done < size; {
		s.out = append(s.out[:0], make([]byte, overlay.Headroom)...)
		s.out, done = appendFragment(s.out, pkt, done, r.mtu)
		s.n.fragments.Add(1)
		r.send(r.taps.Load(), out, [][]byte{s.out}, 1)
	}
}

// addresses returns the source and the destination of a checked packet.
func addresses(pkt []byte, v6 bool) (src, dst netip.Addr) {
	if v6 {
		return netip.AddrFrom16([16]byte(pkt[8:24])), netip.AddrFrom16([16]byte(pkt[24:40]))
	}
	return netip.AddrFrom4([4]byte(pkt[12:16])), netip.AddrFrom4([4]byte(pkt[16:20]))
}
