package dnsd

import (
	"encoding/binary"
	"net/netip"

	"github.com/miekg/dns"
)

// general answers any message by the book. It returns nil for what deserves no
// reply: a response (two servers would answer each other for ever) and what is
// too short to carry an id.
func (s *snapshot) general(msg []byte, limit int) []byte {
	if len(msg) < headerBytes {
		return nil
	}
	flags := binary.BigEndian.Uint16(msg[2:])
	switch {
	case flags&flagQR != 0:
		return nil
	case flags&opcodeMask != 0:
		return headerOnly(msg, rcodeNotImp)
	case binary.BigEndian.Uint16(msg[4:]) != 1:
		return headerOnly(msg, rcodeFormErr)
	}
	var space [maxName]byte
	name, end := readName(space[:0], msg, headerBytes)
	var q dns.Msg
	if end < 0 || end+4 > len(msg) || q.Unpack(msg) != nil || len(q.Question) != 1 || q.Question[0].Qtype == typeOPT {
		return headerOnly(msg, rcodeFormErr)
	}
	opt, ok := optOf(&q)
	if !ok || !complete(&q, msg) {
		return headerOnly(msg, rcodeFormErr)
	}

	var v verdict
	if opt != nil && opt.Version() != 0 {
		v = verdict{rcode: rcodeBadVers}
	} else {
		v = s.decide(name, q.Question[0].Qtype, q.Question[0].Qclass)
	}
	reply := s.compose(&q, v)
	size := plainUDP
	if opt != nil {
		size = int(opt.UDPSize())
		addOPT(reply, opt.Do(), v.why())
	}
	return packWithin(reply, msg, replyLimit(limit, size))
}

// addOPT adds our OPT record, with an extended error if there is one.
func addOPT(reply *dns.Msg, do bool, why uint16) {
	reply.SetEdns0(maxUDP, do)
	if why != edeNone {
		opt := reply.IsEdns0()
		opt.Option = append(opt.Option, &dns.EDNS0_EDE{InfoCode: why})
	}
}

// packWithin makes a reply of at most limit bytes of m: additional records go
// first, without a word; what is needed and does not fit is said by TC.
func packWithin(m *dns.Msg, msg []byte, limit int) []byte {
	out, err := m.Pack()
	if err == nil && len(out) > limit {
		opt := m.IsEdns0()
		m.Extra = nil
		if opt != nil {
			m.Extra = []dns.RR{opt}
		}
		m.Truncate(limit)
		out, err = m.Pack()
		if err == nil && len(out) > limit { // Truncate does not go below 512
			m.Answer, m.Ns, m.Truncated = nil, nil, true
			out, err = m.Pack()
		}
	}
	if err != nil {
		return headerOnly(msg, rcodeServFail)
	}
	return out
}

// complete reports whether q has as many records as its header promises, which
// miekg/dns does not insist on.
func complete(q *dns.Msg, msg []byte) bool {
	count := func(i int) int { return int(binary.BigEndian.Uint16(msg[i:])) }
	return len(q.Answer) == count(6) && len(q.Ns) == count(8) && len(q.Extra) == count(10)
}

// optOf returns the query's OPT record, if it has one, and false if it has
// several, or one where none may be.
func optOf(q *dns.Msg) (opt *dns.OPT, ok bool) {
	for _, section := range [...][]dns.RR{q.Answer, q.Ns} {
		for _, rr := range section {
			if rr.Header().Rrtype == typeOPT {
				return nil, false
			}
		}
	}
	for _, rr := range q.Extra {
		if rr.Header().Rrtype != typeOPT {
			continue
		}
		o, is := rr.(*dns.OPT)
		if !is || opt != nil || o.Hdr.Name != "." {
			return nil, false
		}
		opt = o
	}
	return opt, true
}

func (s *snapshot) compose(q *dns.Msg, v verdict) *dns.Msg {
	reply := new(dns.Msg).SetReply(q)
	reply.Compress = true
	reply.Rcode = v.rcode
	reply.Authoritative = v.authoritative() && v.rcode != rcodeBadVers
	name := q.Question[0].Name
	header := func(owner string, rrtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: owner, Rrtype: rrtype, Class: classIN, Ttl: s.ttl}
	}
	switch {
	case v.addrs != nil:
		for _, a := range v.addrs.rotated(v.addrs.next(), v.addrs.count()) {
			reply.Answer = append(reply.Answer, addressRR(header, name, a))
		}
	case v.minAny:
		reply.Answer = []dns.RR{&dns.HINFO{Hdr: header(name, dns.TypeHINFO), Cpu: "RFC8482"}}
	case v.text != "":
		reply.Answer = []dns.RR{&dns.TXT{Hdr: header(name, typeTXT), Txt: []string{v.text}}}
	case len(v.ptr) > 0:
		for _, n := range v.ptr {
			reply.Answer = append(reply.Answer, &dns.PTR{Hdr: header(name, typePTR), Ptr: dns.Fqdn(n)})
		}
	case v.srv != nil:
		zone := ownerOf(name, v.soa)
		targets := v.srv.targets(v.ports, v.mcs)
		for _, t := range targets {
			at := t.name + "." + zone
			reply.Answer = append(reply.Answer, &dns.SRV{Hdr: header(name, typeSRV), Weight: 1, Port: t.port, Target: at})
			for _, a := range t.srvAddrs() {
				reply.Extra = append(reply.Extra, addressRR(header, at, a))
			}
		}
		reply.Extra = dns.Dedup(reply.Extra, nil)
		if len(targets) > 0 {
			break
		}
		fallthrough
	case v.soa > 0:
		soa := s.soaRR(header(ownerOf(name, v.soa), typeSOA))
		if v.apex {
			reply.Answer = []dns.RR{soa}
		} else {
			reply.Ns = []dns.RR{soa}
		}
	}
	return reply
}

func addressRR(header func(string, uint16) dns.RR_Header, name string, a netip.Addr) dns.RR {
	if a.Is4() {
		return &dns.A{Hdr: header(name, typeA), A: a.AsSlice()}
	}
	return &dns.AAAA{Hdr: header(name, typeAAAA), AAAA: a.AsSlice()}
}

// soaRR unpacks our SOA data, so that there is one source of it.
func (s *snapshot) soaRR(h dns.RR_Header) dns.RR {
	primary, off, err := dns.UnpackDomainName(s.soa, 0)
	mailbox, off, err2 := dns.UnpackDomainName(s.soa, off)
	if err != nil || err2 != nil {
		panic("dnsd: our own SOA is malformed")
	}
	n := func(i int) uint32 { return binary.BigEndian.Uint32(s.soa[off+4*i:]) }
	return &dns.SOA{Hdr: h, Ns: primary, Mbox: mailbox,
		Serial: n(0), Refresh: n(1), Retry: n(2), Expire: n(3), Minttl: n(4)}
}

// ownerOf returns the end of a name in presentation form that is wire bytes
// long in wire form.
func ownerOf(name string, wire int) string {
	for off, end := 0, false; !end; off, end = dns.NextLabel(name, off) {
		var space [maxName]byte
		if n, err := dns.PackDomainName(name[off:], space[:], 0, nil, false); err == nil && n == wire {
			return name[off:]
		}
	}
	return "."
}

// headerOnly is the reply to a message that we do not take apart: its id,
// opcode and RD bit, and what is wrong with it. nil for what has no header.
func headerOnly(msg []byte, rcode uint16) []byte {
	if len(msg) < headerBytes {
		return nil
	}
	out := make([]byte, headerBytes)
	copy(out, msg[:2])
	flags := binary.BigEndian.Uint16(msg[2:])
	binary.BigEndian.PutUint16(out[2:], flagQR|flags&(opcodeMask|flagRD)|rcode)
	return out
}
