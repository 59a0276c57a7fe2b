//go:build unix

package publish

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// receive waits for a datagram without a buffer: a thousand flows that wait
// would else pin 64 KiB each. The buffer is the caller's to put back, unless
// there is an error.
func (p *Publisher) receive(conn net.Conn) (buf *[maxDatagram]byte, n int, err error) {
	if kernel, is := conn.(*net.UDPConn); is {
		return p.receiveKernel(kernel)
	}
	if a, is := conn.(Awaiter); is {
		if err := a.Await(); err != nil {
			return nil, 0, err
		}
	}
	buf = p.lend()
	if n, err = conn.Read(buf[:]); err != nil {
		p.bufs.Put(buf)
		return nil, 0, err
	}
	return buf, n, nil
}

// An Awaiter is a socket that can wait, until its read deadline, for something
// to read: nil means that Read does not wait, be it for an error.
type Awaiter interface{ Await() error }

func (p *Publisher) receiveKernel(conn *net.UDPConn) (buf *[maxDatagram]byte, n int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, 0, err
	}
	var fault error
	err = raw.Read(func(fd uintptr) bool {
		buf = p.lend()
		for {
			n, fault = syscall.Read(int(fd), buf[:])
			if !errors.Is(fault, syscall.EINTR) {
				break
			}
		}
		if fault == nil {
			return true
		}
		p.bufs.Put(buf)
		buf = nil
		return !errors.Is(fault, syscall.EAGAIN)
	})
	if err != nil { // closed or past its deadline, and nothing was read
		return nil, 0, err
	}
	if fault != nil {
		return nil, 0, os.NewSyscallError("read", fault)
	}
	return buf, n, nil
}
