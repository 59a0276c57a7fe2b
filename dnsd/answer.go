package dnsd

// The parts of RFC 1035, 3596, 6891, 8482 that answers are made of.
const (
	classIN = 1

	typeA    = 1
	typeSOA  = 6
	typeAAAA = 28
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
)

// A verdict is what to say to a question, before it is made into bytes.
type verdict struct {
	rcode  int
	addrs  *addrSet // the addresses to answer with, or nil
	minAny bool     // answer with RFC 8482's HINFO
	soa    int      // how many bytes at the end of the question's name own the SOA; 0 for none
	apex   bool     // the SOA is the answer itself and not an explanation
}

// authoritative reports whether we speak for the question's name.
func (v verdict) authoritative() bool { return v.rcode != rcodeRefused }

// decide answers a question for a name in lower-case wire form.
func (s *snapshot) decide(name []byte, qtype, qclass uint16) verdict {
	refused := verdict{rcode: rcodeRefused}
	if qclass != classIN || qtype == typeAXFR || qtype == typeIXFR {
		return refused
	}
	r := s.names[string(name)]
	owner := len(name)
	if r == nil || !r.exact {
		owner = len(s.zoneOf(name))
	}
	switch {
	case owner == 0:
		return refused
	case r == nil:
		return verdict{rcode: rcodeNXDomain, soa: owner}
	case qtype == typeA && len(r.v4.addrs) > 0:
		return verdict{addrs: &r.v4}
	case qtype == typeAAAA && len(r.v6.addrs) > 0:
		return verdict{addrs: &r.v6}
	case qtype == typeANY:
		return verdict{minAny: true}
	case qtype == typeSOA && owner == len(name):
		return verdict{soa: owner, apex: true}
	}
	return verdict{soa: owner} // the name exists without such data
}
