package dnsd

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// many is 100 addresses of each family: more than a UDP reply holds.
func many() (out []netip.Addr) {
	for i := range 100 {
		out = append(out, netip.AddrFrom4([4]byte{10, 1, 2, byte(i)}),
			netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)}))
	}
	return out
}

func testEntries() []Entry {
	return []Entry{
		{Name: "Web.Shop.svc.slice.local", Addrs: addrs("10.1.0.5", "fd00::5")},
		{Name: "web.shop.svc.slice.local.", Addrs: addrs("10.1.0.6", "::ffff:10.1.0.5", "fd00::6")}, // merged, one repeated
		{Name: "v4.shop.svc.slice.local", Addrs: addrs("10.1.0.7")},
		{Name: "pod-0.east.web.shop.svc.slice.local", Addrs: addrs("10.1.0.5")},
		{Name: "mongo-0.mongodb.svc.cluster.local", Addrs: addrs("10.1.0.9")}, // alias
		{Name: "big.shop.svc.slice.local", Addrs: many()},
		{Name: "none.shop.svc.slice.local"},
	}
}

func newServer(t testing.TB, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Set(View{Entries: testEntries()})
	return s
}

func query(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	return m
}

func pack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask sends a message through respond as UDP would and checks what holds for
// every reply.
func ask(t testing.TB, s *Server, msg []byte) *dns.Msg {
	t.Helper()
	reply := s.respond(nil, msg, maxUDP)
	if reply == nil {
		return nil
	}
	var m dns.Msg
	if err := m.Unpack(reply); err != nil {
		t.Fatalf("the reply does not parse: %v\n%x", err, reply)
	}
	if m.Id != binary.BigEndian.Uint16(msg) || !m.Response || m.RecursionAvailable || m.AuthenticatedData {
		t.Errorf("header %+v", m.MsgHdr)
	}
	if len(reply) > maxUDP {
		t.Errorf("a UDP reply of %d bytes", len(reply))
	}
	return &m
}

// show writes a reply in short: rcode, flags, answers, authority.
func show(m *dns.Msg) string {
	if m == nil {
		return "no reply"
	}
	parts := []string{dns.RcodeToString[m.Rcode]}
	if m.Rcode == rcodeBadVers { // shares its number with BADSIG
		parts[0] = "BADVERS"
	}
	if m.Authoritative {
		parts = append(parts, "aa")
	}
	if m.Truncated {
		parts = append(parts, "tc")
	}
	data := func(rr dns.RR) string {
		switch rr := rr.(type) {
		case *dns.A:
			return rr.A.String()
		case *dns.AAAA:
			return rr.AAAA.String()
		case *dns.SOA:
			return "soa:" + rr.Hdr.Name
		case *dns.HINFO:
			return "hinfo:" + rr.Cpu
		}
		return rr.String()
	}
	for _, rr := range m.Answer {
		parts = append(parts, data(rr))
	}
	for _, rr := range m.Ns {
		parts = append(parts, "auth-"+data(rr))
	}
	return strings.Join(parts, " ")
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, ask string
		qtype     uint16
		want      string
	}{
		{"A of a service with two endpoints", "web.shop.svc.slice.local", typeA, "NOERROR aa 10.1.0.5 10.1.0.6"},
		{"AAAA of the same", "web.shop.svc.slice.local", typeAAAA, "NOERROR aa fd00::5 fd00::6"},
		{"case does not matter", "WEB.sHoP.svc.SLICE.local", typeA, "NOERROR aa 10.1.0.5 10.1.0.6"},
		{"an endpoint's own name", "pod-0.east.web.shop.svc.slice.local", typeA, "NOERROR aa 10.1.0.5"},
		{"an alias outside the zones is ours", "mongo-0.mongodb.svc.cluster.local", typeA, "NOERROR aa 10.1.0.9"},
		{"the other family of an alias is no data, explained by itself", "mongo-0.mongodb.svc.cluster.local", typeAAAA, "NOERROR aa auth-soa:mongo-0.mongodb.svc.cluster.local."},
		{"a name below an alias is not ours", "x.mongo-0.mongodb.svc.cluster.local", typeA, "REFUSED"},
		{"a name above an alias is not ours", "mongodb.svc.cluster.local", typeA, "REFUSED"},
		{"the other family is no data", "v4.shop.svc.slice.local", typeAAAA, "NOERROR aa auth-soa:slice.local."},
		{"another type is no data", "v4.shop.svc.slice.local", dns.TypeMX, "NOERROR aa auth-soa:slice.local."},
		{"a name without addresses is no data", "none.shop.svc.slice.local", typeA, "NOERROR aa auth-soa:slice.local."},
		{"a name that only has names below it exists", "svc.slice.local", typeA, "NOERROR aa auth-soa:slice.local."},
		{"an unknown name", "nope.shop.svc.slice.local", typeA, "NXDOMAIN aa auth-soa:slice.local."},
		{"an unknown name, unusual type", "nope.shop.svc.slice.local", dns.TypeTXT, "NXDOMAIN aa auth-soa:slice.local."},
		{"a name below a service", "x.v4.shop.svc.slice.local", typeA, "NXDOMAIN aa auth-soa:slice.local."},
		{"the zone's SOA", "slice.local", typeSOA, "NOERROR aa soa:slice.local."},
		{"the zone's address", "slice.local", typeA, "NOERROR aa auth-soa:slice.local."},
		{"the SOA of a name below explains itself by the zone's", "svc.slice.local", typeSOA, "NOERROR aa auth-soa:slice.local."},
		{"ANY gets RFC 8482's answer", "web.shop.svc.slice.local", typeANY, "NOERROR aa hinfo:RFC8482"},
		{"ANY of an unknown name", "nope.slice.local", typeANY, "NXDOMAIN aa auth-soa:slice.local."},
		{"no recursion", "example.com", typeA, "REFUSED"},
		{"the root is not ours", ".", dns.TypeNS, "REFUSED"},
		{"a name that ends like the zone", "myslice.local", typeA, "REFUSED"},
		{"one label that ends in the zone's bytes", `x\005slice\005local.`, typeA, "REFUSED"},
		{"a dot inside a label is no separator", `web\.shop.svc.slice.local`, typeA, "NXDOMAIN aa auth-soa:slice.local."},
		{"binary labels", `\000\255\"\\.slice.local`, typeAAAA, "NXDOMAIN aa auth-soa:slice.local."},
		{"a zone transfer", "slice.local", typeAXFR, "REFUSED"},
		{"an incremental one", "slice.local", typeIXFR, "REFUSED"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, Config{})
			q := query(c.ask, c.qtype)
			m := ask(t, s, pack(t, q))
			if got := show(m); got != c.want {
				t.Errorf("%s %s: %s, want %s", c.ask, dns.TypeToString[c.qtype], got, c.want)
			}
			if len(m.Question) != 1 || m.Question[0].Name != q.Question[0].Name {
				t.Errorf("question %v, want it as asked (0x20)", m.Question)
			}
			if !m.RecursionDesired || m.IsEdns0() != nil {
				t.Errorf("RD %v, OPT %v: want RD copied and no OPT unasked", m.RecursionDesired, m.IsEdns0())
			}
			for _, rr := range append(m.Answer, m.Ns...) {
				if rr.Header().Ttl != 5 {
					t.Errorf("TTL of %v", rr)
				}
			}
		})
	}
}

func TestProtocol(t *testing.T) {
	plain := query("web.shop.svc.slice.local", typeA)
	edit := func(f func(*dns.Msg)) []byte {
		m := plain.Copy()
		m.Id = plain.Id
		f(m)
		return pack(t, m)
	}
	raw := func(f func([]byte) []byte) []byte { return f(pack(t, plain)) }
	opt := func(version uint8, size uint16) *dns.OPT {
		o := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: typeOPT}}
		o.SetVersion(version)
		o.SetUDPSize(size)
		return o
	}
	for _, c := range []struct {
		name string
		msg  []byte
		want string
	}{
		{"an empty datagram", nil, "no reply"},
		{"shorter than a header", raw(func(b []byte) []byte { return b[:11] }), "no reply"},
		{"a response", edit(func(m *dns.Msg) { m.Response = true }), "no reply"},
		{"a header alone", raw(func(b []byte) []byte { return b[:12] }), "FORMERR"},
		{"no question", edit(func(m *dns.Msg) { m.Question = nil }), "FORMERR"},
		{"two questions", edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		{"a question cut off", raw(func(b []byte) []byte { return b[:len(b)-1] }), "FORMERR"},
		{"a name that points at itself", raw(func(b []byte) []byte { return append(b[:12], 0xc0, 12, 0, 1, 0, 1) }), "FORMERR"},
		{"a label of 64 bytes", raw(func(b []byte) []byte { return append(b[:12], append([]byte{64}, make([]byte, 80)...)...) }), "FORMERR"},
		{"class CHAOS", edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "REFUSED"},
		{"class ANY", edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), "REFUSED"},
		{"NOTIFY", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), "NOTIMP"},
		{"UPDATE", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), "NOTIMP"},
		{"STATUS", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }), "NOTIMP"},
		{"EDNS version 0", edit(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0, 4096)} }), "NOERROR aa 10.1.0.5 10.1.0.6"},
		{"EDNS version 1", edit(func(m *dns.Msg) { m.Extra = []dns.RR{opt(1, 4096)} }), "BADVERS"},
		{"two OPT records", edit(func(m *dns.Msg) { m.Extra = []dns.RR{opt(0, 4096), opt(0, 4096)} }), "FORMERR"},
		{"OPT among the answers", edit(func(m *dns.Msg) { m.Answer = []dns.RR{opt(0, 4096)} }), "FORMERR"},
		{"OPT with an owner", edit(func(m *dns.Msg) { o := opt(0, 4096); o.Hdr.Name = "x."; m.Extra = []dns.RR{o} }), "FORMERR"},
		{"OPT as the question", edit(func(m *dns.Msg) { m.Question[0].Qtype = typeOPT }), "FORMERR"},
		{"an unknown option", edit(func(m *dns.Msg) {
			o := opt(0, 4096)
			o.Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}}
			m.Extra = []dns.RR{o}
		}), "NOERROR aa 10.1.0.5 10.1.0.6"},
		{"a cookie", edit(func(m *dns.Msg) {
			o := opt(0, 1232)
			o.Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: 10, Cookie: "0123456789abcdef"}}
			m.Extra = []dns.RR{o}
		}), "NOERROR aa 10.1.0.5 10.1.0.6"},
		{"an option longer than the record", raw(func(b []byte) []byte {
			b[11] = 1
			return append(b, 0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4, 0, 10, 0, 9)
		}), "FORMERR"},
		{"records that are promised and missing", raw(func(b []byte) []byte { b[11] = 3; return b }), "FORMERR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := ask(t, newServer(t, Config{}), c.msg)
			if got := show(m); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if m == nil || m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented {
				return
			}
			var asked dns.Msg
			if err := asked.Unpack(c.msg); err == nil && (asked.IsEdns0() == nil) != (m.IsEdns0() == nil) {
				t.Errorf("OPT in query and reply differ")
			}
			if o := m.IsEdns0(); o != nil && (o.Version() != 0 || o.UDPSize() != maxUDP || len(o.Option) != 0) {
				t.Errorf("OPT %v", o)
			}
		})
	}
}

func TestNoReplyIsLongerThanTheClientTakes(t *testing.T) {
	s := newServer(t, Config{})
	for _, c := range []struct {
		name      string
		size      uint16 // 0: no EDNS
		limit     int
		most      int
		truncated bool
	}{
		{"plain UDP", 0, maxUDP, 512, true},
		{"EDNS that says less than plain", 1, maxUDP, 512, true},
		{"EDNS 900", 900, maxUDP, 900, true},
		{"EDNS that says more than we send", 65535, maxUDP, 1232, true},
		{"TCP", 0, maxTCP, maxTCP, false},
		{"TCP with a small EDNS size, which is for UDP", 512, maxTCP, maxTCP, false},
	} {
		for _, qtype := range []uint16{typeA, typeAAAA} {
			q := query("big.shop.svc.slice.local", qtype)
			if c.size != 0 {
				q.SetEdns0(c.size, true)
			}
			msg := pack(t, q)
			view := s.view.Load()
			quick, ok := view.quick(nil, msg, c.limit)
			if !ok {
				t.Fatalf("%s: not on the quick path", c.name)
			}
			for path, reply := range map[string][]byte{"quick": quick, "general": view.general(msg, c.limit)} {
				var m dns.Msg
				if err := m.Unpack(reply); err != nil {
					t.Fatal(err)
				}
				if len(reply) > c.most || m.Truncated != c.truncated || len(m.Answer) == 0 || (len(m.Answer) == 100) == c.truncated {
					t.Errorf("%s, %s: %d bytes, TC %v, %d answers", c.name, path, len(reply), m.Truncated, len(m.Answer))
				}
				if o := m.IsEdns0(); (o != nil) != (c.size != 0) || o != nil && !o.Do() {
					t.Errorf("%s, %s: OPT %v", c.name, path, o)
				}
			}
		}
	}
}

func TestEndpointsTakeTurnsInEachFamily(t *testing.T) {
	s := newServer(t, Config{})
	for i := range 6 {
		for qtype, want := range map[uint16][]string{typeA: {"10.1.0.5", "10.1.0.6"}, typeAAAA: {"fd00::5", "fd00::6"}} {
			m := ask(t, s, pack(t, query("web.shop.svc.slice.local", qtype)))
			if got, first := show(m), want[i%2]; !strings.HasPrefix(got, "NOERROR aa "+first+" ") {
				t.Errorf("answer %d is %s, want %s first", i, got, first)
			}
		}
	}
}

func TestLookupSaysWhatDNSSays(t *testing.T) {
	s := newServer(t, Config{})
	for _, want := range [][]netip.Addr{
		addrs("10.1.0.5", "10.1.0.6", "fd00::5", "fd00::6"),
		addrs("10.1.0.6", "10.1.0.5", "fd00::6", "fd00::5"),
	} {
		got, ok := s.Lookup("WEB.shop.svc.slice.local.")
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%v %v, want %v", got, ok, want)
		}
		got[0] = netip.Addr{} // belongs to the caller
	}
	for _, name := range []string{"", ".", "..", "nope.slice.local", "slice.local", "svc.slice.local", "none.shop.svc.slice.local",
		"web..slice.local", `web\.shop.svc.slice.local`, "web shop", strings.Repeat("a", 64) + ".slice.local", strings.Repeat("a.", 200)} {
		if got, ok := s.Lookup(name); ok {
			t.Errorf("Lookup(%q) = %v", name, got)
		}
	}
	s.Set(View{Entries: []Entry{{Name: "bad name"}, {Name: "new.slice.local", Addrs: addrs("10.1.0.1")}}})
	if _, ok := s.Lookup("web.shop.svc.slice.local"); ok {
		t.Error("a name that was taken away is still there")
	}
	if got, ok := s.Lookup("new.slice.local"); !ok || len(got) != 1 {
		t.Error("the new name is not there")
	}
	if st := s.Stats(); st.Serial != 3 || st.Names != 3 {
		t.Errorf("stats %+v", st)
	}
}

func TestTheClosestZoneExplains(t *testing.T) {
	s := newServer(t, Config{Zones: []string{"slice.local", "deep.slice.local", "svc.clusterset.local"}})
	for name, want := range map[string]string{
		"x.deep.slice.local":     "deep.slice.local.",
		"x.slice.local":          "slice.local.",
		"x.svc.clusterset.local": "svc.clusterset.local.",
	} {
		m := ask(t, s, pack(t, query(name, typeA)))
		if len(m.Ns) != 1 || m.Ns[0].Header().Name != want || m.Ns[0].(*dns.SOA).Ns != "ns.dns.slice.local." {
			t.Errorf("%s: %v", name, m.Ns)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a zone that is no name": {Zones: []string{"a..b"}},
		"a zone without room":    {Zones: []string{strings.Repeat("abcdefgh.", 27)}},
		"a negative TTL":         {TTL: -1},
		"an absurd TTL":          {TTL: 1 << 62},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
