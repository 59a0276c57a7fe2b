package netstack

import (
	"encoding/hex"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A Link moves whole IP packets between two layers, in batches; the packet in
// bufs[i] starts at overlay.Headroom. It is the seam that the router serves.
type Link interface {
	Read(bufs [][]byte, sizes []int) (n int, err error)
	Write(bufs [][]byte) error
	Close() error
}

// Link returns the stack's side of the slice. Read yields what the stack sends,
// with complete checksums unless a packet stands for several (overlay.Meta), and
// needs room for any packet in each buffer; Write takes packets for the
// stack, as the router's check let them pass; others are dropped. Close closes
// the Stack.
func (st *Stack) Link() Link { return (*link)(st) }

type link Stack

func (l *link) Read(bufs [][]byte, sizes []int) (int, error) { return l.out.read(bufs, sizes) }
func (l *link) Close() error                                 { return (*Stack)(l).Close() }

func (l *link) Write(bufs [][]byte) error {
	if l.closed.Load() {
		return net.ErrClosed
	}
	for len(bufs) > overlay.BatchSize {
		l.in.put(bufs[:overlay.BatchSize])
		bufs = bufs[overlay.BatchSize:]
	}
	l.in.put(bufs)
	return nil
}

// inlet takes packets into the stack.
type inlet struct {
	st                *Stack
	trusted, checking *endpoint
	pool              sync.Pool // *intake
	logOnce           sync.Once

	mu    sync.Mutex
	parts *assembler // guarded by mu
}

// intake is the scratch space of one batch.
type intake struct {
	pkts  [overlay.BatchSize][]byte
	runs  segment.Runs
	check segment.Cutter
}

func newInlet(st *Stack, trusted, checking *endpoint) *inlet {
	in := &inlet{st: st, trusted: trusted, checking: checking, parts: newAssembler(&st.out.drops)}
	in.pool.New = func() any { return new(intake) }
	return in
}

// put hands one batch to the stack.
func (in *inlet) put(bufs [][]byte) {
	w := in.pool.Get().(*intake)
	w.runs.Reset()
	rejected := 0
	for i, b := range bufs {
		w.pkts[i] = b[overlay.Headroom:]
		if m := overlay.MetaOf(b); m.Piece != 0 {
			// Of a workload on this node. Its kernel vouches for the data as a
			// network card does; whether it can be cut, and is what it says, is ours.
			if w.check.Start(w.pkts[i], segment.IsTCP(w.pkts[i]), int(m.Piece)) {
				in.deliverRuns(w) // none of its flow may come after it that was before
				in.deliver(in.trusted, w.pkts[i], nil, w.pkts[:])
			} else {
				rejected++
			}
			continue
		}
		s, v := segment.Verify(w.pkts[i])
		switch v {
		case segment.Reject:
			rejected++
		case segment.Unknown:
			if f, is := parseFragment(w.pkts[i]); is {
				rejected += in.join(f)
				continue
			}
			in.deliver(in.checking, w.pkts[i], nil, w.pkts[:])
		case segment.Trusted:
			w.runs.Add(i, w.pkts[:], s)
		}
	}
	if rejected > 0 {
		in.st.out.drops.Add(overlay.DropMalformed, rejected)
	}
	in.deliverRuns(w)
	w.check.Stop()
	clear(w.pkts[:len(bufs)])
	in.pool.Put(w)
}

// join keeps a fragment until its datagram is whole, and then hands that over.
// It returns how many packets were rejected.
func (in *inlet) join(f fragment) int {
	in.mu.Lock()
	whole := in.parts.add(f, time.Now())
	in.mu.Unlock()
	if whole == nil {
		return 0
	}
	switch _, v := segment.Verify(whole); v {
	case segment.Trusted:
		in.deliver(in.trusted, whole, nil, nil)
	case segment.Unknown:
		in.deliver(in.checking, whole, nil, nil)
	default:
		return 1
	}
	return 0
}

// deliverRuns hands over what was gathered so far.
func (in *inlet) deliverRuns(w *intake) {
	for i := range w.runs.All() {
		r := &w.runs.All()[i]
		in.deliver(in.trusted, w.pkts[r.First], r, w.pkts[:])
	}
	w.runs.Reset()
}

// deliver copies a packet, or the run that starts with it, into the stack's
// memory and hands it over. A panic of the stack loses the packet and no more.
func (in *inlet) deliver(e *endpoint, pkt []byte, r *segment.Run, pkts [][]byte) {
	defer in.survive(pkt)
	size := len(pkt)
	if r != nil {
		size = r.Total
	}
	view := buffer.NewViewSize(size)
	if r != nil {
		r.Fill(view.AsSlice(), pkts)
	} else {
		copy(view.AsSlice(), pkt)
	}
	pb := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(view)})
	pb.NetworkProtocolNumber = header.IPv4ProtocolNumber
	if pkt[0]>>4 == 6 {
		pb.NetworkProtocolNumber = header.IPv6ProtocolNumber
	}
	defer pb.DecRef()
	e.deliver(pb)
}

// survive ends a panic. The first is logged with the packet's headers, which is
// what a regression test needs; payload is nobody's business.
func (in *inlet) survive(pkt []byte) {
	p := recover()
	if p == nil {
		return
	}
	in.st.panics.Add(1)
	in.logOnce.Do(func() {
		in.st.log.Error("network stack panic", "err", p,
			"packet", hex.EncodeToString(pkt[:min(len(pkt), maxHeaders)]), "stack", string(debug.Stack()))
	})
}
