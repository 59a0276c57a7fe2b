package lab

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

const (
	backlog      = 1024    // streams that wait to be accepted
	streamBuffer = 4 << 20 // bytes on their way to a reader; then the writer waits
	synFirst     = time.Second
	streamOnWay  = 1 // cost of a stream in a listener's inbox
	finCost      = 1
)

// A listener is a socket that takes streams.
type listener struct {
	host *Host
	at   netip.AddrPort
	in   inbox[*stream]
}

func newListener(h *Host, at netip.AddrPort) *listener {
	l := &listener{host: h, at: at}
	l.in.init()
	return l
}

// Accept waits for a stream.
func (l *listener) Accept() (net.Conn, error) {
	s, err := l.in.take(func(now, _ time.Time) time.Time { return l.host.awake(now) })
	if err != nil {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
	}
	return s, nil
}

// Close ends Accept and frees the port.
func (l *listener) Close() error {
	l.in.close()
	l.host.mu.Lock()
	defer l.host.mu.Unlock()
	if l.host.listeners[l.at.Port()] == l {
		delete(l.host.listeners, l.at.Port())
	}
	return nil
}

// Addr returns where the socket is bound.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.at) }

// Dial opens a stream to addr. Its first packet is repeated after one, two, four
// seconds as long as nothing comes back.
func (h *Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	for again := synFirst; ; again *= 2 {
		wait, answered := h.handshake(addr.Addr())
		if !answered {
			wait = again
		}
		if err := pause(ctx, wait); err != nil {
			return fail(errDeadline)
		}
		if h.off() {
			return fail(syscall.ENETDOWN)
		}
		if !answered {
			continue
		}
		there := h.network.host(addr.Addr())
		if there == nil {
			continue
		}
		l := there.listenerAt(addr.Port())
		if l == nil {
			return fail(syscall.ECONNREFUSED)
		}
		near, far := connect(h, there, addr.Port())
		if l.in.put(time.Now(), far, streamOnWay, backlog) {
			h.network.streams.Add(1)
			return near, nil
		}
		_ = near.abandon()
		_ = far.abandon()
	}
}

// handshake returns how long a first packet and its answer take, if both come.
func (h *Host) handshake(to netip.Addr) (wait time.Duration, answered bool) {
	there := h.network.host(to)
	if there == nil {
		return 0, false
	}
	answered = true
	for _, way := range []flow{{h.addr, to, true}, {to, h.addr, true}} {
		link := h.network.link(way.from, way.to)
		h.network.roll(way, func(rng *rand.Rand) {
			wait += link.delay(rng)
			answered = answered && !link.Cut && rng.Float64() >= link.Loss && rng.Float64() >= link.Corrupt
		})
	}
	now := time.Now()
	return max(wait, there.awake(now).Sub(now)), answered
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A stream is one end of a connection.
type stream struct {
	host  *Host
	local netip.AddrPort
	peer  *stream
	in    inbox[[]byte] // nil bytes: the other end was closed

	reading sync.Mutex // held by Read; guards rest and ended
	rest    []byte     // read from in, but not yet given out
	ended   bool

	mu    sync.Mutex // guards what follows
	last  time.Time  // when the last of what was written arrives
	until time.Time  // deadline of Write
}

// connect makes both ends of a connection to a port of another host.
func connect(h, there *Host, port uint16) (near, far *stream) {
	h.mu.Lock()
	h.lastPort = max(h.lastPort+1, 1024)
	near = &stream{host: h, local: netip.AddrPortFrom(h.addr, h.lastPort)}
	h.streams[near] = struct{}{}
	h.mu.Unlock()
	far = &stream{host: there, local: netip.AddrPortFrom(there.addr, port)}
	there.mu.Lock()
	there.streams[far] = struct{}{}
	there.mu.Unlock()
	near.peer, far.peer = far, near
	near.in.init()
	far.in.init()
	return near, far
}

// hold keeps up what is due while this host is stalled or the link is cut
// either way, and tries again as seldom as a sender would.
func (s *stream) hold(now, due time.Time) time.Time {
	n, from, to := s.host.network, s.peer.host.addr, s.host.addr
	if n.link(from, to).Cut || n.link(to, from).Cut {
		return now.Add(min(max(now.Sub(due), rtoFirst), rtoMax))
	}
	return s.host.awake(now)
}

// Read gives out what has arrived.
func (s *stream) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	if s.ended {
		return 0, io.EOF
	}
	if len(s.rest) == 0 {
		v, err := s.in.take(s.hold)
		if err != nil {
			return 0, &net.OpError{Op: "read", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
		}
		if v == nil {
			s.ended = true
			return 0, io.EOF
		}
		s.rest = v
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends b. It waits only when the other end has too much to read.
func (s *stream) Write(b []byte) (int, error) {
	fail := func(err error) (int, error) {
		return 0, &net.OpError{Op: "write", Net: "tcp", Addr: s.RemoteAddr(), Err: err}
	}
	if len(b) == 0 {
		return 0, nil
	}
	for {
		s.mu.Lock()
		until := s.until
		s.mu.Unlock()
		switch {
		case s.in.closed():
			return fail(net.ErrClosed)
		case !until.IsZero() && !time.Now().Before(until):
			return fail(errDeadline)
		case s.peer.host.off():
			return len(b), nil // nobody says that nobody is there
		case s.peer.in.closed():
			return fail(syscall.EPIPE)
		case s.send(append([]byte{}, b...), len(b)):
			s.host.network.streamBytes.Add(uint64(len(b)))
			return len(b), nil
		}
		wait := time.Hour
		if !until.IsZero() {
			wait = time.Until(until)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.peer.in.room:
		case <-s.peer.in.done:
		case <-s.in.done:
		}
		timer.Stop()
	}
}

// send puts bytes, or with nil the end, on their way.
func (s *stream) send(b []byte, cost int) bool {
	way := flow{s.host.addr, s.peer.host.addr, true}
	link := s.host.network.link(way.from, way.to)
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.host.awake(time.Now())
	if link != (Link{}) {
		s.host.network.roll(way, func(rng *rand.Rand) { at = at.Add(link.delay(rng) + link.resend(rng, len(b))) })
	}
	if at.Before(s.last) {
		at = s.last // in order
	}
	limit := streamBuffer + len(b) // one write of any size fits an empty buffer
	if b == nil {
		limit = 0
	}
	if !s.peer.in.put(at, b, cost, limit) {
		return false
	}
	s.last = at
	return true
}

// Close closes this end; the other one reads what was written before.
func (s *stream) Close() error {
	if !s.in.closed() {
		s.send(nil, finCost)
	}
	return s.abandon()
}

// abandon closes this end without a word.
func (s *stream) abandon() error {
	s.in.close()
	s.host.mu.Lock()
	delete(s.host.streams, s)
	s.host.mu.Unlock()
	return nil
}

// LocalAddr returns this end's address.
func (s *stream) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(s.local) }

// RemoteAddr returns the other end's address.
func (s *stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.peer.local) }

// SetDeadline bounds how long Read and Write wait.
func (s *stream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline bounds how long Read waits.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.in.setDeadline(t)
	return nil
}

// SetWriteDeadline bounds how long Write waits.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	s.until = t
	s.mu.Unlock()
	return nil
}
