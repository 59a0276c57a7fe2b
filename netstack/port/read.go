//go:build linux

package port

import (
	"fmt"
	"net"
	"sync"
	"syscall"
	"unsafe"

	"slicewire/netstack/segment"
	"slicewire/overlay"

	"golang.org/x/sys/unix"
)

// reader takes packets from the device. Stages of one packet:
//  1. one readv into the scratch header, the caller's buffer, and big behind it;
//  2. a packet of at most the MTU is then where it belongs;
//  3. a larger one is made contiguous in big, and cut into the buffers.
type reader struct {
	p   *Port
	mu  sync.Mutex
	cut segment.Cutter
	big []byte // a packet of any size

	head [vnetLen + ethLen]byte
	iov  [3]unix.Iovec
	wait bool // for a packet, when there is none
	n    int
	err  syscall.Errno
	fn   func(fd uintptr) bool
}

func (r *reader) init(p *Port) {
	r.p = p
	r.big = make([]byte, overlay.MaxPacket+1) // one more, to notice a longer one
	r.fn = r.readv
}

// readv is what the runtime calls with the descriptor, again when it is readable.
func (r *reader) readv(fd uintptr) bool {
	iov := r.iov[:]
	if r.p.frame.len() == 0 {
		iov = iov[1:]
	}
	for {
		n, _, err := unix.Syscall(unix.SYS_READV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if err == unix.EINTR {
			continue
		}
		r.n, r.err = int(n), err
		return err != unix.EAGAIN || !r.wait
	}
}

func (r *reader) read(bufs [][]byte, sizes []int) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	most := min(len(bufs), len(sizes))
	for n := 0; ; {
		for n < most && r.cut.Busy() {
			size := r.cut.Next(bufs[n][overlay.Headroom:])
			if size == 0 {
				r.p.drops.Add(overlay.DropTooBig, 1)
				break
			}
			sizes[n] = size
			n++
		}
		if n == most {
			return n, nil
		}
		size, more, err := r.receive(bufs[n], n == 0)
		switch {
		case err != nil && n == 0:
			return 0, err
		case err != nil || !more: // an error comes back with the next Read
			return n, nil
		case size > 0:
			sizes[n] = size
			n++
		}
	}
}

// receive takes one packet from the device. The size is that of a packet now
// in buf, or 0 when there is something to cut or nothing of use; more is false
// if there was nothing to take and wait is false, too.
func (r *reader) receive(buf []byte, wait bool) (size int, more bool, err error) {
	p := r.p
	head, dst := r.head[:p.frame.len()], buf[overlay.Headroom:]
	dst = dst[:min(len(dst), p.mtu)]
	r.iov[0].Base = &r.head[0]
	r.iov[0].SetLen(len(head))
	r.iov[1].Base = &dst[0]
	r.iov[1].SetLen(len(dst))
	r.iov[2].Base = &r.big[len(dst)]
	r.iov[2].SetLen(len(r.big) - len(dst))
	r.wait = wait
	err = p.raw.Read(r.fn)
	r.iov[1].Base = nil // the caller's
	if err != nil {     // it has no other: no deadline is ever set
		return 0, false, net.ErrClosed
	}
	switch r.err {
	case 0:
		p.down.Store(false)
	case unix.EAGAIN:
		return 0, false, nil
	case unix.ENETDOWN:
		if !p.down.Swap(true) {
			p.log.Warn("interface is down", "port", p.name)
		}
		return 0, true, nil
	default:
		return 0, false, fmt.Errorf("port %s: read: %w", p.name, r.err)
	}
	n := r.n - len(head)
	if n <= 0 {
		p.drops.Add(overlay.DropMalformed, 1)
		return 0, true, nil
	}
	size, drop := r.sort(head, dst, n)
	if drop != overlay.NumDrops {
		p.drops.Add(drop, 1)
	}
	return size, true, nil
}

// sort decides about a packet of n bytes that begins in dst and goes on in big:
// its size when it stays in dst, 0 when the cutter has it, or why it is lost.
func (r *reader) sort(head, dst []byte, n int) (int, overlay.Drop) {
	p, inPlace := r.p, dst[:min(n, len(dst))]
	if p.frame.eth && !carriesIP(head[len(head)-ethLen:], inPlace) {
		return 0, overlay.DropProtocol
	}
	var v vnet
	if p.frame.vnet {
		v = parseVnet(head)
	}
	if v.whole() {
		switch {
		case n > len(dst):
			return 0, overlay.DropTooBig
		case !v.finish(inPlace, p.frame.link()):
			return 0, overlay.DropMalformed
		}
		return n, overlay.NumDrops
	}
	if n > overlay.MaxPacket {
		return 0, overlay.DropTooBig
	}
	copy(r.big, inPlace)
	if !v.cut(&r.cut, r.big[:n]) {
		return 0, overlay.DropMalformed
	}
	if r.cut.PieceSize() > p.mtu {
		r.cut.Stop()
		return 0, overlay.DropTooBig
	}
	return 0, overlay.NumDrops
}
