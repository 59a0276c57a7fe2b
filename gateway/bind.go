package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"

	"slicewire/overlay"
)

// A bind is one slice's part of the mux: what its WireGuard device takes for a
// socket.
type bind struct {
	mux      *mux
	drops    *overlay.Drops
	outside  *governor // given back when packets are sent
	inside   *governor // taken when packets are received
	mac1     atomic.Pointer[mac1]
	fresh    func() // a handshake message passed that may open a session
	crossing crossing
	taps     *overlay.Taps
	slice    string
	classes  bool // outer datagrams have traffic classes

	pending []run // the mux reader's own

	ready chan struct{} // capacity 1: the queue is no longer empty

	mu     sync.Mutex
	queue  queue
	lead   lead
	done   chan struct{} // closed by Close; nil before Open
	isOpen bool
}

var _ conn.Bind = (*bind)(nil)

// Open makes the slice ready to receive. The port is the shared socket's,
// whatever is asked for.
func (b *bind) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isOpen {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	b.isOpen = true
	b.done = make(chan struct{})
	r := &receiver{bind: b, done: b.done}
	return []conn.ReceiveFunc{r.receive}, 0, nil
}

// Close ends the receiver with net.ErrClosed and drops what waits for it.
func (b *bind) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isOpen {
		return nil
	}
	b.isOpen = false
	close(b.done)
	switch b.lead {
	case leadReading:
		b.mux.out.interrupt()
	case leadHeld:
		b.giveBackLocked()
	}
	for _, r := range b.queue.pop(nil, queuePackets+queueReserve) {
		b.drops.Add(overlay.DropClosed, r.packets())
		r.buf.release()
	}
	return nil
}

// SetMark does nothing: the socket is shared and was handed in.
func (b *bind) SetMark(uint32) error { return nil }

func (b *bind) BatchSize() int { return overlay.BatchSize }

func (b *bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	addr, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, fmt.Errorf("parse endpoint %q: %w", s, err)
	}
	return b.mux.ends.get(netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())), nil
}

// Send sends without waiting and reports no loss, which is counted: WireGuard
// would only log it, per packet.
func (b *bind) Send(bufs [][]byte, to conn.Endpoint) error {
	e, ok := to.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	if len(bufs) == 1 && messageType(bufs[0]) == typeInitiation && !b.crossing.send(e.addr, b.mux.now()) {
		return nil // the peer's own is being answered; the next greeting sees to it if that fails
	}
	data := 0
	for _, p := range bufs {
		if carriesPacket(p) {
			data++
		} else {
			b.learn(p)
		}
	}
	if taps := b.taps.Load(); taps != nil {
		b.see(taps, bufs, e.addr)
	}
	if lost := b.mux.out.send(bufs, e); lost > 0 {
		b.drops.Add(overlay.DropSendError, lost)
	}
	b.outside.give(data)
	return nil
}

// answering reports whether the device is answering an initiation of the peer
// that has these endpoints.
func (b *bind) answering(at []netip.AddrPort) bool { return b.crossing.answering(at, b.mux.now()) }

// learn notes the index under which we will be answered.
func (b *bind) learn(p []byte) {
	switch messageType(p) {
	case typeInitiation:
		b.mux.index.learn(senderIndex(p), b, b.mux.seconds(), awaitedSeconds)
	case typeResponse:
		b.mux.index.learn(senderIndex(p), b, b.mux.seconds(), agreedSeconds)
		b.fresh()
	}
}

// deliver queues runs; what does not fit is dropped and counted.
func (b *bind) deliver(runs []run) {
	b.mu.Lock()
	if taps := b.taps.Load(); taps != nil {
		b.seeRuns(taps, runs)
	}
	reason := overlay.DropQueueFull
	if !b.isOpen {
		reason = overlay.DropClosed
	}
	for _, r := range runs {
		if !b.isOpen || !b.queue.push(r) {
			b.drops.Add(reason, r.packets())
			r.buf.release()
		}
	}
	reading := b.lead == leadReading
	b.mu.Unlock()
	if !reading { // else the receiver itself is here, and will look
		b.wake()
	}
}

// wake makes the receiver look again.
func (b *bind) wake() {
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// A receiver is the reading end of an open bind.
type receiver struct {
	bind *bind
	done <-chan struct{}
	runs []run // scratch
}

// receive is a conn.ReceiveFunc.
func (r *receiver) receive(packets [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	b := r.bind
	for {
		if !b.inside.room() {
			b.giveBack()
			if !b.inside.wait(r.done) {
				return 0, net.ErrClosed
			}
		}
		b.mu.Lock()
		select {
		case <-r.done:
			b.mu.Unlock()
			return 0, net.ErrClosed
		default:
		}
		r.runs = b.queue.pop(r.runs[:0], len(packets))
		reads := len(r.runs) == 0 && b.lead == leadHeld
		if reads {
			b.lead = leadReading
		}
		b.mu.Unlock()
		if len(r.runs) > 0 {
			return r.copyOut(packets, sizes, eps), nil
		}
		if reads {
			b.readSelf()
			continue
		}
		select {
		case <-b.ready:
		case <-r.done:
			return 0, net.ErrClosed
		}
	}
}

func (r *receiver) copyOut(packets [][]byte, sizes []int, eps []conn.Endpoint) int {
	n, data := 0, 0
	for i := range r.runs {
		run := &r.runs[i]
		for off := run.off; off < run.end; off += run.size {
			sizes[n] = copy(packets[n], run.buf.b[off:min(off+run.size, run.end)])
			eps[n] = run.from
			if r.bind.classes {
				putInner(packets[n], sizes[n], run.tos)
			}
			if run.data && sizes[n] > keepaliveBytes {
				data++
			}
			n++
		}
		run.buf.release()
		r.runs[i].buf, r.runs[i].from = nil, nil
	}
	r.bind.inside.take(data)
	return n
}
