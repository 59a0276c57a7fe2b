//go:build linux

package port

import (
	"net"
	"syscall"
	"unsafe"

	"slicewire/netstack/segment"
	"slicewire/overlay"

	"golang.org/x/sys/unix"
)

// maxHeaders is an IPv6 header and a TCP header with all options.
const maxHeaders = 40 + 60

// writer is the scratch space of one Write. Data goes to the device from where
// it is; only headers are made here.
type writer struct {
	p    *Port
	bufs [][]byte // the batch, with headroom
	pkts [overlay.BatchSize][]byte
	runs segment.Runs
	lost [overlay.NumDrops]int

	head [vnetLen + ethLen + maxHeaders]byte
	iov  [overlay.BatchSize + 1]unix.Iovec
	fn   func(fd uintptr)
}

func newWriter(p *Port) *writer {
	w := &writer{p: p}
	w.fn = w.send
	return w
}

// write sends one batch.
func (w *writer) write(bufs [][]byte) error {
	for i, b := range bufs {
		w.pkts[i] = b[overlay.Headroom:]
	}
	w.bufs = bufs
	err := w.p.raw.Control(w.fn)
	w.bufs = nil
	clear(w.pkts[:len(bufs)])
	clear(w.iov[:])
	for d, n := range w.lost {
		if n != 0 {
			w.p.drops.Add(overlay.Drop(d), n)
			w.lost[d] = 0
		}
	}
	if err != nil {
		return net.ErrClosed
	}
	return nil
}

// send is what the runtime calls with the descriptor.
func (w *writer) send(fd uintptr) {
	n := len(w.bufs)
	noTCP, noUDP := w.p.noTCP.Load(), w.p.noUDP.Load()
	if n == 1 || !w.p.frame.vnet || noTCP && noUDP {
		for i := range n {
			w.one(fd, i)
		}
		return
	}
	w.runs.Reset()
	w.runs.UDP = !noUDP
	for i := range n {
		s, v := segment.Verify(w.pkts[i])
		if v != segment.Trusted || s.TCP && noTCP {
			s = segment.Shape{} // as it is, and alone: its receiver judges
		}
		w.runs.Add(i, w.pkts[:], s)
	}
	all := w.runs.All()
	for i := range all {
		w.run(fd, &all[i])
	}
}

// one sends packet i alone.
func (w *writer) one(fd uintptr, i int) {
	pkt := w.pkts[i]
	if len(pkt) == 0 {
		w.lost[overlay.DropMalformed]++
		return
	}
	k := w.p.frame.len()
	clear(w.head[:min(k, vnetLen)])
	if w.p.frame.eth {
		putEthernet(w.head[k-ethLen:], &w.p.frame.dst, &w.p.frame.src, pkt)
	}
	iov := w.iov[:0]
	if k > 0 {
		iov = appendIov(iov, w.head[:k])
	}
	w.count(writev(fd, appendIov(iov, pkt)), 1)
}

// run sends a run as one packet, or one by one when the kernel does not take it.
func (w *writer) run(fd uintptr, r *segment.Run) {
	if r.Len() == 1 {
		w.one(fd, r.First)
		return
	}
	p := w.p
	first, k := w.pkts[r.First], p.frame.len()
	vnetFor(r, first[0]>>4 == 6, p.frame.link()).put(w.head[:])
	if p.frame.eth {
		putEthernet(w.head[k-ethLen:], &p.frame.dst, &p.frame.src, first)
	}
	head := r.Shape().Head
	k += r.Head(w.head[k:], w.pkts[:])
	iov := appendIov(w.iov[:0], w.head[:k])
	for m := range r.Len() {
		iov = appendIov(iov, w.pkts[r.Member(m)][head:])
	}
	err := writev(fd, iov)
	if err != unix.EINVAL {
		w.count(err, r.Len())
		return
	}
	off, kind := &p.noUDP, "udp"
	if r.Shape().TCP {
		off, kind = &p.noTCP, "tcp"
	}
	if !off.Swap(true) {
		p.log.Warn("kernel refuses joined packets, going on without", "port", p.name, "class", kind, "err", err)
	}
	for m := range r.Len() {
		w.one(fd, r.Member(m))
	}
}

// count accounts for n packets that went, or did not.
func (w *writer) count(err syscall.Errno, n int) {
	switch err {
	case 0:
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		w.lost[overlay.DropQueueFull] += n
	case unix.EMSGSIZE:
		w.lost[overlay.DropTooBig] += n
	default:
		w.lost[overlay.DropSendError] += n
	}
}

func appendIov(iov []unix.Iovec, b []byte) []unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return append(iov, v)
}

// writev returns 0 when the device took it all.
func writev(fd uintptr, iov []unix.Iovec) syscall.Errno {
	for {
		_, _, err := unix.Syscall(unix.SYS_WRITEV, fd, uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if err != unix.EINTR {
			return err
		}
	}
}
