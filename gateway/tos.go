package gateway

import (
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
)

// An OuterTOS says what outer datagrams show of the traffic class of the packets
// in them.
type OuterTOS uint8

// What they show. A congestion mark that the network puts on an outer datagram
// reaches the packet in it with ECN and with All.
const (
	TOSOff OuterTOS = iota // nothing: all are best effort, without ECN
	TOSECN                 // ECN, by RFC 6040; DSCP is 0
	TOSAll                 // ECN and DSCP
)

func (o OuterTOS) mask() byte {
	switch o {
	case TOSECN:
		return 3
	case TOSAll:
		return 255
	}
	return 0
}

// WireGuard's device hands on buffers, not what belongs to them. So the traffic
// class travels in the buffer, behind the message, in bytes that nobody uses:
// as neither end knows how much padding the other adds or finds, in all of the
// places where it may be looked for.
//
//	outward: a packet of n bytes becomes a message of n+32 to n+47 bytes; what
//	stands right behind the message is its class.
//	inward: a message of m bytes holds a packet of m-47 to m-32 bytes; what
//	stands 32 bytes behind the packet is its class.
const (
	padMax   = 15
	overhead = 32 // header and tag
)

// putOuter notes the class of a packet of n bytes in a buffer of the device.
func putOuter(buf []byte, n int, class byte) {
	at := n + overhead
	if at+padMax+1 > len(buf) {
		return
	}
	fill(buf[at:], class)
}

// outerOf reads the class for a message; one of no packet has none.
func outerOf(msg []byte) byte {
	if n := len(msg); n > keepaliveBytes && n < cap(msg) && msg[0] == typeData {
		return msg[: n+1 : n+1][n]
	}
	return 0
}

// putInner notes the class with which a message of n bytes came.
func putInner(buf []byte, n int, class byte) {
	if n+1+padMax+1 <= len(buf) {
		fill(buf[n+1:], class)
	}
}

// innerOf reads it for the packet at the end of buf.
func innerOf(buf []byte) byte {
	if n := len(buf) + overhead; n < cap(buf) {
		return buf[:cap(buf)][n]
	}
	return 0
}

func fill(b []byte, class byte) {
	x := uint64(class) * 0x0101010101010101
	binary.LittleEndian.PutUint64(b, x)
	binary.LittleEndian.PutUint64(b[8:], x)
}

// classOf reads the traffic class of a packet.
func classOf(pkt []byte) byte {
	if len(pkt) < 2 {
		return 0
	}
	if pkt[0]>>4 == 6 {
		return pkt[0]<<4 | pkt[1]>>4
	}
	return pkt[1]
}

const congested = 3 // the ECN field of a packet that met congestion

// decapsulate gives a packet the congestion that its datagram met (RFC 6040,
// section 4.2). It reports false for one that has to be dropped, as those who
// exchange it would not understand the mark.
func decapsulate(pkt []byte) bool {
	if len(pkt) < 20 {
		return true // nobody's
	}
	class := classOf(pkt)
	switch class & 3 {
	case 0:
		return false
	case congested:
		return true
	}
	if pkt[0]>>4 == 6 {
		pkt[1] |= congested << 4
		return true
	}
	old := binary.BigEndian.Uint16(pkt)
	pkt[1] |= congested
	// RFC 1624: the sum falls by what the word has risen.
	c := uint32(binary.BigEndian.Uint16(pkt[10:])) + 0xffff - uint32(binary.BigEndian.Uint16(pkt)-old)
	v := uint16(c + c>>16)
	if v == 0xffff {
		v = 0 // the zero that everybody else has
	}
	binary.BigEndian.PutUint16(pkt[10:], v)
	return true
}

// markCongested gives the packets of a batch the congestion of their datagrams and returns
// those that go on, in the same slice.
func markCongested(bufs [][]byte, drops *overlay.Drops) [][]byte {
	rest := bufs[:0]
	for _, b := range bufs {
		if innerOf(b)&3 == congested && !decapsulate(b[overlay.Headroom:]) {
			drops.Add(overlay.DropCongestion, 1)
			continue
		}
		rest = append(rest, b)
	}
	return rest
}

// showClasses has the socket send and receive traffic classes.
func (s *socket) showClasses() {
	err := s.raw.Control(func(fd uintptr) {
		// What one of them does not concern is refused, and that is fine.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
	})
	s.classes.Store(err == nil)
}

// withoutClasses gives up traffic classes when the kernel refuses them.
func (s *socket) withoutClasses(errno syscall.Errno) {
	if s.classes.Swap(false) {
		s.log.Info("traffic classes of outer packets do not work here; sending without", "err", errno)
	}
}
