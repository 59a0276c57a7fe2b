package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slicewire/dnsd"
	"slicewire/overlay"
)

// A doorGuard says whether a client in the cluster may use a slice's services.
type doorGuard func(ctx context.Context, client netip.Addr) bool

// errNotBound says that a client is no pod of a namespace that the slice binds.
var errNotBound = errors.New("no pod of a namespace that the slice binds")

// dialDoor connects a pod of the cluster with an endpoint of a service, if it
// may use it. Who may not is counted.
func (s inSlice) dialDoor(guard doorGuard) func(context.Context, string, string, netip.Addr) (net.Conn, error) {
	return func(ctx context.Context, network, addr string, client netip.Addr) (net.Conn, error) {
		if !guard(ctx, client) {
			s.n.unbound.Add(overlay.DropUnbound, 1)
			return nil, errNotBound
		}
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
		fault := fmt.Errorf("%s: no endpoint that is reached", host)
		for _, a := range s.behindDoor(host, protocol, uint16(port), client) {
			c, err := dial(ctx, netip.AddrPortFrom(a, uint16(port)))
			if err == nil {
				return c, nil
			}
			fault = err
		}
		return nil, fault
	}
}

// A doorChoice says how endpoints behind doors are chosen.
type doorChoice struct {
	near   bool            // the nearest, as the slice's answers have them
	sticky map[string]bool // services whose clients stay where they are
}

// chooseDoors states how endpoints behind doors are chosen.
func (n *sliceNode) chooseDoors(services []overlay.ServiceView, mode dnsd.Mode) {
	c := &doorChoice{near: mode == dnsd.Near || mode == dnsd.One, sticky: make(map[string]bool)}
	for i := range services {
		if v := &services[i]; v.Affinity > 0 {
			c.sticky[overlay.ServiceDNSName(v.Name, v.Namespace)] = true
		}
	}
	n.doorWay.Store(c)
	n.doors.Review(n.doorStays)
}

// behindDoor lists the endpoints that a connection tries, in their order. As
// behind any address of a cluster's service, all have the same share of what
// comes, unless the slice answers with the nearest, or clients stay.
func (s inSlice) behindDoor(host string, protocol overlay.Protocol, port uint16, client netip.Addr) []netip.Addr {
	if isEndpoint(host) {
		addrs, _ := s.n.names.Lookup(host)
		return addrs
	}
	way := s.n.doorWay.Load()
	if way == nil || way.near || way.sticky[host] {
		return s.n.names.Choose(host, protocol, port, client, maxTried)
	}
	all := s.n.names.Choose(host, protocol, port, client, maxShared)
	if len(all) > 1 {
		first := rand.IntN(len(all))
		all = append([]netip.Addr{all[first]}, slices.Delete(slices.Clone(all), first, first+1)...)
	}
	return all[:min(len(all), maxTried)]
}

// maxShared is how many endpoints of a service share what comes through a door.
const maxShared = 1024

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
