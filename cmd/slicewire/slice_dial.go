package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"slicewire/netstack/socks"
	"slicewire/overlay"
)

// inSlice dials and resolves inside a slice, for the proxy and forwards.
type inSlice struct{ n *sliceNode }

func (s inSlice) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	if !s.permits(overlay.ProtoTCP, dst) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: net.TCPAddrFromAddrPort(dst), Err: syscall.EACCES}
	}
	return s.n.stack.DialTCP(ctx, netip.Addr{}, dst)
}

func (s inSlice) ListenUDP(v6 bool) (net.PacketConn, error) {
	for _, a := range *s.n.addrs.Load() { // the node's own come first
		if a.Is6() == v6 {
			c, err := s.n.stack.ListenUDP(netip.AddrPortFrom(a, 0))
			if err != nil {
				return nil, err
			}
			return policedConn{c, s}, nil
		}
	}
	return nil, net.UnknownNetworkError("no address of that family on the slice")
}

func (s inSlice) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	addrs, ok := s.n.names.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, socks.ErrNoName)
	}
	return addrs, nil
}
