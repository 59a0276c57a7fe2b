package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// socketBufferBytes for each direction: what wireguard-go asks for. With the
	// default of 208 KiB a single TCP stream of 1 Gbit/s already loses packets.
	socketBufferBytes = 7 << 20
	// receiveBatch datagrams (or trains) at most with one recvmmsg.
	receiveBatch = 32
	// controlBytes hold one UDP_GRO control message, and are aligned like it.
	controlBytes = 64
)

// mmsghdr is struct mmsghdr; the compiler pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
}

// A socket is the transport over one UDP socket, of either family, for both
// families if it is dual-stack.
type socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	log   *slog.Logger
	inet6 bool // an AF_INET6 socket: IPv4 addresses are mapped
	only6 bool // and it cannot reach IPv4
	gso   atomic.Bool

	classes atomic.Bool // datagrams are sent and received with their traffic class

	rx rxCall
	tx sync.Pool // of *txCall
}

// newSocket prepares the socket; buffers and offloads are set as far as the
// kernel grants them.
func newSocket(conn *net.UDPConn, log *slog.Logger) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("use udp socket: %w", err)
	}
	s := &socket{conn: conn, raw: raw, log: log}
	s.rx.init()
	s.tx.New = func() any { return newTxCall() }
	var domain, only6, gotRx, gotTx int
	var domainErr error
	err = raw.Control(func(fd uintptr) {
		domain, domainErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
		if domain == unix.AF_INET6 {
			only6, _ = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) // 0 if unknown: both
		}
		gotRx = setBuffer(int(fd), unix.SO_RCVBUFFORCE, unix.SO_RCVBUF)
		gotTx = setBuffer(int(fd), unix.SO_SNDBUFFORCE, unix.SO_SNDBUF)
		letRoutersCut(int(fd))
		// Both are optional: without UDP_GRO datagrams arrive one by one.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_GRO, 1)
		_, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		s.gso.Store(err == nil)
	})
	if err = errors.Join(err, domainErr); err != nil {
		return nil, fmt.Errorf("use udp socket: %w", err)
	}
	s.inet6, s.only6 = domain == unix.AF_INET6, only6 != 0
	if min(gotRx, gotTx) < socketBufferBytes {
		log.Info("udp socket buffers are smaller than asked for; bursts may be lost (net.core.rmem_max, wmem_max)",
			"asked", socketBufferBytes, "receive", gotRx, "send", gotTx)
	}
	return s, nil
}

// setBuffer sets a socket buffer, beyond the system's limit if we may, and
// returns the size in force. The kernel doubles what is asked for, to account
// for its own overhead.
func setBuffer(fd, force, opt int) int {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBufferBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, opt, socketBufferBytes) // what we got is read below
	}
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
	if err != nil {
		return 0
	}
	return n / 2
}

// letRoutersCut sends IPv4 without the DF bit, as the kernel's own WireGuard
// does. With it, which is Linux's default, a way that is narrower than the
// links at its ends loses every full packet, and nobody learns of it where ICMP
// is filtered: streams would stand still for ever. Cut packets are slower, but
// arrive; what fragments are mistaken for each other, authentication finds.
//
// OMIT rather than DONT: without DF nobody has to tell a path's MTU, and what
// strangers tell would let them slow a tunnel down. IPv6 keeps its default, for
// there only the sender may cut, by what it is told.
func letRoutersCut(fd int) {
	// Of an IPv6 socket this concerns IPv4 that goes through it. A system that
	// does not know it leaves the default, which serves on most ways.
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_OMIT)
}

// A deadline in the past is how Go's network poller is left; once the socket is
// closed there is nothing to leave.
func (s *socket) interrupt() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }
func (s *socket) resume()    { _ = s.conn.SetReadDeadline(time.Time{}) }

func (s *socket) close() error { return s.conn.Close() }

// lost returns how many datagrams the kernel dropped because the receive
// buffer was full.
func (s *socket) lost() uint64 {
	const skMeminfoDrops, vars = 8, 9 // linux/sock_diag.h
	var info [vars]uint32
	_ = s.raw.Control(func(fd uintptr) { // closed: none
		n := uint32(unsafe.Sizeof(info))
		_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
			uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&n)), 0)
	})
	return uint64(info[skMeminfoDrops])
}

// rxCall is the memory of a recvmmsg, reused for ever.
type rxCall struct {
	hdrs  [receiveBatch]mmsghdr
	iovs  [receiveBatch]unix.Iovec
	names [receiveBatch][unix.SizeofSockaddrInet6]byte
	ctrl  [receiveBatch][controlBytes]byte
	used  int // how many the last call filled; only these need care

	want  int
	n     int
	errno syscall.Errno
	call  func(fd uintptr) bool // bound once: a method value would be allocated each time
}

func (c *rxCall) init() {
	c.used = receiveBatch
	c.call = c.recvmmsg
	for i := range c.hdrs {
		h := &c.hdrs[i].hdr
		h.Name = &c.names[i][0]
		h.Iov = &c.iovs[i]
		h.SetIovlen(1)
		h.Control = &c.ctrl[i][0]
	}
}

func (c *rxCall) recvmmsg(fd uintptr) bool {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&c.hdrs[0])), uintptr(c.want),
			unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		c.n, c.errno = int(n), errno
		return errno != unix.EAGAIN
	}
}

func (s *socket) receive(into []datagram) (int, error) {
	c := &s.rx
	c.want = min(len(into), receiveBatch)
	for i := range c.used {
		if i < len(into) {
			c.iovs[i].Base = &into[i].buf.b[0]
			c.iovs[i].SetLen(len(into[i].buf.b))
		}
		h := &c.hdrs[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlBytes)
		h.Flags = 0
	}
	c.used = 0
	if err := s.raw.Read(c.call); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, errInterrupted
		}
		return 0, net.ErrClosed // RawConn.Read fails for no other reason
	}
	if c.errno != 0 {
		return 0, os.NewSyscallError("recvmmsg", c.errno)
	}
	c.used = c.n
	for i := range c.n {
		d, h := &into[i], &c.hdrs[i]
		d.n = int(h.n)
		d.from = parseSockaddr(&c.names[i])
		if h.hdr.Flags&unix.MSG_TRUNC != 0 {
			d.n = 0
		}
		d.size, d.tos = segmentSize(c.ctrl[i][:min(int(h.hdr.Controllen), controlBytes)], d.n)
	}
	return c.n, nil
}

// segmentSize returns the size of the messages in a train of n bytes, n if it
// is no train, and their traffic class, 0 if that is not known.
func segmentSize(ctrl []byte, n int) (each int, tos uint8) {
	each = n
	for len(ctrl) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(ctrl)
		if err != nil {
			break
		}
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 2:
			if size := int(*(*uint16)(unsafe.Pointer(&data[0]))); size > 0 && size < n {
				each = size
			}
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			tos = data[0]
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			tos = uint8(*(*int32)(unsafe.Pointer(&data[0])))
		}
		ctrl = rest
	}
	return each, tos
}
