package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"slicewire/overlay"
)

// receiveFaultsMax is how many receives may fail one after the other before
// the socket is taken for broken.
const receiveFaultsMax = 100

// A mux shares one transport between the slices of a node.
type mux struct {
	out   transport
	log   *slog.Logger
	start time.Time
	local netip.AddrPort // of the socket, as captures show it

	drops   overlay.Drops // of no slice, or before one is known
	trains  bufferPool
	mediums bufferPool
	smalls  bufferPool
	index   index
	ends    endpoints

	binds atomic.Pointer[[]*bind]                 // all slices, for mac1
	known atomic.Pointer[map[netip.Addr]struct{}] // configured endpoints of peers

	back chan struct{} // capacity 1: the lead comes back

	// Of the one that has the lead.
	in      []datagram
	limit   initiationLimit
	touched []*bind
	last    *bind // all of the latest streak receives were for it
	streak  int
}

func newMux(out transport, inet6 bool, log *slog.Logger) *mux {
	m := &mux{
		out: out, log: log, start: time.Now(),
		trains:  bufferPool{size: trainBytes, keep: trainsKept},
		mediums: bufferPool{size: mediumBytes, keep: mediumsKept},
		smalls:  bufferPool{size: smallBytes, keep: smallsKept},
		ends:    endpoints{inet6: inet6},
		back:    make(chan struct{}, 1),
		in:      make([]datagram, receiveBatch),
	}
	for i := range m.in {
		m.in[i].buf = m.trains.get()
	}
	m.binds.Store(new([]*bind))
	m.known.Store(new(map[netip.Addr]struct{}))
	return m
}

// now returns the time since the mux was made: monotonic, and a plain number
// for what decides by time.
func (m *mux) now() time.Duration { return time.Since(m.start) }

func (m *mux) seconds() int64 { return int64(m.now() / time.Second) }

// read takes datagrams from the transport until it is closed, and never waits
// for a slice; it lends the transport to a slice that all of them are for (see
// lead.go). It returns nil once the transport is closed.
func (m *mux) read() error {
	faults := 0
	for {
		only, err := m.take()
		if err == nil {
			faults = 0
			if m.lend(only) {
				<-m.back
			}
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		var errno syscall.Errno
		faults++
		if !errors.As(err, &errno) || faults > receiveFaultsMax {
			return fmt.Errorf("receive outer packets: %w", err)
		}
		// Errors of earlier sends (ICMP) show up here and go away by themselves.
	}
}

// take waits for datagrams and hands them to their slices. It returns the slice
// if all were for one. Only who has the lead calls it.
func (m *mux) take() (only *bind, err error) {
	n, err := m.out.receive(m.in)
	if err != nil {
		return nil, err
	}
	now := m.now()
	for i := range m.in[:n] {
		m.deliver(&m.in[i], now)
	}
	if len(m.touched) == 1 {
		only = m.touched[0]
	}
	m.flush()
	return only, nil
}

// deliver finds the slices of a datagram's messages and appends them to what
// is pending for those. When it keeps d.buf, it puts another in its place.
func (m *mux) deliver(d *datagram, now time.Duration) {
	var hold *buffer // of the runs made
	var from *endpoint
	var cur run
	var to *bind
	closeRun := func(end int) {
		if to == nil {
			return
		}
		if hold == nil {
			hold, from = m.keep(d), m.ends.get(d.from)
		}
		cur.end, cur.buf, cur.from = int32(end), hold, from
		hold.retain()
		m.pend(to, cur)
	}
	if d.n == 0 || !d.from.IsValid() {
		m.drops.Add(overlay.DropMalformed, 1)
		return
	}
	all := d.buf.b // keep may replace d.buf
	for off := 0; off < d.n; off += d.size {
		p := all[off:min(off+d.size, d.n)]
		b, typ := m.route(p, d.from, now)
		data := typ == typeData
		if b == to && data == cur.data {
			continue
		}
		closeRun(off)
		to, cur = b, run{off: int32(off), size: int32(d.size), data: data, tos: d.tos}
	}
	closeRun(d.n)
	if hold != nil {
		hold.release()
	}
}

// keep returns a buffer with what d holds: a copy if it is small, else d's own,
// which is replaced. The reference is the caller's.
func (m *mux) keep(d *datagram) *buffer {
	if d.n <= mediumBytes {
		pool := &m.mediums
		if d.n <= smallBytes {
			pool = &m.smalls
		}
		b := pool.get()
		copy(b.b, d.buf.b[:d.n])
		return b
	}
	b := d.buf
	d.buf = m.trains.get()
	return b
}

// route returns the slice of an outer packet and its message type, or nil if
// it is for none; then it is counted.
func (m *mux) route(p []byte, from netip.AddrPort, now time.Duration) (*bind, uint32) {
	typ := messageType(p)
	switch typ {
	case 0:
		m.drops.Add(overlay.DropMalformed, 1)
		return nil, 0
	case typeInitiation:
		return m.routeInitiation(p, from, now), typ
	}
	b := m.index.find(receiverIndex(p, typ), int64(now/time.Second))
	if b == nil {
		m.drops.Add(overlay.DropUnknownSlice, 1)
		return nil, 0
	}
	if typ == typeResponse {
		b.fresh()
	}
	return b, typ
}

func (m *mux) routeInitiation(p []byte, from netip.AddrPort, now time.Duration) *bind {
	_, known := (*m.known.Load())[from.Addr()]
	if !m.limit.allow(from.Addr(), known, now) {
		m.drops.Add(overlay.DropRateLimited, 1)
		return nil
	}
	for _, b := range *m.binds.Load() {
		if b.mac1.Load().matches(p) {
			if !b.crossing.receive(from, now) {
				return nil // not lost: ours stands for both
			}
			return b
		}
	}
	m.drops.Add(overlay.DropUnknownSlice, 1)
	return nil
}

// pend collects runs for a slice until flush, so that its lock is taken once
// for all that one receive brought.
func (m *mux) pend(to *bind, r run) {
	if len(to.pending) == 0 {
		m.touched = append(m.touched, to)
	}
	to.pending = append(to.pending, r)
}

func (m *mux) flush() {
	for i, b := range m.touched {
		b.deliver(b.pending)
		clear(b.pending)
		b.pending = b.pending[:0]
		m.touched[i] = nil
	}
	m.touched = m.touched[:0]
}
