package gossip

import (
	"context"
	"net"
	"net/netip"
)

// A Network opens the sockets of a node. What comes out of them is hostile,
// whichever network it is: all checks stand above it. Addresses of packets are
// *net.UDPAddr and those of streams *net.TCPAddr.
type Network interface {
	// Listen takes streams at addr, where port 0 stands for a free one.
	Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// ListenPacket takes packets at addr.
	ListenPacket(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error)
	// Dial opens a stream to addr, or gives up when ctx ends.
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// system is the Network of this machine.
type system struct{}

func (system) config() net.ListenConfig {
	c := net.ListenConfig{Control: fitAnyWay}
	c.SetMultipathTCP(false) // it would not take what fitAnyWay sets
	return c
}

func (s system) Listen(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	c := s.config()
	return c.Listen(ctx, "tcp", addr.String())
}

func (s system) ListenPacket(ctx context.Context, addr netip.AddrPort) (net.PacketConn, error) {
	c := s.config()
	return c.ListenPacket(ctx, "udp", addr.String())
}

func (system) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Control: fitAnyWay}
	return d.DialContext(ctx, "tcp", addr.String())
}

// addrPortOf returns an IP address and port as they are compared.
func addrPortOf(a net.Addr) netip.AddrPort {
	var p netip.AddrPort
	switch a := a.(type) {
	case *net.UDPAddr:
		p = a.AddrPort()
	case *net.TCPAddr:
		p = a.AddrPort()
	}
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
