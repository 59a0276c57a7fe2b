package main

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"slicewire/overlay"
)

// A doorGuard says whether a client in the cluster may use a slice's services.
type doorGuard func(ctx context.Context, client netip.Addr) bool

// errNotBound says that a client is no pod of a namespace that the slice binds.
var errNotBound = errors.New("no pod of a namespace that the slice binds")

// hostStack opens sockets of this machine, or of this pod.
type hostStack struct{}

func (hostStack) ListenTCP(a netip.AddrPort) (net.Listener, error) {
	return net.ListenTCP("tcp", net.TCPAddrFromAddrPort(a))
}

func (hostStack) ListenUDP(a netip.AddrPort) (net.PacketConn, error) {
	return net.ListenUDP("udp", net.UDPAddrFromAddrPort(a))
}

// dialDoor connects a pod of the cluster with an endpoint of a service, if it
// may use it. Who may not is counted.
func (s inSlice) dialDoor(guard doorGuard) func(context.Context, string, string, netip.Addr) (net.Conn, error) {
	return func(ctx context.Context, network, addr string, client netip.Addr) (net.Conn, error) {
		if !guard(ctx, client) {
			s.n.unbound.Add(overlay.DropUnbound, 1)
			return nil, errNotBound
		}
		return s.dialService(ctx, network, addr, client)
	}
}

// setDoors states on which ports pods of the cluster reach the slice's services.
func (n *sliceNode) setDoors(c *kubeCluster) error {
	if n.doors == nil {
		return nil
	}
	return n.doors.Set(c.doors(n.name))
}
