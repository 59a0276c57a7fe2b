package publish

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
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
			evicted, _ = ft.add(c, c)
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

// pipeConn is a datagram socket that is not the host's.
type pipeConn struct{ net.Conn }

// Datagram ports lead where Dial says, on behalf of who asks; where it refuses,
// nobody is answered.
func TestDialLeadsDatagrams(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	echo := datagrams(t, "echo", "127.0.0.1:0")
	p := start(t, s, Config{Dial: func(ctx context.Context, network, addr string, member netip.Addr) (net.Conn, error) {
		if network != "udp" || addr != "echo.test:7" {
			t.Errorf("dials %s %s", network, addr)
		}
		if member != netip.MustParseAddr("127.0.0.1") {
			return nil, errors.New("not for you")
		}
		var d net.Dialer
		c, err := d.DialContext(ctx, network, echo)
		if err != nil {
			return nil, err
		}
		return pipeConn{c}, nil
	}})
	set(t, p, backend("echo", "10.1.0.5", Port{Name: "udp", Port: 7, Protocol: overlay.UDP, Target: "echo.test:7"}))
	c := s.dial(t, udp("10.1.0.5:7"), 1)
	for range 3 {
		if got := exchange(t, c, "hi"); !strings.HasPrefix(got, "echo") {
			t.Fatalf("answer %q", got)
		}
	}
	refused := s.dial(t, udp("10.1.0.5:7"), 2)
	if _, err := refused.Write([]byte("hi")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the refusal to be counted", func() bool { return p.Status()[0].Unreached > 0 })
	if got := exchange(t, c, "still"); !strings.HasPrefix(got, "echo") {
		t.Errorf("answer %q", got)
	}
}
