package main

import (
	"net"
	"net/netip"
	"reflect"

	"slicewire/overlay"
	"slicewire/router"
)

// A slicePolicy is what a slice's router was told last, so that telling it the
// same again has no flow asked about again.
type slicePolicy struct {
	rules    []overlay.Rule
	compiled *router.Policy
}

// renew returns the policy of rules; nil for none. Rules that cannot be compiled
// let nothing pass.
func (p *slicePolicy) renew(rules []overlay.Rule) (*router.Policy, error) {
	if len(rules) == 0 {
		*p = slicePolicy{}
		return nil, nil
	}
	if p.compiled != nil && reflect.DeepEqual(p.rules, rules) {
		return p.compiled, nil
	}
	compiled, err := router.NewPolicy(rules)
	if err != nil {
		nothing := []overlay.Rule{{Name: "a policy that cannot be used", Ingress: true}, {Name: "a policy that cannot be used, egress"}}
		for i := range nothing {
			nothing[i].Subject = []overlay.Block{{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}}
		}
		var second error
		if compiled, second = router.NewPolicy(nothing); second != nil {
			panic("slicewire: " + second.Error()) // two rules that are always right
		}
	}
	*p = slicePolicy{rules, compiled}
	return compiled, err
}

// permits asks the policy about what the node's own stack would deliver to
// itself: that meets no router.
func (s inSlice) permits(proto uint8, dst netip.AddrPort) bool {
	own := *s.n.addrs.Load()
	for _, a := range own {
		if a != dst.Addr() {
			continue
		}
		for _, src := range own { // the node's own come first
			if src.Is4() == a.Is4() {
				return s.n.router.Permits(router.Flow{Src: src, Dst: a, Proto: proto, DstPort: dst.Port()})
			}
		}
	}
	return true
}

// A policedConn sends nothing to the node's own addresses that policy denies.
type policedConn struct {
	net.PacketConn
	in inSlice
}

func (c policedConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	if a, ok := addr.(*net.UDPAddr); ok && !c.in.permits(overlay.ProtoUDP, a.AddrPort()) {
		return len(p), nil // lost and counted, as any other that is denied
	}
	return c.PacketConn.WriteTo(p, addr)
}
