package dnsd

import (
	"net/netip"
	"slices"

	"slicewire/overlay"
)

// Choose returns an address of each of up to limit endpoints of a service that
// serve a port, the best first, as answers to its name have them: the IPv4 one
// where there is one. With session affinity
// equals come in an order that is always the same for a client: while its first
// endpoint is there and among the nearest, it stays the first. name is the
// service's in any zone where its name stands for its endpoints.
func (s *Server) Choose(name string, protocol overlay.Protocol, port uint16, client netip.Addr, limit int) (out []netip.Addr) {
	r := s.serviceOf(name)
	if r == nil {
		return nil
	}
	order := r.each.addrs
	switch {
	case r.svc.Affinity != 0:
		order = r.each.ordered(client)
	case len(order) > 0:
		order = r.each.rotated(r.each.next(), len(order))
	}
	for _, a := range order {
		if len(out) == limit {
			return out
		}
		if r.svc.has(a, func(p overlay.ServicePort) bool { return p.Protocol == protocol && p.Port == port }) {
			out = append(out, a)
		}
	}
	return out
}

// Reached reports whether an address is that of an endpoint of a service, and
// the endpoint is reached as far as is known. It need not be among the nearest:
// who is with it already may stay.
func (s *Server) Reached(name string, addr netip.Addr) bool {
	r := s.serviceOf(name)
	return r != nil && r.svc.has(addr, nil)
}

// serviceOf returns the record of a service's name, nil if it is none.
func (s *Server) serviceOf(name string) *record {
	var space [maxName]byte
	wire, ok := appendName(space[:0], name)
	if !ok {
		return nil
	}
	if r := s.view.Load().names[string(wire)]; r != nil && r.svc != nil {
		return r
	}
	return nil
}

// has reports whether an endpoint that is reached has the address and, unless
// serves is nil, a port of that kind.
func (s *service) has(addr netip.Addr, serves func(overlay.ServicePort) bool) bool {
	return slices.ContainsFunc(s.live, func(i int32) bool {
		e := &s.Endpoints[i]
		return (e.Addr == addr || e.Addr6 == addr) && (serves == nil || slices.ContainsFunc(e.Ports, serves))
	})
}
