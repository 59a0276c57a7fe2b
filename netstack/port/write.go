//go:build linux

package port

import (
	"net"
	"sync/atomic"
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

	cut   segment.Cutter
	piece []byte // a packet that was cut off; nil until there is one

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
			if m := overlay.MetaOf(w.bufs[i]); m.Piece != 0 {
				w.whole(fd, i, m)
				continue
			}
			w.one(fd, w.pkts[i])
		}
		return
	}
	w.runs.Reset()
	w.runs.UDP = !noUDP
	for i := range n {
		if m := overlay.MetaOf(w.bufs[i]); m.Piece != 0 {
			w.flush(fd) // no packet of its flow may come after it that was before
			w.whole(fd, i, m)
			continue
		}
		s, v := segment.Verify(w.pkts[i])
		if v != segment.Trusted || s.TCP && noTCP {
			s = segment.Shape{} // as it is, and alone: its receiver judges
		}
		w.runs.Add(i, w.pkts[:], s)
	}
	w.flush(fd)
}

// flush sends the runs that were gathered.
func (w *writer) flush(fd uintptr) {
	all := w.runs.All()
	for i := range all {
		w.run(fd, &all[i])
	}
	w.runs.Reset()
}

// whole sends packet i, which stands for several: as it is to a device that
// takes that, else piece by piece.
func (w *writer) whole(fd uintptr, i int, m overlay.Meta) {
	p, pkt := w.p, w.pkts[i]
	tcp := segment.IsTCP(pkt)
	if !w.cut.Start(pkt, tcp, int(m.Piece)) {
		w.lost[overlay.DropMalformed]++
		p.drops.See(overlay.DropMalformed, m.Piece, pkt)
		return
	}
	pieces := w.cut.Pieces()
	if off := p.offSwitch(tcp); p.frame.vnet && !off.Load() {
		k := p.frame.len()
		vnetOf(segment.Shape{IP: w.cut.IPHeader(), Head: w.cut.Header(), TCP: tcp}, pkt[0]>>4 == 6, int(m.Piece), p.frame.link()).put(w.head[:])
		if p.frame.eth {
			putEthernet(w.head[k-ethLen:], &p.frame.dst, &p.frame.src, pkt)
		}
		err := writev(fd, appendIov(appendIov(w.iov[:0], w.head[:k]), pkt))
		if err != unix.EINVAL {
			w.count(err, pieces, m.Piece, pkt)
			w.cut.Stop()
			return
		}
		w.refused(off, tcp, err)
	}
	if w.piece == nil {
		w.piece = make([]byte, overlay.MaxPacket)
	}
	for w.cut.Busy() {
		size := w.cut.Next(w.piece)
		w.one(fd, w.piece[:size])
	}
}

// one sends a packet alone.
func (w *writer) one(fd uintptr, pkt []byte) {
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
	w.count(writev(fd, appendIov(iov, pkt)), 1, 0, pkt)
}

// run sends a run as one packet, or one by one when the kernel does not take it.
func (w *writer) run(fd uintptr, r *segment.Run) {
	if r.Len() == 1 {
		w.one(fd, w.pkts[r.First])
		return
	}
	p := w.p
	first, k := w.pkts[r.First], p.frame.len()
	vnetOf(r.Shape(), first[0]>>4 == 6, r.Size(), p.frame.link()).put(w.head[:])
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
		w.count(err, 1, 0, first)
		for m := range r.Len() - 1 {
			w.count(err, 1, 0, w.pkts[r.Member(m+1)])
		}
		return
	}
	w.refused(p.offSwitch(r.Shape().TCP), r.Shape().TCP, err)
	for m := range r.Len() {
		w.one(fd, w.pkts[r.Member(m)])
	}
}

// offSwitch is true once the device has refused joined packets of a kind.
func (p *Port) offSwitch(tcp bool) *atomic.Bool {
	if tcp {
		return &p.noTCP
	}
	return &p.noUDP
}

// refused turns joined packets of a kind off and says so once.
func (w *writer) refused(off *atomic.Bool, tcp bool, err error) {
	kind := "udp"
	if tcp {
		kind = "tcp"
	}
	if !off.Swap(true) {
		w.p.log.Warn("kernel refuses joined packets, going on without", "port", w.p.name, "class", kind, "err", err)
	}
}

// count accounts for a packet that went or did not, or for the n for which it
// stands with piece bytes of data each.
func (w *writer) count(err syscall.Errno, n int, piece uint16, pkt []byte) {
	reason := overlay.DropSendError
	switch err {
	case 0:
		return
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		reason = overlay.DropQueueFull
	case unix.EMSGSIZE:
		reason = overlay.DropTooBig
	}
	w.lost[reason] += n
	w.p.drops.See(reason, piece, pkt)
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
