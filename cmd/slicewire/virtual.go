package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"slicewire/netstack/publish"
	"slicewire/overlay"
)

// maxVirtual bounds the sockets for virtual addresses: two for each port.
const maxVirtual = 1024

// virtualsOf lists the sockets behind the virtual addresses of a slice's
// services. Each connection goes to an endpoint as the service's name answers
// then; it stays there whatever happens to others.
func virtualsOf(services []overlay.ServiceView) (out []publish.Backend, err error) {
	sockets := 0
	for i := range services {
		s := &services[i]
		if s.Type != overlay.Virtual || !s.Virtual.IsValid() {
			continue
		}
		b := publish.Backend{Name: s.Namespace + "/" + s.Name, Addrs: []netip.Addr{s.Virtual, s.Virtual6}}
		for _, p := range s.Ports {
			if p.Protocol == overlay.TCP || p.Protocol == overlay.UDP {
				b.Ports = append(b.Ports, publish.Port{Name: p.Name, Port: p.Port, Protocol: p.Protocol,
					Target: net.JoinHostPort(overlay.ServiceDNSName(s.Name, s.Namespace), strconv.Itoa(int(p.Port)))})
			}
		}
		if sockets += 2 * len(b.Ports); sockets > maxVirtual {
			return out, fmt.Errorf("virtual addresses: from %s/%s on they are not served: all services together have more than %d ports", s.Namespace, s.Name, maxVirtual/2)
		}
		out = append(out, b)
	}
	return out, nil
}

func virtualAddrs(backends []publish.Backend) (out []netip.Addr) {
	for _, b := range backends {
		out = append(out, b.Addrs...)
	}
	return out
}

// maxTried is how many endpoints a connection to a virtual address tries, each
// for tryFor.
const (
	maxTried = 4
	tryFor   = time.Second
)

// dialService connects a virtual address with an endpoint: by TCP with one that
// answers, by UDP with the first, for nothing says whether it does.
func (s inSlice) dialService(ctx context.Context, network, addr string, client netip.Addr) (net.Conn, error) {
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, err
	}
	protocol, dial := overlay.TCP, s.tryTCP
	if network == "udp" {
		protocol, dial = overlay.UDP, s.dialUDP
	}
	err = fmt.Errorf("%s: no endpoint that is reached", host)
	var errs []error
	for _, a := range s.n.names.Choose(host, protocol, uint16(port), client, maxTried) {
		c, err := dial(ctx, netip.AddrPortFrom(a, uint16(port)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(append(errs, err)...)
}

func (s inSlice) tryTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	return s.DialTCP(ctx, dst)
}

func (s inSlice) dialUDP(_ context.Context, dst netip.AddrPort) (net.Conn, error) {
	if !s.permits(overlay.ProtoUDP, dst) {
		return nil, &net.OpError{Op: "dial", Net: "udp", Addr: net.UDPAddrFromAddrPort(dst), Err: syscall.EACCES}
	}
	return s.n.stack.DialUDP(netip.Addr{}, dst)
}

// stillReached says for a UDP flow by a virtual address whether it may stay
// where it is: no reset tells a client that its endpoint is gone.
func (n *sliceNode) stillReached(target string, remote net.Addr) bool {
	host, _, err := net.SplitHostPort(target)
	to, is := remote.(*net.UDPAddr)
	return err == nil && is && n.names.Reached(host, to.AddrPort().Addr().Unmap())
}
