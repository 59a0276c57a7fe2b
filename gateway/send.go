package gateway

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// sendBatch is the most messages that one send may be asked for.
	sendBatch = 128
	// UDP_SEGMENT: the kernel takes at most 64 segments, and no more bytes than
	// one IP datagram may have, of either family.
	segmentsMax     = 64
	segmentBytesMax = 65000
)

// txCall is the memory of a sendmmsg. Only what a call used is cleared after
// it: sweeping all headers would cost more than a single packet's send.
type txCall struct {
	hdrs  [sendBatch]mmsghdr
	iovs  [sendBatch]unix.Iovec
	ctrl  [sendBatch][]byte // each one UDP_SEGMENT control message, and then one for the traffic class
	count [sendBatch]int    // packets in each message

	from, to int // headers to send
	sent     int
	errno    syscall.Errno
	call     func(fd uintptr)
}

func newTxCall() *txCall {
	c := new(txCall)
	space := unix.CmsgSpace(2) + unix.CmsgSpace(4)
	all := make([]byte, sendBatch*space)
	for i := range c.ctrl {
		c.ctrl[i] = all[i*space : (i+1)*space]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c.ctrl[i][0]))
		h.Level = unix.SOL_UDP
		h.Type = unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		h = (*unix.Cmsghdr)(unsafe.Pointer(&c.ctrl[i][unix.CmsgSpace(2)]))
		h.SetLen(unix.CmsgLen(4))
	}
	c.call = c.sendmmsg
	return c
}

func (c *txCall) sendmmsg(fd uintptr) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&c.hdrs[c.from])),
			uintptr(c.to-c.from), unix.MSG_DONTWAIT, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		c.sent, c.errno = int(n), errno
		return
	}
}

// pack describes bufs as messages to one address and returns how many.
func (c *txCall) pack(bufs [][]byte, to *endpoint, gso, classes bool) int {
	msgs, iov := 0, 0
	for len(bufs) > 0 {
		k := 1
		if gso {
			k = leading(bufs)
		}
		var class byte
		if classes {
			class, k = sameClass(bufs[:k])
		}
		for i, b := range bufs[:k] {
			c.iovs[iov+i].Base = unsafe.SliceData(b)
			c.iovs[iov+i].SetLen(len(b))
		}
		h := &c.hdrs[msgs].hdr
		h.Name = &to.name[0]
		h.Namelen = to.nname
		h.Iov = &c.iovs[iov]
		h.SetIovlen(k)
		c.control(h, c.ctrl[msgs], k, len(bufs[0]), class, to)
		c.count[msgs] = k
		msgs++
		iov += k
		bufs = bufs[k:]
	}
	return msgs
}

// control describes k packets of one size and class in a message's control data.
func (c *txCall) control(h *unix.Msghdr, ctrl []byte, k, size int, class byte, to *endpoint) {
	from, end := 0, unix.CmsgSpace(2)
	if k > 1 {
		*(*uint16)(unsafe.Pointer(&ctrl[unix.CmsgLen(0)])) = uint16(size)
	} else {
		from = end
	}
	if class != 0 {
		m := (*unix.Cmsghdr)(unsafe.Pointer(&ctrl[end]))
		if m.Level, m.Type = unix.IPPROTO_IPV6, unix.IPV6_TCLASS; to.addr.Addr().Is4() {
			m.Level, m.Type = unix.IPPROTO_IP, unix.IP_TOS
		}
		*(*int32)(unsafe.Pointer(&ctrl[end+unix.CmsgLen(0)])) = int32(class)
		end = len(ctrl)
	}
	if from == end {
		h.Control = nil
		h.SetControllen(0)
		return
	}
	h.Control = &ctrl[from]
	h.SetControllen(end - from)
}

// sameClass returns the class of the first packet and how many have it from there.
func sameClass(bufs [][]byte) (class byte, k int) {
	class = outerOf(bufs[0])
	for k = 1; k < len(bufs); k++ {
		if outerOf(bufs[k]) != class {
			break
		}
	}
	return class, k
}

// leading returns how many of the first packets one UDP_SEGMENT message may
// carry: all of one size, but the last may be shorter.
func leading(bufs [][]byte) int {
	size := len(bufs[0])
	total := size
	for k := 1; k < len(bufs); k++ {
		n := len(bufs[k])
		if k == segmentsMax || n > size || n == 0 || total+n > segmentBytesMax {
			return k
		}
		total += n
		if n < size {
			return k + 1
		}
	}
	return len(bufs)
}

// clear drops the references to the packets, which are WireGuard's again.
func (c *txCall) clear(packets int) {
	clear(c.iovs[:packets])
}

func (s *socket) send(bufs [][]byte, to *endpoint) (lost int) {
	if to.nname == 0 {
		return len(bufs)
	}
	c := s.tx.Get().(*txCall)
	for len(bufs) > 0 {
		n := min(len(bufs), sendBatch)
		lost += s.sendSome(c, bufs[:n], to)
		bufs = bufs[n:]
	}
	s.tx.Put(c)
	return lost
}

// sendSome sends at most sendBatch packets. When the kernel refuses
// UDP_SEGMENT, what is left is sent again without: for ever if no device of
// this machine can (EIO), on this path if its MTU is too small: EMSGSIZE, of
// older kernels EINVAL. What a train is refused for goes alone, in fragments.
func (s *socket) sendSome(c *txCall, bufs [][]byte, to *endpoint) (lost int) {
	gso := len(bufs) > 1 && s.gso.Load() && !to.noGSO.Load()
	classes := s.classes.Load()
	c.from, c.to = 0, c.pack(bufs, to, gso, classes)
	defer c.clear(len(bufs))
	next := 0 // first packet not yet dealt with
	for c.from < c.to {
		if err := s.raw.Control(c.call); err != nil { // closed
			return lost + len(bufs) - next
		}
		if c.errno == 0 {
			for i := range c.sent {
				next += c.count[c.from+i]
			}
			c.from += c.sent
			continue
		}
		train := c.count[c.from] > 1
		switch c.errno {
		case unix.EIO, unix.EINVAL, unix.EMSGSIZE:
			if train {
				s.withoutGSO(c.errno, to)
				c.from, c.to = 0, c.pack(bufs[next:], to, false, classes)
				continue
			}
			if classes && c.errno == unix.EINVAL && c.hdrs[c.from].hdr.Control != nil {
				classes = false
				s.withoutClasses(c.errno)
				c.from, c.to = 0, c.pack(bufs[next:], to, gso, false)
				continue
			}
			fallthrough
		case unix.EPERM: // this one only: too long for the path, or a firewall's
			lost += c.count[c.from]
			next += c.count[c.from]
			c.from++
		default: // no room (EAGAIN, ENOBUFS) or no way there: the others fare no better
			return lost + len(bufs) - next
		}
	}
	return lost
}

func (s *socket) withoutGSO(errno syscall.Errno, to *endpoint) {
	if errno == unix.EIO {
		if s.gso.Swap(false) {
			s.log.Info("udp segmentation offload does not work here; sending without", "err", errno)
		}
		return
	}
	if !to.noGSO.Swap(true) {
		s.log.Info("udp segmentation offload does not work on this path; sending without", "peer", to.addr, "err", errno)
	}
}
