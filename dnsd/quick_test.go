package dnsd

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"
)

func BenchmarkQuick(b *testing.B) {
	s := newServer(b, Config{})
	for _, c := range []struct {
		name string
		q    *dns.Msg
	}{
		{"A", query("web.shop.svc.slice.local", typeA)},
		{"NXDOMAIN", query("nope.shop.svc.slice.local", typeA)},
		{"refused", query("www.example.com", typeA)},
	} {
		b.Run(c.name, func(b *testing.B) {
			c.q.SetEdns0(1232, false)
			msg := pack(b, c.q)
			want := ask(b, s, msg)
			out := make([]byte, 0, maxUDP)
			b.ReportAllocs()
			for b.Loop() {
				if reply := s.respond(out, msg, maxUDP); binary.BigEndian.Uint16(reply[6:]) != uint16(len(want.Answer)) {
					b.Fatal("another answer")
				}
			}
		})
	}
}

func BenchmarkGeneral(b *testing.B) {
	s := newServer(b, Config{})
	msg := pack(b, query("web.shop.svc.slice.local", dns.TypeTXT))
	b.ReportAllocs()
	for b.Loop() {
		if s.respond(nil, msg, maxUDP) == nil {
			b.Fatal("no reply")
		}
	}
}

func TestTheQuickPathDoesNotAllocate(t *testing.T) {
	s := newServer(t, Config{})
	out := make([]byte, 0, maxUDP)
	for _, name := range []string{"web.shop.svc.slice.local", "big.shop.svc.slice.local", "nope.slice.local", "example.com"} {
		q := query(name, typeA)
		q.SetEdns0(1232, true)
		msg := pack(t, q)
		if n := testing.AllocsPerRun(100, func() { s.respond(out, msg, maxUDP) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
