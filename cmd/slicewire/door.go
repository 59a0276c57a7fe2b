package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

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
		host, service, err := net.SplitHostPort(addr)
		if err != nil || !isEndpoint(host) {
			return s.dialService(ctx, network, addr, client)
		}
		port, err := strconv.ParseUint(service, 10, 16)
		if err != nil {
			return nil, err
		}
		dial := s.tryTCP
		if network == "udp" {
			dial = s.dialUDP
		}
		addrs, _ := s.n.names.Lookup(host)
		fault := fmt.Errorf("%s: not reached", host)
		for _, a := range addrs {
			c, err := dial(ctx, netip.AddrPortFrom(a, uint16(port)))
			if err == nil {
				return c, nil
			}
			fault = err
		}
		return nil, fault
	}
}

// isEndpoint tells the name of an endpoint, POD.SITE.SERVICE.NAMESPACE.svc.slice.local,
// from that of a service.
func isEndpoint(host string) bool { return strings.Count(host, ".") > 4 }

// doorStays says for a UDP flow by a door whether it may stay where it is.
func (n *sliceNode) doorStays(target string, remote net.Addr) bool {
	host, _, err := net.SplitHostPort(target)
	if err != nil || !isEndpoint(host) {
		return n.stillReached(target, remote)
	}
	to, is := remote.(*net.UDPAddr)
	addrs, _ := n.names.Lookup(host)
	return is && slices.Contains(addrs, to.AddrPort().Addr().Unmap())
}

// setDoors states on which ports pods of the cluster reach the slice's services.
func (n *sliceNode) setDoors(c *kubeCluster) error {
	if n.doors == nil {
		return nil
	}
	return n.doors.Set(c.doors(n.name))
}
