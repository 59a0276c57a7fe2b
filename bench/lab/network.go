package lab

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// A Network carries what hosts send to each other.
type Network struct {
	chances
	policy atomic.Pointer[Policy]

	mu    sync.RWMutex // guards what follows
	hosts map[netip.Addr]*Host

	packets, packetBytes, lost, full, nowhere, streams, streamBytes atomic.Uint64
}

// Counts is what became of packets and streams.
type Counts struct {
	Packets     uint64 // sent
	PacketBytes uint64
	Lost        uint64 // on the way: lost, or the link cut
	Full        uint64 // at the receiver, who did not take them in time
	Nowhere     uint64 // to an address without a socket
	Streams     uint64 // opened
	StreamBytes uint64
}

// NewNetwork returns a network without hosts. Everything is delivered at once
// until Set says otherwise.
func NewNetwork(seed uint64) *Network {
	n := &Network{chances: chances{seed: seed}, hosts: make(map[netip.Addr]*Host)}
	n.Set(Everywhere(Link{}))
	return n
}

// Set states what the links are like from now on. What is on its way in packets
// arrives as it was sent; streams notice at once.
func (n *Network) Set(p Policy) { n.policy.Store(&p) }

// Policy returns what Set stated last.
func (n *Network) Policy() Policy { return *n.policy.Load() }

func (n *Network) link(from, to netip.Addr) Link {
	if from == to {
		return Link{}
	}
	return n.Policy()(from, to)
}

// Attach switches a host on at addr. One that is there already must have been
// switched off.
func (n *Network) Attach(addr netip.Addr) (*Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if old := n.hosts[addr]; old != nil && !old.off() {
		return nil, fmt.Errorf("host %v is there already", addr)
	}
	h := newHost(n, addr)
	n.hosts[addr] = h
	return h, nil
}

func (n *Network) host(addr netip.Addr) *Host {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if h := n.hosts[addr]; h != nil && !h.off() {
		return h
	}
	return nil
}

// Counts returns what became of everything so far.
func (n *Network) Counts() Counts {
	return Counts{
		Packets: n.packets.Load(), PacketBytes: n.packetBytes.Load(), Lost: n.lost.Load(), Full: n.full.Load(),
		Nowhere: n.nowhere.Load(), Streams: n.streams.Load(), StreamBytes: n.streamBytes.Load(),
	}
}

// Addrs lists the hosts that are switched on, in no order.
func (n *Network) Addrs() []netip.Addr {
	n.mu.RLock()
	defer n.mu.RUnlock()
	var out []netip.Addr
	for a, h := range n.hosts {
		if !h.off() {
			out = append(out, a)
		}
	}
	return out
}

// send carries one packet.
func (n *Network) send(from *Host, at, to netip.AddrPort, p []byte) {
	var arrivals []arrival
	link := n.link(at.Addr(), to.Addr())
	if link == (Link{}) {
		arrivals = []arrival{{0, p}}
	} else {
		n.roll(flow{from: at.Addr(), to: to.Addr()}, func(rng *rand.Rand) { arrivals = link.carry(rng, p) })
	}
	var target *packetConn
	if h := n.host(to.Addr()); h != nil {
		target = h.packetConnAt(to.Port())
	}
	n.packets.Add(1)
	n.packetBytes.Add(uint64(len(p)))
	switch {
	case len(arrivals) == 0:
		n.lost.Add(1)
		return
	case target == nil:
		n.nowhere.Add(1)
		return
	}
	// What a stalled host sends leaves it when it runs again.
	leaves := from.awake(time.Now())
	for _, a := range arrivals {
		if !target.deliver(leaves.Add(a.after), at, a.bytes) {
			n.full.Add(1)
		}
	}
}
