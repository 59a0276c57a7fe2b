package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// A Host has one address on a Network and opens sockets there. It is a network
// to the node that runs on it.
type Host struct {
	network *Network
	addr    netip.Addr

	mu        sync.Mutex // guards what follows
	dead      bool
	asleep    time.Time // stalled until then
	packets   map[uint16]*packetConn
	listeners map[uint16]*listener
	streams   map[*stream]struct{}
	lastPort  uint16
}

func newHost(n *Network, addr netip.Addr) *Host {
	return &Host{
		network: n, addr: addr, lastPort: 32767,
		packets: make(map[uint16]*packetConn), listeners: make(map[uint16]*listener),
		streams: make(map[*stream]struct{}),
	}
}

// Addr returns the host's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Off switches the host off, as when the power fails: nothing more comes from
// it, not even that it is off. Its sockets are closed for the node that holds
// them.
func (h *Host) Off() {
	h.mu.Lock()
	h.dead = true
	var all []func() error
	for _, c := range h.packets {
		all = append(all, c.Close)
	}
	for _, l := range h.listeners {
		all = append(all, l.Close)
	}
	for s := range h.streams {
		all = append(all, s.abandon)
	}
	h.mu.Unlock()
	for _, f := range all {
		_ = f()
	}
}

func (h *Host) off() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dead
}

// Stall holds up everything that goes in and out for a time, as it is for a
// process that does not get to run, or is stopped and goes on: what comes
// meanwhile waits in the sockets as far as it fits. The node's timers run on,
// so that it blames others for not having heard from them.
func (h *Host) Stall(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if until := time.Now().Add(d); until.After(h.asleep) {
		h.asleep = until
	}
}

// awake returns when the host runs, now or later.
func (h *Host) awake(now time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.asleep.After(now) {
		return h.asleep
	}
	return now
}

func (h *Host) packetConnAt(port uint16) *packetConn {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.packets[port]
}

func (h *Host) listenerAt(port uint16) *listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listeners[port]
}

// errAddress is for what this host has no such address for.
var errAddress = errors.New("not an address of this host")

// bindLocked returns where a socket is bound.
func (h *Host) bindLocked(addr netip.AddrPort, taken func(uint16) bool) (netip.AddrPort, error) {
	switch {
	case h.dead:
		return netip.AddrPort{}, syscall.ENETDOWN
	case addr.Addr() != h.addr && !addr.Addr().IsUnspecified():
		return netip.AddrPort{}, errAddress
	}
	port := addr.Port()
	for port == 0 || taken(port) {
		if addr.Port() != 0 {
			return netip.AddrPort{}, syscall.EADDRINUSE
		}
		h.lastPort = max(h.lastPort+1, 1024)
		port = h.lastPort
	}
	return netip.AddrPortFrom(h.addr, port), nil
}

// ListenPacket opens a socket for packets.
func (h *Host) ListenPacket(_ context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, err := h.bindLocked(addr, func(p uint16) bool { return h.packets[p] != nil })
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Addr: net.UDPAddrFromAddrPort(addr), Err: err}
	}
	c := newPacketConn(h, at)
	h.packets[at.Port()] = c
	return c, nil
}

// Listen opens a socket that takes streams.
func (h *Host) Listen(_ context.Context, addr netip.AddrPort) (net.Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, err := h.bindLocked(addr, func(p uint16) bool { return h.listeners[p] != nil })
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Addr: net.TCPAddrFromAddrPort(addr), Err: err}
	}
	l := newListener(h, at)
	h.listeners[at.Port()] = l
	return l, nil
}
