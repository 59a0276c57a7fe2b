package activate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// pause is how long ports are left alone when one was called and cannot be handed
// over, for want of descriptors.
const pause = 100 * time.Millisecond

// Sockets are ports that were not called yet. They are waited at by one goroutine,
// with epoll(7).
type Sockets struct {
	epoll *os.File
	raw   syscall.RawConn // epoll's

	mu    sync.Mutex
	ports map[int]*port // guarded by mu; by descriptor; nil once closed
}

// port is an open port.
type port struct {
	s      *Sockets
	opened func(*os.File) (io.Closer, error)

	// Guarded by Sockets.mu.
	fd   int       // -1 once it was handed over, or closed
	sock io.Closer // what was handed over; nil before
}

// New makes Sockets without a port, which have to be Run or closed.
func New() (*Sockets, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("activate: epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that os has the runtime's own poller wait for it
		_ = unix.Close(fd)
		return nil, fmt.Errorf("activate: epoll: %w", err)
	}
	s := &Sockets{epoll: os.NewFile(uintptr(fd), "epoll"), ports: make(map[int]*port)}
	if err = s.epoll.SetReadDeadline(time.Time{}); err == nil {
		s.raw, err = s.epoll.SyscallConn()
	}
	if err != nil {
		_ = s.epoll.Close()
		return nil, fmt.Errorf("activate: epoll cannot be waited for: %w", err)
	}
	return s, nil
}

// OpenTCP listens on a port of this host. Its listener is handed to opened with
// its first connection: at most once, not after Close has returned, with locks
// held, so opened must neither block nor call the Sockets. Close also closes the
// listener.
func (s *Sockets) OpenTCP(addr netip.AddrPort, opened func(net.Listener)) (io.Closer, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	defer l.Close() // its duplicate listens on
	return s.add(l, func(f *os.File) (io.Closer, error) {
		l, err := net.FileListener(f)
		if err != nil {
			return nil, err
		}
		opened(l)
		return l, nil
	})
}

// OpenUDP is OpenTCP for a UDP port, whose socket is handed over with its first
// datagram.
func (s *Sockets) OpenUDP(addr netip.AddrPort, opened func(net.PacketConn)) (io.Closer, error) {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	defer pc.Close()
	return s.add(pc, func(f *os.File) (io.Closer, error) {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		opened(pc)
		return pc, nil
	})
}

// add waits at a duplicate of a socket of net's, which costs no goroutine.
func (s *Sockets) add(of syscall.Conn, opened func(*os.File) (io.Closer, error)) (io.Closer, error) {
	raw, err := of.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &port{s: s, opened: opened}
	var fault error
	err = raw.Control(func(fd uintptr) { p.fd, fault = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err == nil {
		err = fault
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = net.ErrClosed
	if s.ports != nil {
		err = s.control(unix.EPOLL_CTL_ADD, p.fd)
	}
	if err != nil {
		_ = unix.Close(p.fd)
		return nil, err
	}
	s.ports[p.fd] = p
	return p, nil
}

func (s *Sockets) control(op, fd int) error {
	var err error
	if e := s.raw.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), op, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}); e != nil {
		return e
	}
	return err
}

// Close gives the port back and closes its socket. Again, it does nothing.
func (p *port) Close() error {
	s := p.s
	s.mu.Lock()
	sock, fd := p.sock, p.fd
	p.sock, p.fd = nil, -1
	if fd >= 0 {
		delete(s.ports, fd)
		_ = s.control(unix.EPOLL_CTL_DEL, fd) // closed, it is out of it anyway
	}
	s.mu.Unlock()
	switch {
	case fd >= 0:
		return unix.Close(fd)
	case sock != nil:
		return sock.Close()
	}
	return nil
}

// Run hands sockets over until ctx ends, then closes the ports that were not
// called and returns nil.
func (s *Sockets) Run(ctx context.Context) error {
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = s.epoll.Close() })
	defer stop()
	events := make([]unix.EpollEvent, 64)
	for ctx.Err() == nil {
		var n int
		var err error
		if e := s.raw.Read(func(epoll uintptr) bool {
			for {
				n, err = unix.EpollWait(int(epoll), events, 0)
				if !errors.Is(err, unix.EINTR) {
					return n > 0 || err != nil
				}
			}
		}); e != nil {
			err = e
		}
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("activate: epoll: %w", err)
		}
		if !s.hand(events[:n]) {
			t := time.NewTimer(pause)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
			}
		}
	}
	return nil
}

// hand hands over the sockets that were called, and reports whether all of them
// could be. One that could not stays, and is tried again.
func (s *Sockets) hand(events []unix.EpollEvent) (all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all = true
	for i := range events {
		p := s.ports[int(events[i].Fd)]
		if p == nil {
			continue // closed meanwhile
		}
		if err := p.hand(); err != nil {
			all = false
		}
	}
	return all
}

// hand makes a socket of net's of a port. It is called with Sockets.mu held.
func (p *port) hand() error {
	// net duplicates a file's descriptor, and to close the file closes its own:
	// so it gets a duplicate, as long as it may fail.
	fd, err := unix.FcntlInt(uintptr(p.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	sock, err := p.opened(f)
	if err != nil {
		return err
	}
	delete(p.s.ports, p.fd)
	_ = p.s.control(unix.EPOLL_CTL_DEL, p.fd) // before it is closed: its duplicates would keep it there
	_ = unix.Close(p.fd)
	p.sock, p.fd = sock, -1
	return nil
}

// Close closes the ports that were not called; no more are opened. Again, it does
// nothing.
func (s *Sockets) Close() error {
	s.mu.Lock()
	left := s.ports
	s.ports = nil
	for _, p := range left {
		_ = unix.Close(p.fd)
		p.fd = -1
	}
	s.mu.Unlock()
	_ = s.epoll.Close() // it may be, and nothing is left in it
	return nil
}
