package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

const (
	// queuePackets bounds what waits to be written, with snap bytes of each at
	// most: 64 MiB if somebody asks for the whole of packets of 64 KiB, and those
	// there are only where a kernel joins what it hands over.
	queuePackets = 1024
	// DefaultSnap is more than any packet on the way has, but those that stand
	// for several, of which it is the headers and some data.
	DefaultSnap = 2048
	// MaxSnap is the longest packet.
	MaxSnap = overlay.MaxPacket
)

// Config says what a Session captures.
type Config struct {
	Slice  string          // empty: all slices
	Points []overlay.Point // none: port
	Filter string          // see Filter
	Snap   int             // bytes of a packet that are kept; 0 means DefaultSnap
	Count  uint64          // packets after which it ends; 0: none
}

// A Session is one running capture. It is an overlay.Tap.
type Session struct {
	slice  string
	points [overlay.NumPoints]bool
	filter *Filter
	snap   int
	count  uint64

	views sync.Pool // *view
	free  chan *shot
	queue chan *shot
	lost  atomic.Uint64
	taken atomic.Uint64 // matched, whether or not there was room
}

// A shot is a captured packet.
type shot struct {
	sight  overlay.Sight
	at     time.Time
	data   []byte
	length int
	lost   uint64 // before it, in all
}

var _ overlay.Tap = (*Session)(nil)

// New checks what is asked for.
func New(c Config) (*Session, error) {
	f, err := ParseFilter(c.Filter)
	if err != nil {
		return nil, err
	}
	if c.Snap == 0 {
		c.Snap = DefaultSnap
	}
	if c.Snap < 20 || c.Snap > MaxSnap {
		return nil, fmt.Errorf("capture: %d bytes of each packet: want 20 to %d", c.Snap, MaxSnap)
	}
	s := &Session{
		slice: c.Slice, filter: f, snap: c.Snap, count: c.Count,
		free: make(chan *shot, queuePackets), queue: make(chan *shot, queuePackets),
	}
	s.views.New = func() any { return new(view) }
	if len(c.Points) == 0 {
		c.Points = []overlay.Point{overlay.PointPort}
	}
	for _, p := range c.Points {
		if p >= overlay.NumPoints {
			return nil, errors.New("capture: no such point")
		}
		s.points[p] = true
	}
	for range queuePackets {
		s.free <- new(shot)
	}
	return s, nil
}

// ParsePoint reads a point's name.
func ParsePoint(name string) (overlay.Point, error) {
	for p := range overlay.NumPoints {
		if p.String() == name {
			return p, nil
		}
	}
	return 0, fmt.Errorf("%q is no point: want port, tunnel, underlay or drop", name)
}

// Captured returns how many packets matched and how many of them were lost for
// want of room.
func (s *Session) Captured() (matched, lost uint64) { return s.taken.Load(), s.lost.Load() }

// See implements overlay.Tap.
func (s *Session) See(x overlay.Sight, pkt []byte) {
	if !s.points[x.Point] || s.slice != "" && s.slice != x.Slice {
		return
	}
	var head [48]byte
	outer := head[:0]
	length := len(pkt)
	if x.Point == overlay.PointUnderlay {
		outer = outerHeader(outer, x, len(pkt))
		length += len(outer)
	}
	v := s.views.Get().(*view)
	if *v = look(x, pkt); len(outer) > 0 {
		*v = look(x, outer)
	}
	wanted := s.filter.match(v)
	s.views.Put(v)
	if !wanted {
		return
	}
	s.taken.Add(1)
	var o *shot
	select {
	case o = <-s.free:
	default:
		s.lost.Add(1)
		return
	}
	o.sight, o.at, o.length, o.lost = x, time.Now(), length, s.lost.Load()
	o.data = append(append(o.data[:0], outer...), pkt[:min(len(pkt), s.snap)]...)
	s.queue <- o // it has room for all there are
}

// outerHeader appends the IP and UDP headers that a datagram had. Our own
// address is what the socket is bound to, which may be none.
func outerHeader(b []byte, x overlay.Sight, size int) []byte {
	src, dst := x.Peer, x.Local
	if x.Out {
		src, dst = x.Local, x.Peer
	}
	any := netip.IPv4Unspecified()
	if x.Peer.Addr().Is6() {
		any = netip.IPv6Unspecified()
	}
	fit := func(a netip.Addr) netip.Addr {
		if a = a.Unmap(); a.Is4() != any.Is4() {
			return any
		}
		return a
	}
	s, d := fit(src.Addr()), fit(dst.Addr())
	size += 8
	if any.Is4() {
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+size))
		b = append(b, 0, 0, 0, 0, 64, 17, 0, 0)
		b = append(append(b, s.AsSlice()...), d.AsSlice()...)
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		sum = sum>>16 + sum&0xffff
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum>>16+sum))
	} else {
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(size))
		b = append(append(append(b, 17, 64), s.AsSlice()...), d.AsSlice()...)
	}
	b = binary.BigEndian.AppendUint16(b, src.Port())
	b = binary.BigEndian.AppendUint16(b, dst.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	return append(b, 0, 0) // no checksum was seen
}

// Run writes what is captured to w, and calls flush whenever nothing more waits,
// until ctx ends, Count packets are written or w fails. It returns w's fault.
func (s *Session) Run(ctx context.Context, w io.Writer, flush func() error) error {
	x, err := newWriter(w, s.snap)
	if err != nil {
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	var written, lost uint64
	for {
		select {
		case <-ctx.Done():
			return s.finish(x, flush)
		case o := <-s.queue:
			err := x.packet(o.sight, o.at, o.data, o.length, o.lost-min(lost, o.lost))
			lost = max(lost, o.lost)
			s.free <- o
			written++
			if err == nil && len(s.queue) == 0 {
				err = flush()
			}
			if err != nil {
				return err
			}
			if written == s.count {
				return s.finish(x, flush)
			}
		}
	}
}

func (s *Session) finish(x *writer, flush func() error) error {
	if err := x.statistics(time.Now(), s.lost.Load()); err != nil {
		return err
	}
	return flush()
}

// Points returns the points of a capture, for its log line.
func (s *Session) Points() []overlay.Point {
	var out []overlay.Point
	for p := range overlay.NumPoints {
		if s.points[p] {
			out = append(out, p)
		}
	}
	return slices.Clip(out)
}
