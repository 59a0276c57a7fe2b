//go:build !linux

package activate

import (
	"context"
	"io"
	"net"
	"net/netip"
)

// Sockets are ports of this host. Where there is no epoll(7), each has its socket
// handed over at once.
type Sockets struct{}

// New makes Sockets without a port.
func New() (*Sockets, error) { return &Sockets{}, nil }

// OpenTCP listens on a port of this host and hands its listener to opened.
func (s *Sockets) OpenTCP(addr netip.AddrPort, opened func(net.Listener)) (io.Closer, error) {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	opened(l)
	return l, nil
}

// OpenUDP is OpenTCP for a UDP port.
func (s *Sockets) OpenUDP(addr netip.AddrPort, opened func(net.PacketConn)) (io.Closer, error) {
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	opened(pc)
	return pc, nil
}

// Run returns when ctx ends.
func (s *Sockets) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close does nothing.
func (s *Sockets) Close() error { return nil }
