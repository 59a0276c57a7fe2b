package overlay

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// A Point is a place where packets are seen on their way.
type Point uint8

// The points.
const (
	PointPort     Point = iota // between a workload, or the node's own stack, and the router
	PointTunnel                // between the router and the tunnel
	PointUnderlay              // outer datagrams, between the tunnel and the network
	PointDrop                  // what goes no further
	NumPoints
)

var pointNames = [NumPoints]string{"port", "tunnel", "underlay", "drop"}

// String returns the point's name as the command line has it.
func (p Point) String() string {
	if p < NumPoints {
		return pointNames[p]
	}
	return "unknown"
}

// A Sight is what there is to say of a packet that is seen.
type Sight struct {
	Slice string
	Port  string // of the router; for a drop, where the packet came in
	Point Point
	Drop  Drop // at PointDrop
	// Out is the direction as the port's, the tunnel's or the network's: true is
	// what we send there.
	Out   bool
	Piece uint16 // see Meta
	// Peer and Local are the addresses of an outer datagram, whose bytes start
	// behind its UDP header.
	Peer, Local netip.AddrPort
}

// A Tap sees packets. It is called on the packet path, concurrently: it must
// not wait, and the packet is not its to keep or to change.
type Tap interface{ See(s Sight, pkt []byte) }

// Taps are the captures that run now. The zero value and nil have none.
type Taps struct {
	list atomic.Pointer[[]Tap]
	mu   sync.Mutex // of writers
}

// Load returns the taps. Without any it is nil, which is all that a packet path
// has to ask, once a batch.
func (t *Taps) Load() []Tap {
	if t == nil {
		return nil
	}
	if l := t.list.Load(); l != nil {
		return *l
	}
	return nil
}

// Add puts a tap in place unless there are limit already, and reports whether it did.
func (t *Taps) Add(x Tap, limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.Load()
	if len(now) >= limit {
		return false
	}
	now = append(slices.Clone(now), x)
	t.list.Store(&now)
	return true
}

// Remove takes a tap away. It may be called a last few times after that.
func (t *Taps) Remove(x Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := slices.DeleteFunc(slices.Clone(t.Load()), func(y Tap) bool { return x == y })
	if len(now) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&now)
}
