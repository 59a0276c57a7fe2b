package dnsd

import (
	"net/netip"

	"slicewire/overlay"
)

// The parts of RFC 1035, 2782, 3596, 6891, 8482, 8914 that answers are made of.
const (
	classIN = 1

	typeA    = 1
	typeSOA  = 6
	typePTR  = 12
	typeTXT  = 16
	typeAAAA = 28
	typeSRV  = 33
	typeOPT  = 41
	typeIXFR = 251
	typeAXFR = 252
	typeANY  = 255

	rcodeSuccess  = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5
	rcodeBadVers  = 16

	// RFC 8914: why there is no better answer.
	edeNone             = 0xffff
	edeStale            = 3
	edeBlocked          = 15
	edeNotAuthoritative = 20
	edeNoReachable      = 22
	edeNetwork          = 23
)

// arpa is the domain that the names of addresses lie in.
const arpa = "\x04arpa\x00"

// A verdict is what to say to a question, before it is made into bytes.
type verdict struct {
	rcode  int
	addrs  *addrSet // the addresses to answer with, or nil
	minAny bool     // answer with RFC 8482's HINFO
	soa    int      // how many bytes at the end of the question's name own the SOA; 0 for none
	apex   bool     // the SOA is the answer itself and not an explanation

	srv   *service              // answer with where these of its ports are served
	ports []overlay.ServicePort // of srv
	mcs   bool                  // by the rules of KEP-1645
	ptr   []string              // answer with these names
	text  string                // answer with this text
	lost  bool                  // the name has endpoints, but none can be reached
}

// authoritative reports whether we speak for the question's name.
func (v verdict) authoritative() bool { return v.rcode != rcodeRefused }

// why returns the extended error that explains the verdict.
func (v verdict) why() uint16 {
	switch {
	case v.rcode == rcodeRefused:
		return edeNotAuthoritative
	case v.lost:
		return edeNoReachable
	}
	return edeNone
}

// decide answers a question for a name in lower-case wire form.
func (s *snapshot) decide(name []byte, qtype, qclass uint16) verdict {
	refused := verdict{rcode: rcodeRefused}
	if qclass != classIN || qtype == typeAXFR || qtype == typeIXFR {
		return refused
	}
	r := s.names[string(name)]
	if r != nil && r.exact {
		return r.decide(verdict{soa: len(name)}, qtype)
	}
	z := s.zoneOf(name)
	switch {
	case z == nil:
		if len(s.networks) > 0 && below(name, arpa) {
			if v, ours := s.decideReverse(name, labelsOf(name), qtype); ours {
				return s.lenientOf(v)
			}
		}
		return refused
	case r == nil:
		return s.lenientOf(s.decideMissing(name, z, qtype))
	case qtype == typeSOA && len(z.wire) == len(name):
		return verdict{soa: len(name), apex: true}
	}
	return r.decide(verdict{soa: len(z.wire), mcs: z.mcs}, qtype)
}

// decide answers for a name that has a record. empty is the answer without data.
func (r *record) decide(empty verdict, qtype uint16) verdict {
	v := empty
	switch {
	case qtype == typeA && len(r.v4.addrs) > 0:
		return verdict{addrs: &r.v4}
	case qtype == typeAAAA && len(r.v6.addrs) > 0:
		return verdict{addrs: &r.v6}
	case qtype == typeANY:
		return verdict{minAny: true}
	case qtype == typeTXT && r.text != "":
		v.text = r.text
	case r.svc == nil:
	case qtype == typeSRV && !r.exact:
		v.srv, v.ports = r.svc, r.svc.Ports
	case len(r.svc.live) == 0 && len(r.svc.Endpoints) > 0:
		v.lost = true
	}
	return v
}

// decideMissing answers for a name in a zone that has no record: it lies below
// a service's, or it does not exist.
func (s *snapshot) decideMissing(name []byte, z *zone, qtype uint16) verdict {
	for off := 1 + int(name[0]); off < len(name)-len(z.wire); off += 1 + int(name[off]) {
		r := s.names[string(name[off:])]
		if r == nil {
			continue
		}
		if r.svc == nil {
			break
		}
		v := s.decideBelow(r.svc, labelsOf(name[:off]), z.mcs, len(z.wire), qtype)
		v.mcs = z.mcs
		return v
	}
	return verdict{rcode: rcodeNXDomain, soa: len(z.wire)}
}

// lenientOf is a verdict as KubeSlice's DNS would have it, where that is asked for.
func (s *snapshot) lenientOf(v verdict) verdict {
	if s.lenient && v.rcode == rcodeNXDomain {
		v.rcode = rcodeSuccess
	}
	return v
}

// labelsOf splits a name in wire form, with or without its final zero.
func labelsOf(name []byte) (out []string) {
	for off := 0; off < len(name) && name[off] != 0; off += 1 + int(name[off]) {
		out = append(out, string(name[off+1:off+1+int(name[off])]))
	}
	return out
}

// srvAddrs lists the addresses of a target, for the additional section.
func (t target) srvAddrs() (out []netip.Addr) {
	for _, a := range t.addrs {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
