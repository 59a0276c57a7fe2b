package dnsd

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

const deadline = 20 * time.Second

// foreign hides what the kernel's sockets can do besides net.PacketConn, as a
// userspace stack's socket does.
type foreign struct{ net.PacketConn }

// start serves UDP and TCP on one loopback port and returns its address.
func start(t testing.TB, wrap func(net.PacketConn) net.PacketConn) (*Server, string) {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		pc = wrap(pc)
	}
	s := newServer(t, Config{Packet: []net.PacketConn{pc}, Stream: []net.Listener{l}})
	run(t, s)
	return s, fmt.Sprintf("%s %s", pc.LocalAddr(), l.Addr())
}

// run runs s until the test ends and checks that it ends without a fault.
func run(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run = %v", err)
			}
		case <-time.After(deadline):
			t.Error("Run does not return")
		}
	})
}

func TestServesKernelSocketsAndForeignOnes(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	for name, wrap := range map[string]func(net.PacketConn) net.PacketConn{
		"kernel":  nil,
		"foreign": func(pc net.PacketConn) net.PacketConn { return foreign{pc} },
	} {
		t.Run(name, func(t *testing.T) {
			s, at := start(t, wrap)
			udp, tcp, _ := strings.Cut(at, " ")
			for network, addr := range map[string]string{"udp": udp, "tcp": tcp} {
				c := dns.Client{Net: network, Timeout: deadline}
				m, _, err := c.Exchange(query("v4.shop.svc.slice.local", typeA), addr)
				if err != nil {
					t.Fatal(err)
				}
				if got := show(m); got != "NOERROR aa 10.1.0.7" {
					t.Errorf("%s: %s", network, got)
				}
			}
			if st := s.Stats(); st.Answers["noerror"] != 2 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestDig(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	// dig retries by TCP at the same port.
	pc, l := bothPorts(t)
	run(t, newServer(t, Config{Packet: []net.PacketConn{pc}, Stream: []net.Listener{l}}))
	_, port, _ := net.SplitHostPort(pc.LocalAddr().String())
	for _, c := range []struct {
		args string
		want []string
		not  string
	}{
		{"web.shop.svc.slice.local A", []string{"status: NOERROR", "flags: qr aa rd;", "ANSWER: 2", "udp: 1232", "5\tIN\tA\t10.1.0."}, ";; WARNING: Message parser"},
		{"WeB.shop.svc.slice.local AAAA +norecurse", []string{"flags: qr aa;", "WeB.shop.svc.slice.local. 5	IN	AAAA	fd00::"}, "rd"},
		{"nope.svc.slice.local A", []string{"status: NXDOMAIN", "AUTHORITY: 1", "SOA\tns.dns.slice.local. hostmaster.slice.local."}, ""},
		{"v4.shop.svc.slice.local AAAA", []string{"status: NOERROR", "ANSWER: 0", "AUTHORITY: 1", "SOA"}, ""},
		{"big.shop.svc.slice.local A", []string{"Truncated, retrying in TCP mode", "ANSWER: 100", "(TCP)"}, ""},
		{"big.shop.svc.slice.local A +ignore +noedns", []string{"flags: qr aa tc rd;", "ANSWER: 2"}, "OPT"},
		{"big.shop.svc.slice.local A +tcp +keepopen", []string{"ANSWER: 100"}, ""},
		{"web.shop.svc.slice.local ANY +notcp", []string{"HINFO\t\"RFC8482\" \"\""}, ""},
		{"web.shop.svc.slice.local A +edns=1 +noednsnegotiation", []string{"status: BADVERS", "EDNS: version: 0"}, ""},
		{"web.shop.svc.slice.local A +dnssec +ednsopt=65001:aabb", []string{"flags: do; udp: 1232", "ANSWER: 2"}, ""},
		{"web.shop.svc.slice.local A +opcode=NOTIFY", []string{"status: NOTIMP"}, ""},
		{"version.bind TXT CH", []string{"status: REFUSED"}, ""},
		{"example.com A", []string{"status: REFUSED", "ANSWER: 0"}, ""},
		{"slice.local SOA", []string{"flags: qr aa", "ANSWER: 1", "SOA"}, ""},
	} {
		args := append([]string{"@127.0.0.1", "-p", port, "+tries=1", "+time=10"}, strings.Fields(c.args)...)
		out, err := exec.Command("dig", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("dig %s: %v\n%s", c.args, err, out)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("dig %s: no %q in\n%s", c.args, want, out)
			}
		}
		if c.not != "" && strings.Contains(strings.Split(string(out), "QUESTION SECTION")[0], c.not) {
			t.Errorf("dig %s: %q in\n%s", c.args, c.not, out)
		}
	}
}

func TestASocketClosedByOthersIsAFault(t *testing.T) {
	defer goleak.VerifyNone(t)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Config{Packet: []net.PacketConn{pc}, Stream: []net.Listener{l}})
	pc.Close()
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), pc.LocalAddr().String()) {
		t.Errorf("Run = %v, want the socket's fault", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is open after Run")
	}
	if err := s.Run(t.Context()); err == nil {
		t.Error("Run runs twice")
	}
}

func TestHostileDatagramsLeaveTheServerUp(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	s, at := start(t, nil)
	udp, _, _ := strings.Cut(at, " ")
	c, err := net.Dial("udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	q := pack(t, query("v4.shop.svc.slice.local", typeA))
	c.Write(nil)
	c.Write(make([]byte, maxQuery+1))
	for n := range q {
		c.Write(q[:n])
	}
	c.Write(q)
	c.SetReadDeadline(time.Now().Add(deadline))
	buf := make([]byte, maxUDP)
	for { // FORMERRs come first
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if buf[3]&15 == rcodeSuccess && bytes.Equal(buf[:2], q[:2]) && n > len(q) {
			break
		}
	}
	st := s.Stats()
	if st.Dropped["too-big"] != 1 || st.Panics != 0 {
		t.Errorf("stats %+v", st)
	}
}

// BenchmarkUDP is a query over the kernel's loopback, client and server
// together, with as many queries under way as a resolver would have.
func BenchmarkUDP(b *testing.B) {
	_, at := start(b, nil)
	udp, _, _ := strings.Cut(at, " ")
	c, err := net.Dial("udp", udp)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg := pack(b, query("web.shop.svc.slice.local", typeA))
	window := make(chan struct{}, 32)
	got := make(chan int, 1)
	go func() {
		buf := make([]byte, maxUDP)
		n := 0
		for {
			if k, err := c.Read(buf); err != nil || k != len(msg)+32 {
				got <- n
				return
			}
			n++
			<-window
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		window <- struct{}{}
		if _, err := c.Write(msg); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "qps")
	for range cap(window) {
		window <- struct{}{}
	}
	c.Close()
	if n := <-got; n != b.N {
		b.Errorf("%d answers to %d queries", n, b.N)
	}
}
