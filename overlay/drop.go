package overlay

import (
	"net/netip"
	"sync/atomic"
)

// Drop says why a packet went no further. There is one list for the whole
// program, so that every count can be explained in one place.
type Drop uint8

// The reasons. A lost packet is never an error; it is counted under one of these.
const (
	DropMalformed    Drop = iota // fails the structural check (lengths, header fields)
	DropSource                   // source address not allowed on the port it came from
	DropNoRoute                  // no route for the destination
	DropTTL                      // TTL or hop limit used up
	DropMulticast                // multicast or broadcast destination
	DropTooBig                   // longer than the MTU of the way out
	DropOptions                  // IPv4 options or IPv6 extension headers that slices do not carry
	DropFragment                 // fragment that breaks RFC 1858 / RFC 5722
	DropQueueFull                // the queue before the next stage was full
	DropClosed                   // the way out was closing
	DropNoPeer                   // no tunnel peer owns the destination
	DropUnknownSlice             // outer packet that belongs to no slice of this node
	DropRateLimited              // over a limit: outer packets of unknown sources, copies to groups
	DropSendError                // the kernel refused the outer packet
	DropProtocol                 // protocol that the way out does not take, or control that stays on a link
	DropDelay                    // waited too long in a queue that does not get shorter (CoDel)
	DropPolicy                   // no policy allows it
	DropReassembly               // fragment of a datagram that did not become whole: late, or no room
	DropCongestion               // met congestion on the underlay, and its ends do not know of ECN (RFC 6040)
	DropPoliced                  // came from outside at a higher rate than the slice's sites may send
	DropUnbound                  // connection or flow of a client in the cluster whose namespace the slice does not bind
	NumDrops
)

var dropNames = [NumDrops]string{
	"malformed", "source", "no-route", "ttl", "multicast", "too-big", "options", "fragment",
	"queue-full", "closed", "no-peer", "unknown-slice", "rate-limited", "send-error", "protocol", "delay", "policy",
	"reassembly", "congestion", "policed", "unbound",
}

// String returns the reason's name as it appears in status and metrics.
func (d Drop) String() string {
	if d < NumDrops {
		return dropNames[d]
	}
	return "unknown"
}

// Drops counts lost packets by reason. The zero value is ready; all methods
// may be called concurrently.
type Drops struct {
	n     [NumDrops]atomic.Uint64
	shown atomic.Pointer[shown] // to whom; nil: nobody
}

// shown says where packets are lost, for those who see them.
type shown struct {
	taps        *Taps
	slice, port string
}

// Watch has captures see what is lost with Lose and See, as lost by a port of a
// slice. Nothing is copied or looked at while there are none.
func (c *Drops) Watch(taps *Taps, slice, port string) { c.shown.Store(&shown{taps, slice, port}) }

// Lose counts a packet that is in hand, or the n for which it stands with piece
// bytes of data each (see Meta), as lost for reason d, and shows it. The packet is
// whole, without headroom; nobody keeps it.
func (c *Drops) Lose(d Drop, n int, piece uint16, pkt []byte) {
	c.Add(d, n)
	c.See(d, piece, pkt)
}

// See shows a lost packet that is counted elsewhere.
func (c *Drops) See(d Drop, piece uint16, pkt []byte) {
	if s := c.shown.Load(); s != nil {
		s.see(Sight{Slice: s.slice, Port: s.port, Point: PointDrop, Drop: d, Piece: piece}, pkt)
	}
}

// Watched reports whether a capture runs, for who has to make the packet for See.
func (c *Drops) Watched() bool {
	s := c.shown.Load()
	return s != nil && s.taps.Load() != nil
}

// LoseOuter is Lose for an outer datagram, which begins behind its UDP header;
// out is true if we were to send it.
func (c *Drops) LoseOuter(d Drop, local, peer netip.AddrPort, out bool, datagram []byte) {
	c.Add(d, 1)
	if s := c.shown.Load(); s != nil {
		s.see(Sight{Slice: s.slice, Port: s.port, Point: PointDrop, Drop: d, Out: out, Local: local, Peer: peer}, datagram)
	}
}

func (s *shown) see(x Sight, pkt []byte) {
	for _, t := range s.taps.Load() {
		t.See(x, pkt)
	}
}

// Add counts n packets lost for reason d.
func (c *Drops) Add(d Drop, n int) { c.n[d].Add(uint64(n)) }

// Get returns how many packets were lost for reason d.
func (c *Drops) Get(d Drop) uint64 { return c.n[d].Load() }

// Snapshot returns the reasons that have counted anything, by name.
func (c *Drops) Snapshot() map[string]uint64 {
	m := make(map[string]uint64)
	for d := range NumDrops {
		if v := c.n[d].Load(); v != 0 {
			m[d.String()] = v
		}
	}
	return m
}
