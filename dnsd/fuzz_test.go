package dnsd

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzRespond holds every message against what no reply may break, and the two
// paths against each other.
func FuzzRespond(f *testing.F) {
	for _, qtype := range []uint16{typeA, typeAAAA, typeANY, typeSOA, typeAXFR} {
		for _, name := range []string{"web.shop.svc.slice.local", "big.shop.svc.slice.local", "nope.slice.local", "example.com", `\000a\.b.slice.local`} {
			q := query(name, qtype)
			f.Add(pack(f, q))
			q.SetEdns0(1232, true)
			b := pack(f, q)
			f.Add(b)
			f.Add(b[:len(b)-3])
		}
	}
	for name, qtype := range map[string]uint16{"_http._tcp.virt.shop.svc.clusterset.local": typeSRV, "e0.east.head.shop.svc.slice.local": typeA,
		"2.1.1.10.in-addr.arpa": typePTR, "dns-version.slice.local": typeTXT, "dead.shop.svc.slice.local": typeA, "head.shop.svc.slice.local": typeSRV} {
		q := query(name, qtype)
		q.SetEdns0(1232, true)
		f.Add(pack(f, q))
	}
	f.Add(append(make([]byte, 5), 1, 0, 0, 0, 0, 0, 0, 0)) // a root name and no more
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"))
	s, err := New(Config{Zones: []string{"slice.local", "clusterset.local"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		s.Set(protocolView())
		reply := s.respond(nil, msg, maxUDP)
		if s.Stats().Panics != 0 {
			t.Fatal("panic")
		}
		if reply == nil {
			if len(msg) >= headerBytes && msg[2]&0x80 == 0 {
				t.Fatal("a query without a reply")
			}
			return
		}
		if len(reply) > maxUDP || len(reply) > plainUDP && msg[11] == 0 && msg[10] == 0 {
			t.Fatalf("%d bytes to a client that did not say it takes them", len(reply))
		}
		if !bytes.Equal(reply[:2], msg[:2]) || reply[2]&0x80 == 0 {
			t.Fatalf("header %x for %x", reply[:12], msg[:12])
		}
		var m dns.Msg
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("the reply does not parse: %v", err)
		}
		if rcode := m.Rcode; rcode == rcodeServFail {
			t.Fatal("SERVFAIL")
		}
		if len(m.Question) == 1 { // the question comes back as it was asked
			var space [maxName]byte
			_, end := readName(space[:0], msg, headerBytes)
			if end < 0 || !bytes.Equal(reply[headerBytes:end+4], msg[headerBytes:end+4]) {
				t.Fatal("another question")
			}
		}
		s.Set(protocolView()) // turns start anew
		view := s.view.Load()
		if quick, ok := view.quick(nil, msg, maxUDP); ok {
			s.Set(protocolView())
			next := s.view.Load()
			next.soa = view.soa // but for the serial
			compare(t, msg, quick, next.general(msg, maxUDP))
		}
	})
}

// FuzzUpstream has any bytes come back from upstream: whatever they are, they
// belong to the question or not, and what is made of them is ours to answer.
func FuzzUpstream(f *testing.F) {
	u := upstream{}
	q, err := u.question("www.example.com.", typeA)
	if err != nil {
		f.Fatal(err)
	}
	good := bytes.Clone(q)
	good[2] |= 0x80
	f.Add(good)
	f.Add(good[:20])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, reply []byte) {
		for _, stream := range []bool{false, true} {
			if !belongs(q, reply, stream) {
				continue
			}
			if !bytes.Equal(reply[:2], q[:2]) || !stream && !bytes.Contains(reply, q[headerBytes:headerBytes+17]) {
				t.Fatalf("%x is believed", reply)
			}
			var m dns.Msg
			if m.Unpack(reply) == nil && len(m.Question) == 1 {
				chain := chainOf(m.Question[0].Name, m.Answer)
				if len(chain) > maxChain*(1+len(m.Answer)) {
					t.Fatalf("%d records of %d", len(chain), len(m.Answer))
				}
				_ = u.guard("www.example.com", &m)
			}
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("web.shop.svc.slice.local")
	f.Add("A.")
	f.Add(strings.Repeat("a.", 127))
	f.Add(strings.Repeat("a", 63) + "." + strings.Repeat("b", 64))
	f.Fuzz(func(t *testing.T, name string) {
		wire, ok := appendName(nil, name)
		if !ok {
			return
		}
		if len(wire) > maxName || !dns.IsFqdn(dns.Fqdn(name)) {
			t.Fatalf("%d bytes", len(wire))
		}
		back, end := readName(nil, wire, 0)
		if end != len(wire) || !bytes.Equal(back, wire) {
			t.Fatalf("%q reads back as %q, %d", wire, back, end)
		}
		var want [maxName + 1]byte
		n, err := dns.PackDomainName(strings.ToLower(dns.Fqdn(name)), want[:], 0, nil, false)
		if err != nil || !bytes.Equal(want[:n], wire) {
			t.Fatalf("%q, miekg/dns says %q, %v", wire, want[:n], err)
		}
	})
}

// FuzzReadName reads names anywhere in a message.
func FuzzReadName(f *testing.F) {
	f.Add([]byte("\x03web\x05slice\x05local\x00"), uint8(0))
	f.Add(bytes.Repeat([]byte("\x01a"), 127), uint8(0))
	f.Add(append(bytes.Repeat([]byte("\x01a"), 127), 0), uint8(0))
	f.Add([]byte{0xc0, 0}, uint8(0))
	f.Fuzz(func(t *testing.T, msg []byte, off uint8) {
		name, next := readName(nil, msg, int(off))
		if next < 0 {
			return
		}
		if len(name) > maxName || next-int(off) != len(name) || name[len(name)-1] != 0 {
			t.Fatalf("%q, next %d", name, next)
		}
		for i := 0; i < len(name)-1; i += 1 + int(name[i]) {
			if name[i] == 0 || name[i] > maxLabel {
				t.Fatalf("label of %d bytes", name[i])
			}
		}
	})
}
