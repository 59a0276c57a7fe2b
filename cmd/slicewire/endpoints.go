package main

import (
	"net"
	"net/netip"
	"slices"
)

// endpoints lists where other nodes reach this node's tunnels: as the node file
// says, else where the socket is bound, else every address of the machine that
// others could use.
func (d *daemon) endpoints() []netip.AddrPort {
	if len(d.want.file.Advertise) > 0 {
		return d.want.file.Advertise
	}
	if a := d.listen.Addr().Unmap(); !a.IsUnspecified() {
		return []netip.AddrPort{netip.AddrPortFrom(a, d.listen.Port())}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		d.log.Warn("addresses of this machine are unknown: set advertise in the node file", "err", err)
		return nil
	}
	return usable(addrs, d.listen.Port())
}

// maxEndpoints bounds what a node with many interfaces tells of itself.
const maxEndpoints = 8

// usable picks the addresses that another machine could send to, each once: many
// interfaces may have one address, as those of a Kubernetes node toward its pods.
func usable(addrs []net.Addr, port uint16) []netip.AddrPort {
	var out []netip.AddrPort
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		at := netip.AddrPortFrom(p.Addr().Unmap(), port)
		if at.Addr().IsGlobalUnicast() && len(out) < maxEndpoints && !slices.Contains(out, at) {
			out = append(out, at)
		}
	}
	return out
}
