package publish

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
)

func exchange(t testing.TB, c net.Conn, what string) string {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("no answer to %.20q: %v", what, err)
	}
	return string(buf[:n])
}

func TestDatagramsReachTheirTargetsInFlowsOfTheirOwn(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	dns := datagrams(t, "dns", "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(dns)
	set(t, p, Backend{Name: "dns", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}, Ports: []Port{
		{Name: "dns", Port: 53, Protocol: overlay.UDP, Target: dns},
		{Name: "name", Port: 54, Protocol: overlay.UDP, Target: "localhost:" + port},
	}})
	a, b := s.dial(t, udp("10.1.0.5:53"), 1), s.dial(t, udp("[fd00::5]:53"), 2)
	for range 3 {
		for _, c := range []net.Conn{a, b, s.dial(t, udp("10.1.0.5:54"), 1)} {
			for _, what := range []string{"hello", "", strings.Repeat("x", 60000)} {
				if got := exchange(t, c, what); got != "dns:"+what {
					t.Errorf("%.20q for %.20q", got, what)
				}
			}
		}
	}
	if x, y := exchange(t, a, "who"), exchange(t, b, "who"); x == y || x != exchange(t, a, "who") {
		t.Errorf("the target sees %s and %s", x, y)
	}
	st := p.Status()[0]
	if st.Flows != 5 || st.Accepted != 5 || st.Dropped != 0 || st.LastFault != "" {
		t.Errorf("status %+v", st)
	}
}

func TestAnotherTargetBeginsFlowsAnew(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	port := Port{Port: 53, Protocol: overlay.UDP, Target: datagrams(t, "old", "127.0.0.1:0")}
	set(t, p, backend("dns", "10.1.0.5", port))
	c := s.dial(t, udp("10.1.0.5:53"), 1)
	if got := exchange(t, c, "x"); got != "old:x" {
		t.Error(got)
	}
	port.Target = datagrams(t, "new", "127.0.0.1:0")
	set(t, p, backend("dns", "10.1.0.5", port))
	if got := exchange(t, c, "x"); got != "new:x" {
		t.Error(got)
	}
	eventually(t, "the old flow gone", func() bool { return p.Status()[0].Flows == 1 })
}

func TestIdleFlowsEnd(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{UDPIdle: 50 * time.Millisecond})
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: datagrams(t, "dns", "127.0.0.1:0")}))
	c := s.dial(t, udp("10.1.0.5:53"), 1)
	for range 2 { // a flow that ended begins again
		exchange(t, c, "x")
		eventually(t, "flow gone", func() bool { return p.Status()[0].Flows == 0 })
	}
	if st := p.Status()[0]; st.Accepted != 2 || st.Evicted != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestATargetThatComesBackIsServedByTheSameFlow(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc.Close()
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: pc.LocalAddr().String()}))
	c := s.dial(t, udp("10.1.0.5:53"), 1)
	eventually(t, "the refusal seen", func() bool {
		c.Write([]byte("x"))
		st := p.Status()[0]
		return st.Unreached > 0 && strings.Contains(st.LastFault, "refused")
	})
	datagrams(t, "back", pc.LocalAddr().String())
	buf := make([]byte, 10)
	eventually(t, "an answer", func() bool {
		c.Write([]byte("x"))
		c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := c.Read(buf)
		return err == nil && string(buf[:n]) == "back:x"
	})
	if st := p.Status()[0]; st.Accepted != 1 || st.LastFault != "" {
		t.Errorf("status %+v", st)
	}
}

func TestTooManyFlowsLetTheOldestGo(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{MaxFlows: 3, MaxPerClient: 2})
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: datagrams(t, "dns", "127.0.0.1:0")}))
	var conns []net.Conn
	for _, host := range []byte{1, 2, 2, 2, 3} { // the third of member 2 evicts its first, member 3 evicts member 1
		c := s.dial(t, udp("10.1.0.5:53"), host)
		exchange(t, c, "x")
		conns = append(conns, c)
	}
	eventually(t, "three flows", func() bool { return p.Status()[0].Flows == 3 })
	if st := p.Status()[0]; st.Evicted != 2 {
		t.Errorf("status %+v", st)
	}
	for _, i := range []int{2, 3, 4} {
		exchange(t, conns[i], "x")
	}
	if st := p.Status()[0]; st.Accepted != 5 {
		t.Errorf("a flow that should have stayed began anew: %+v", st)
	}
}

// chooser dials, for every flow, the target that it points at then.
type chooser struct {
	mu     sync.Mutex
	target string
	dialed []netip.Addr // for whom
}

func (c *chooser) point(target string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target = target
}

func (c *chooser) dial(ctx context.Context, network, _ string, member netip.Addr) (net.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dialed = append(c.dialed, member)
	conn, err := new(net.Dialer).DialContext(ctx, network, c.target)
	return plain{conn}, err
}

// plain hides that a socket is the kernel's.
type plain struct{ net.Conn }

// A flow stays with its target whatever is chosen for others, until a review
// says that the target is not wanted any more; those to others go on.
func TestAReviewMovesTheFlowsOfWhoIsGone(t *testing.T) {
	checkLeaks(t)
	s, c := newStack(), &chooser{}
	p := start(t, s, Config{Dial: c.dial})
	one, two := datagrams(t, "one", "127.0.0.1:0"), datagrams(t, "two", "127.0.0.1:0")
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: "dns.test:53"}))
	c.point(one)
	a := s.dial(t, udp("10.1.0.5:53"), 7)
	if got := exchange(t, a, "x"); got != "one:x" {
		t.Fatal(got)
	}
	c.point(two)
	b := s.dial(t, udp("10.1.0.5:53"), 8)
	if x, y := exchange(t, a, "x"), exchange(t, b, "x"); x != "one:x" || y != "two:x" {
		t.Fatalf("%s and %s: an established flow moved, or a new one did not", x, y)
	}
	p.Review(func(target string, remote net.Addr) bool { return target == "dns.test:53" && remote.String() != one })
	if x, y := exchange(t, a, "x"), exchange(t, b, "x"); x != "two:x" || y != "two:x" {
		t.Errorf("after the review %s and %s", x, y)
	}
	want := []netip.Addr{netip.MustParseAddr("127.0.0.7"), netip.MustParseAddr("127.0.0.8"), netip.MustParseAddr("127.0.0.7")}
	if !slices.Equal(c.dialed, want) {
		t.Errorf("dialed for %v, want %v", c.dialed, want)
	}
	eventually(t, "the old flow gone", func() bool { return p.Status()[0].Flows == 2 })
}

// Where Dial chooses, a target that refuses is left for whom it chooses next.
func TestARefusalHasDialChooseAgain(t *testing.T) {
	checkLeaks(t)
	s, c := newStack(), &chooser{}
	p := start(t, s, Config{Dial: c.dial})
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc.Close()
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: "dns.test:53"}))
	c.point(pc.LocalAddr().String())
	a := s.dial(t, udp("10.1.0.5:53"), 1)
	eventually(t, "the refusal seen and the flow gone", func() bool {
		a.Write([]byte("x"))
		st := p.Status()[0]
		return st.Unreached > 0 && st.Flows == 0
	})
	c.point(datagrams(t, "up", "127.0.0.1:0"))
	if got := exchange(t, a, "y"); got != "up:y" && got != "up:x" { // an x may still be on its way
		t.Error(got)
	}
}

func TestFlowsOfAllPortsAreBounded(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{MaxFlowsInAll: 3})
	target := datagrams(t, "dns", "127.0.0.1:0")
	set(t, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: target}, Port{Port: 54, Protocol: overlay.UDP, Target: target}))
	for range 5 {
		exchange(t, s.dial(t, udp("10.1.0.5:53"), 1), "x")
	}
	exchange(t, s.dial(t, udp("10.1.0.5:54"), 1), "x") // each port may have one
	eventually(t, "four flows", func() bool { return p.Status()[0].Flows == 4 })
	if st := p.Status()[0]; st.Evicted != 2 {
		t.Errorf("status %+v", st)
	}
}

// model is the naive flow table: a list, the most recently used first.
type model struct {
	max, per int
	list     []netip.AddrPort
}

func (m *model) use(c netip.AddrPort) (evicted netip.AddrPort, was bool) {
	if i := slices.Index(m.list, c); i >= 0 {
		m.list = slices.Insert(slices.Delete(m.list, i, i+1), 0, c)
		return evicted, true
	}
	var own []int
	for i, x := range m.list {
		if x.Addr() == c.Addr() {
			own = append(own, i)
		}
	}
	victim := -1
	if len(own) >= m.per {
		victim = own[len(own)-1]
	} else if len(m.list) >= m.max {
		victim = len(m.list) - 1
	}
	if victim >= 0 {
		evicted = m.list[victim]
		m.list = slices.Delete(m.list, victim, victim+1)
	}
	m.list = slices.Insert(m.list, 0, c)
	return evicted, false
}

func TestFlowTableAgreesWithANaiveOne(t *testing.T) {
	const seed = 5
	rnd := rand.New(rand.NewPCG(seed, 0))
	ft := newFlowTable[netip.AddrPort](20, 6)
	m := &model{max: 20, per: 6}
	for i := range 20000 {
		c := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(5))}), uint16(1+rnd.IntN(8)))
		if rnd.IntN(10) == 0 {
			ft.remove(c)
			m.list = slices.DeleteFunc(m.list, func(x netip.AddrPort) bool { return x == c })
			continue
		}
		want, was := m.use(c)
		got, ok := ft.use(c)
		var evicted netip.AddrPort
		if ok {
			if got != c {
				t.Fatalf("flow of %v is %v", c, got)
			}
		} else {
			evicted, _ = ft.add(c, c, false)
		}
		clients := 0
		for _, l := range ft.clients {
			clients += l.Len()
		}
		if ok != was || evicted != want || len(ft.flows) != len(m.list) || ft.order.Len() != len(m.list) || clients != len(m.list) {
			t.Fatalf("seed %d, step %d, %v: evicted %v want %v, there %v want %v, %d flows want %d", seed, i, c, evicted, want, ok, was, len(ft.flows), len(m.list))
		}
	}
}

func BenchmarkDatagram(b *testing.B) {
	s := newStack()
	p := start(b, s, Config{})
	set(b, p, backend("dns", "10.1.0.5", Port{Port: 53, Protocol: overlay.UDP, Target: datagrams(b, "dns", "127.0.0.1:0")}))
	c := s.dial(b, udp("10.1.0.5:53"), 1)
	c.SetDeadline(time.Time{})
	msg, buf := make([]byte, 1000), make([]byte, 2000)
	b.ReportAllocs()
	for b.Loop() {
		c.Write(msg)
		if n, err := c.Read(buf); err != nil || n != len(msg)+4 {
			b.Fatalf("%d bytes, %v", n, err)
		}
	}
}
