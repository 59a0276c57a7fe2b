package dnsd

import (
	"fmt"
	"net/netip"
	"testing"
)

func TestTheSameAnswerHasARate(t *testing.T) {
	l := newLimiter(100)
	s := newServer(t, Config{})
	reply := func(name string) []byte { return s.respond(nil, pack(t, query(name, typeA)), maxUDP) }
	a, b := netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.2.0.1")
	count := func(client netip.Addr, now uint64, n int, name func(int) string) (passed int) {
		for i := range n {
			if l.take(l.key(client, reply(name(i))), now) {
				passed++
			}
		}
		return passed
	}
	web := func(int) string { return "web.shop.svc.slice.local" }
	for _, c := range []struct {
		name   string
		client netip.Addr
		now    uint64 // in 1/100 s
		asks   int
		ask    func(int) string
		want   int
	}{
		{"a second's worth at once", a, 0, 1000, web, 100},
		{"another case is the same question", a, 0, 100, func(i int) string { return []string{"WEB", "Web"}[i%2] + ".shop.svc.slice.local" }, 0},
		{"the rest of the network shares it", netip.MustParseAddr("10.1.0.77"), 0, 100, web, 0},
		{"another network does not", b, 0, 50, web, 50},
		{"another question does not", a, 0, 50, func(int) string { return "v4.shop.svc.slice.local" }, 50},
		{"a tenth of a second gives a tenth", a, 10, 1000, web, 10},
		{"a long time gives no more than a second's worth", a, 100000, 1000, web, 100},
		{"random names that do not exist are one", a, 200000, 1000, func(i int) string { return fmt.Sprintf("x%d.slice.local", i) }, 100},
	} {
		if got := count(c.client, c.now, c.asks, c.ask); got != c.want {
			t.Errorf("%s: %d passed, want %d", c.name, got, c.want)
		}
	}
	if newLimiter(-1).judge(a, reply("web.shop.svc.slice.local")) != fateSend {
		t.Error("no rate at all bounds something")
	}
}

func BenchmarkLimit(b *testing.B) {
	l := newLimiter(DefaultRate)
	s := newServer(b, Config{})
	reply := s.respond(nil, pack(b, query("web.shop.svc.slice.local", typeA)), maxUDP)
	client := netip.MustParseAddr("10.1.0.1")
	b.ReportAllocs()
	for b.Loop() {
		l.judge(client, reply)
	}
}
