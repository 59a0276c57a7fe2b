package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"slicewire/netstack/publish"
	"slicewire/netstack/socks"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
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

// listenStream opens "host:port" or "unix:/path". A unix socket left behind by
// a process that is gone is replaced; it is open to this user only.
func listenStream(addr string) (net.Listener, error) {
	path, unix := strings.CutPrefix(addr, "unix:")
	if !unix {
		return net.Listen("tcp", addr)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// listenBoth opens the same address for UDP and TCP.
func listenBoth(addr string) (net.PacketConn, net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	p, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return p, l, nil
}

// publishOf lists what the node publishes on a slice: the attachment's
// addresses joined with the node file's targets.
func publishOf(file *manifest.NodeFile, a *overlay.Attachment) []publish.Backend {
	var out []publish.Backend
	for _, b := range a.Backends {
		i := slices.IndexFunc(file.Publish, func(p manifest.Publish) bool {
			return p.Slice == b.Slice && p.Namespace == b.Namespace && p.Service == b.Backend.Service && p.Backend == b.Name
		})
		if i < 0 {
			continue
		}
		x := publish.Backend{Name: b.Namespace + "/" + b.Backend.Service + "/" + b.Name, Addrs: []netip.Addr{b.Addr, b.Addr6}}
		for _, port := range b.Service.Ports {
			x.Ports = append(x.Ports, publish.Port{
				Name: port.Name, Port: port.Port, Protocol: port.Protocol, Target: file.Publish[i].TargetOf(port.Name),
			})
		}
		out = append(out, x)
	}
	return out
}
