package dnsd

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// A resolver is an upstream: miekg/dns with the answers of a function, nil for none.
type resolver struct {
	addr     netip.AddrPort
	udp, tcp atomic.Int64
	down     atomic.Bool
}

func upstreamOf(t *testing.T, answer func(q *dns.Msg, network string) []*dns.Msg) *resolver {
	t.Helper()
	pc, l := bothPorts(t)
	r := &resolver{addr: pc.LocalAddr().(*net.UDPAddr).AddrPort()}
	handle := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		network := w.LocalAddr().Network()
		if network == "udp" {
			r.udp.Add(1)
		} else {
			r.tcp.Add(1)
		}
		if r.down.Load() {
			m := new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
			_ = w.WriteMsg(m)
			return
		}
		for _, m := range answer(q, network) {
			_ = w.WriteMsg(m)
		}
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: handle}, {Listener: l, Handler: handle}} {
		started, done := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe(); close(done) }()
		<-started
		t.Cleanup(func() { _ = s.Shutdown(); <-done })
	}
	return r
}

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replying answers with records below a query's name.
func replying(t testing.TB, records ...string) func(*dns.Msg, string) []*dns.Msg {
	return func(q *dns.Msg, _ string) []*dns.Msg {
		m := new(dns.Msg).SetReply(q)
		for _, r := range records {
			m.Answer = append(m.Answer, rr(t, strings.ReplaceAll(r, "@", q.Question[0].Name)))
		}
		return []*dns.Msg{m}
	}
}

func exchange(t *testing.T, addr *net.UDPAddr, q *dns.Msg) *dns.Msg {
	t.Helper()
	c := dns.Client{Timeout: 5 * time.Second}
	m, _, err := c.Exchange(q, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestOtherNamesAreAskedUpstreamForThisMachineOnly(t *testing.T) {
	up := upstreamOf(t, replying(t, "@ 300 IN A 192.0.43.8"))
	s, addr := listening(t, Config{Upstream: []netip.AddrPort{up.addr}}, View{Entries: testEntries()})
	for range 3 {
		m := exchange(t, addr, query("WWW.example.COM", typeA))
		if len(m.Answer) != 1 || m.Answer[0].Header().Name != "WWW.example.COM." || !m.RecursionAvailable || m.Authoritative {
			t.Fatalf("got %v", m)
		}
	}
	if n := up.udp.Load(); n != 1 {
		t.Errorf("asked %d times: nothing is remembered", n)
	}
	if m := exchange(t, addr, query("nope.slice.local", typeA)); m.Rcode != rcodeNXDomain {
		t.Errorf("a name of ours: %v", m)
	}
	for _, name := range []string{"printer.local", "localhost", "x.invalid", "."} {
		if m := exchange(t, addr, query(name, typeA)); m.Rcode != rcodeRefused {
			t.Errorf("%s: %v", name, m)
		}
	}
	if n := up.udp.Load(); n != 1 {
		t.Errorf("names of this machine were asked upstream")
	}
	view := s.view.Load()
	q := pack(t, query("www.example.com", typeA))
	if stranger := netip.MustParseAddr("10.1.0.9"); s.wants(view, stranger, q) {
		t.Error("a stranger's question is forwarded")
	}
	s.Set(View{Forward: addrs("10.1.0.9")})
	if !s.wants(s.view.Load(), netip.MustParseAddr("10.1.0.9"), q) {
		t.Error("that of a program that was run here is not")
	}
	norec := query("www.example.com", typeA)
	norec.RecursionDesired = false
	if s.wants(view, netip.MustParseAddr("127.0.0.1"), pack(t, norec)) {
		t.Error("a question without RD is forwarded")
	}
}

// Whoever knows the port, the server's address and the question, and guesses
// the rest at random, a million times, is believed nothing.
func TestForgedAnswersAreNotBelieved(t *testing.T) {
	var u upstream
	rnd := rand.New(rand.NewPCG(5, 6))
	accepted, tries := 0, 0
	for tries < 1_000_000 {
		q, err := u.question("www.some-internet-site.example.com.", typeA)
		if err != nil {
			t.Fatal(err)
		}
		m := query("www.some-internet-site.example.com", typeA)
		forged := pack(t, m)
		forged[2] |= 0x80
		for range maxDoubt {
			tries++
			forged[0], forged[1] = byte(rnd.Uint32()), byte(rnd.Uint32())
			if tries%2 == 0 { // the id is known, too
				forged[0], forged[1] = q[0], q[1]
			}
			for i := headerBytes; i < len(forged)-5; i++ {
				if c := lower(forged[i]); 'a' <= c && c <= 'z' {
					forged[i] = c &^ (byte(rnd.Uint32()) & 0x20)
				}
			}
			if belongs(q, forged, false) {
				accepted++
			}
		}
		if tries == maxDoubt { // the test can fail
			copy(forged[headerBytes:], q[headerBytes:len(forged)])
			if forged[0], forged[1] = q[0], q[1]; !belongs(q, forged, false) {
				t.Fatal("the true answer is not believed")
			}
		}
	}
	if accepted != 0 {
		t.Errorf("%d of %d forged answers are believed", accepted, tries)
	}
}

func TestQuestionsCannotBePredicted(t *testing.T) {
	var u upstream
	ids, cases := make(map[uint16]bool), make(map[string]bool)
	for range 1000 {
		q, err := u.question("abcdefghijkl.example.com.", typeA)
		if err != nil {
			t.Fatal(err)
		}
		ids[uint16(q[0])<<8|uint16(q[1])], cases[string(q[12:30])] = true, true
	}
	if len(ids) < 950 || len(cases) < 950 {
		t.Errorf("%d ids and %d spellings in 1000 questions", len(ids), len(cases))
	}
}

func TestWhatUpstreamMayNotSay(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(*dns.Msg, string) []*dns.Msg
		want   string
		tcp    int64
	}{
		{"an answer", replying(t, "@ 60 IN A 192.0.43.8"), "NOERROR 192.0.43.8", 0},
		{"an alias", replying(t, "@ 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.43.8"), "NOERROR b.example. 192.0.43.8", 0},
		{"somebody else's record", replying(t, "@ 60 IN A 192.0.43.8", "bank.example. 60 IN A 192.0.43.9"), "NOERROR 192.0.43.8", 0},
		{"an alias in a circle", replying(t, "@ 60 IN CNAME @"), "NOERROR " + strings.TrimSuffix(strings.Repeat("www.example.com. ", maxChain), " "), 0},
		{"loopback", replying(t, "@ 60 IN A 127.0.0.1"), "REFUSED", 0},
		{"a private address", replying(t, "@ 60 IN A 10.1.0.5"), "REFUSED", 0},
		{"a private address behind an alias", replying(t, "@ 60 IN CNAME b.example.", "b.example. 60 IN A 192.168.1.1"), "REFUSED", 0},
		{"an embedded one", replying(t, "@ 60 IN AAAA ::ffff:10.0.0.1"), "REFUSED", 0},
		{"one behind NAT64", replying(t, "@ 60 IN AAAA 64:ff9b::a00:1"), "REFUSED", 0},
		{"a unique local one", replying(t, "@ 60 IN AAAA fd00::1"), "REFUSED", 0},
		{"link local", replying(t, "@ 60 IN A 169.254.169.254"), "REFUSED", 0},
		{"a virtual one of ours", replying(t, "@ 60 IN A 198.18.0.7"), "REFUSED", 0},
		{"a hint", replying(t, "@ 60 IN HTTPS 1 . ipv4hint=10.0.0.1"), "REFUSED", 0},
		{"that it failed", func(q *dns.Msg, _ string) []*dns.Msg {
			return []*dns.Msg{new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)}
		}, "SERVFAIL", 0},
		{"no such name", func(q *dns.Msg, _ string) []*dns.Msg { return []*dns.Msg{new(dns.Msg).SetRcode(q, dns.RcodeNameError)} }, "NXDOMAIN", 0},
		{"cut off", func(q *dns.Msg, network string) []*dns.Msg {
			m := replying(t, "@ 60 IN A 192.0.43.8")(q, network)[0]
			if network == "udp" {
				m.Answer, m.Truncated = nil, true
			}
			return []*dns.Msg{m}
		}, "NOERROR 192.0.43.8", 1},
		{"two guesses before", func(q *dns.Msg, network string) []*dns.Msg {
			bad := replying(t, "@ 60 IN A 192.0.43.66")(q, network)[0]
			bad.Id++
			return []*dns.Msg{bad, bad, replying(t, "@ 60 IN A 192.0.43.8")(q, network)[0]}
		}, "NOERROR 192.0.43.8", 0},
		{"many guesses", func(q *dns.Msg, network string) []*dns.Msg {
			if network == "tcp" {
				return replying(t, "@ 60 IN A 192.0.43.8")(q, network)
			}
			bad := replying(t, "@ 60 IN A 192.0.43.66")(q, network)[0]
			bad.Id++
			return []*dns.Msg{bad, bad, bad, bad}
		}, "NOERROR 192.0.43.8", 1},
		{"in lower case", func(q *dns.Msg, network string) []*dns.Msg {
			m := replying(t, "@ 60 IN A 192.0.43.8")(q, network)[0]
			m.Question[0].Name = strings.ToLower(m.Question[0].Name)
			return []*dns.Msg{m, m, m}
		}, "NOERROR 192.0.43.8", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := upstreamOf(t, c.answer)
			_, addr := listening(t, Config{Upstream: []netip.AddrPort{up.addr}, Private: []string{"corp.example"}}, View{})
			qtype := uint16(typeA)
			m := exchange(t, addr, query("www.example.com", qtype))
			if got := strings.ToLower(brief(m)); got != strings.ToLower(c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
			if n := up.tcp.Load(); n != c.tcp {
				t.Errorf("asked %d times by TCP, want %d", n, c.tcp)
			}
		})
	}
}

func TestPrivateZonesMayHavePrivateAddresses(t *testing.T) {
	up := upstreamOf(t, replying(t, "@ 60 IN A 10.1.0.5"))
	_, addr := listening(t, Config{Upstream: []netip.AddrPort{up.addr}, Private: []string{"corp.example"}}, View{})
	if got := brief(exchange(t, addr, query("git.Corp.example", typeA))); got != "NOERROR 10.1.0.5" {
		t.Error(got)
	}
	if got := brief(exchange(t, addr, query("git.notcorp.example", typeA))); got != "REFUSED" {
		t.Error(got)
	}
}

func TestOldAnswersAndFailures(t *testing.T) {
	up := upstreamOf(t, replying(t, "@ 60 IN A 192.0.43.8"))
	f, err := newForwarder([]netip.AddrPort{up.addr}, nil)
	if err != nil {
		t.Fatal(err)
	}
	q, now := asked{"www.example.com.", typeA}, time.Now()
	ask := func(after time.Duration) (*remembered, source) {
		return f.answer(context.Background(), q, now.Add(after))
	}
	if got, from := ask(0); got.msg == nil || from != fromUpstream {
		t.Fatalf("got %+v", got)
	}
	up.down.Store(true)
	if got, from := ask(30 * time.Second); got.msg == nil || from != fromCache {
		t.Errorf("fresh: %+v", got)
	}
	if got, from := ask(2 * time.Hour); got.msg == nil || from != fromStale {
		t.Errorf("an hour old and nobody answers: %+v", got)
	}
	if got, from := ask(25 * time.Hour); got.msg != nil || !errors.Is(got.err, errUnanswered) || from != fromNowhere {
		t.Errorf("a day old: %+v", got)
	}
	q.name = "other.example.com."
	before := up.udp.Load()
	for range 5 {
		if got, _ := ask(0); !errors.Is(got.err, errUnanswered) {
			t.Errorf("never known: %+v", got)
		}
	}
	if n := up.udp.Load() - before; n != 1 {
		t.Errorf("a failure is asked again %d times at once", n)
	}
}

func TestALoopEnds(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// The server is its own upstream.
	s, _ := listening(t, Config{Upstream: []netip.AddrPort{pc.LocalAddr().(*net.UDPAddr).AddrPort()}, Packet: []net.PacketConn{pc}}, View{})
	for range 20 {
		if m := exchange(t, pc.LocalAddr().(*net.UDPAddr), query("www.example.com", typeA)); m.Rcode != rcodeServFail {
			t.Errorf("got %v", m)
		}
	}
	if n := s.Stats().Forwarded; n != 1 {
		t.Errorf("asked %d times", n)
	}
}
