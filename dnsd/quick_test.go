package dnsd

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// TestBothPathsSayTheSame is the reason to trust the quick path: miekg/dns does
// the same work in its own way.
func TestBothPathsSayTheSame(t *testing.T) {
	const seed = 11
	rnd := rand.New(rand.NewPCG(seed, 0))
	names := []string{"web.shop.svc.slice.local", "v4.shop.svc.slice.local", "big.shop.svc.slice.local", "nope.slice.local",
		"mongo-0.mongodb.svc.cluster.local", "example.com", "slice.local", "svc.slice.local", `a\.b.slice.local`, "."}
	quickReplies := 0
	for i := range 4000 {
		q := query(names[rnd.IntN(len(names))], []uint16{typeA, typeAAAA}[rnd.IntN(2)])
		name := []byte(q.Question[0].Name)
		for i, c := range name {
			if 'a' <= c && c <= 'z' && rnd.IntN(2) == 0 {
				name[i] = c - 32
			}
		}
		q.Question[0].Name = string(name)
		q.Id, q.RecursionDesired, q.CheckingDisabled = uint16(rnd.Uint32()), rnd.IntN(2) == 0, rnd.IntN(2) == 0
		q.AuthenticatedData = rnd.IntN(2) == 0
		if rnd.IntN(2) == 0 {
			q.SetEdns0(uint16(rnd.IntN(2000)), rnd.IntN(2) == 0)
		}
		msg := pack(t, q)
		// Two views, so that their turns go alike.
		a, _ := newSnapshot([]zone{{wire: "\x05slice\x05local\x00"}}, DefaultTTL, 1, View{Entries: testEntries()})
		b, _ := newSnapshot([]zone{{wire: "\x05slice\x05local\x00"}}, DefaultTTL, 1, View{Entries: testEntries()})
		limit := []int{maxUDP, maxTCP}[rnd.IntN(2)]
		got, ok := a.quick(nil, msg, limit)
		if !ok {
			continue
		}
		quickReplies++
		compare(t, msg, got, b.general(msg, limit))
		if t.Failed() {
			t.Fatalf("seed %d, query %d", seed, i)
		}
	}
	if quickReplies < 3900 {
		t.Errorf("only %d of 4000 common queries went the quick way", quickReplies)
	}
}

func compare(t testing.TB, msg, quick, general []byte) {
	t.Helper()
	var q, g dns.Msg
	if q.Unpack(quick) != nil || g.Unpack(general) != nil {
		t.Fatalf("a reply to %x does not parse\nquick   %x\ngeneral %x", msg, quick, general)
	}
	// The owner of the SOA keeps the question's case on one path only.
	if a, b := strings.ToLower(q.String()), strings.ToLower(g.String()); a != b {
		t.Errorf("query %x\nquick:\n%s\ngeneral:\n%s", msg, a, b)
	}
}

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
