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

// readBytes ends a batch: what is read together is handed on together, and more
// would no longer be in the processor's cache when it is.
const readBytes = 128 << 10

// reader takes packets from the device, each with one readv: its headers into
// head, the packet into the caller's buffer. A packet that stands for several
// stays what it is; the buffer's Meta says so.
type reader struct {
	p     *Port
	mu    sync.Mutex
	check segment.Cutter // only begins: to know that whoever cuts will succeed

	head [vnetLen + ethLen]byte
	over [1]byte // of a packet that is longer than the buffer
	iov  [3]unix.Iovec
	wait bool // for a packet, when there is none
	n    int
	err  syscall.Errno
	fn   func(fd uintptr) bool
}

func (r *reader) init(p *Port) {
	r.p = p
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
	most, bytes := min(len(bufs), len(sizes)), 0
	for n := 0; ; {
		if n == most || bytes >= readBytes {
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
			bytes += size
			n++
		}
	}
}

// receive takes one packet from the device. The size is that of a packet now
// in buf, or 0 when it is of no use; more is false if there was nothing to take
// and wait is false, too.
func (r *reader) receive(buf []byte, wait bool) (size int, more bool, err error) {
	p := r.p
	head, dst := r.head[:p.frame.len()], buf[overlay.Headroom:]
	dst = dst[:min(len(dst), overlay.MaxPacket)]
	r.iov[0].Base = &r.head[0]
	r.iov[0].SetLen(len(head))
	r.iov[1].Base = &dst[0]
	r.iov[1].SetLen(len(dst))
	r.iov[2].Base = &r.over[0]
	r.iov[2].SetLen(len(r.over))
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
	if n > len(dst) {
		p.drops.Lose(overlay.DropTooBig, 1, 0, dst)
		return 0, true, nil
	}
	meta, drop := r.sort(head, dst[:n])
	if drop != overlay.NumDrops {
		p.drops.Lose(drop, 1, 0, dst[:n])
		return 0, true, nil
	}
	overlay.PutMeta(buf, meta)
	return n, true, nil
}

// sort decides about a packet: what it is, or why it is lost.
func (r *reader) sort(head, pkt []byte) (meta overlay.Meta, drop overlay.Drop) {
	p := r.p
	if p.frame.eth && !carriesIP(head[len(head)-ethLen:], pkt) {
		return meta, overlay.DropProtocol
	}
	var v vnet
	if p.frame.vnet {
		v = parseVnet(head)
	}
	if v.whole() {
		switch {
		case len(pkt) > p.mtu:
			return meta, overlay.DropTooBig
		case !v.finish(pkt, p.frame.link()):
			return meta, overlay.DropMalformed
		}
		return meta, overlay.NumDrops
	}
	if !v.cut(&r.check, pkt) {
		return meta, overlay.DropMalformed
	}
	size := r.check.PieceSize()
	r.check.Stop()
	if size > p.mtu {
		return meta, overlay.DropTooBig
	}
	return overlay.Meta{Piece: v.gsoSize}, overlay.NumDrops
}
