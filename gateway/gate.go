package gateway

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"slicewire/overlay"
)

// silentPackets is how many packets a second go on to a peer without a
// session. WireGuard keeps them until the handshake is done, 64 KiB for each
// and 4,096 at most: a stream to a site that is down would pin 256 MiB and take
// the other peers' credits. These few make it try again, and are not lost if it
// succeeds.
const silentPackets = 64

// openPackets is what a peer has left that was heard: more than anybody sends
// before the next look, which takes it out of the gate.
const openPackets = 1 << 30

// A gate is closed to what exceeds that bound. It exists only while a peer of
// the slice has no session. It is immutable but for the counts.
type gate struct {
	bits4, bits6 []int // distinct prefix lengths, longest first
	owners       map[netip.Prefix]*atomic.Int32
}

// newGate returns a gate over all peers' prefixes, nil if none is silent.
func newGate(peers []Peer, silent func(*Peer) bool) *gate {
	g := &gate{owners: make(map[netip.Prefix]*atomic.Int32)}
	any := false
	for i := range peers {
		var left *atomic.Int32 // nil: nothing to bound
		if silent(&peers[i]) {
			any = true
			left = new(atomic.Int32)
			left.Store(silentPackets)
		}
		for _, p := range peers[i].Prefixes {
			g.owners[p] = left
			bits := &g.bits6
			if p.Addr().Is4() {
				bits = &g.bits4
			}
			if !slices.Contains(*bits, p.Bits()) {
				*bits = append(*bits, p.Bits())
			}
		}
	}
	if !any {
		return nil
	}
	for _, b := range [][]int{g.bits4, g.bits6} {
		slices.SortFunc(b, func(x, y int) int { return y - x })
	}
	return g
}

// admit sets the size of packets that go no further to 0, which WireGuard
// skips, and counts them.
func (g *gate) admit(bufs [][]byte, sizes []int, drops *overlay.Drops) {
	var last netip.Addr
	var left *atomic.Int32
	var owned bool
	for i, b := range bufs {
		if sizes[i] == 0 {
			continue // dropped already, and counted
		}
		dst := destination(b[overlay.Headroom : overlay.Headroom+sizes[i]])
		if dst != last || i == 0 {
			last = dst
			left, owned = g.find(dst)
		}
		reason := overlay.DropNoPeer
		switch {
		case owned && (left == nil || left.Add(-1) >= 0):
			continue
		case owned:
			reason = overlay.DropQueueFull
		}
		drops.Lose(reason, 1, 0, b[overlay.Headroom:overlay.Headroom+sizes[i]])
		sizes[i] = 0
	}
}

// hear opens the gate to whom a packet has come from: a device hands on only
// what came in a session, and only from addresses of the peer that it is with.
func (g *gate) hear(p []byte) {
	if left, _ := g.find(origin(p)); left != nil && left.Load() < openPackets/2 {
		left.Store(openPackets)
	}
}

func (g *gate) find(dst netip.Addr) (left *atomic.Int32, owned bool) {
	bits := g.bits6
	if dst.Is4() {
		bits = g.bits4
	}
	for _, n := range bits {
		p, err := dst.Prefix(n)
		if err != nil {
			break
		}
		if left, owned = g.owners[p]; owned {
			return left, true
		}
	}
	return nil, false
}

// destination returns the address a packet is for, or none if it is no packet.
func destination(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[16:20]))
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[24:40]))
	}
	return netip.Addr{}
}

// origin returns the address a packet is from, or none if it is no packet.
func origin(p []byte) netip.Addr {
	switch {
	case len(p) >= 20 && p[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(p[12:16]))
	case len(p) >= 40 && p[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(p[8:24]))
	}
	return netip.Addr{}
}
