package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/overlay"
)

const deadline = 20 * time.Second

// A stack stands for a slice: overlay addresses on the kernel's loopback.
type stack struct {
	mu     sync.Mutex
	at     map[key]net.Addr
	fails  map[netip.Addr]error
	opened map[key]int
	socks  map[key]io.Closer
}

func newStack() *stack {
	return &stack{at: map[key]net.Addr{}, fails: map[netip.Addr]error{}, opened: map[key]int{}, socks: map[key]io.Closer{}}
}

func (s *stack) add(k key, addr net.Addr, c io.Closer) {
	s.at[k] = addr
	s.opened[k]++
	s.socks[k] = c
}

func (s *stack) ListenTCP(a netip.AddrPort) (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails[a.Addr()]; err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		s.add(key{a, false}, l.Addr(), l)
	}
	return l, err
}

func (s *stack) ListenUDP(a netip.AddrPort) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails[a.Addr()]; err != nil {
		return nil, err
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err == nil {
		s.add(key{a, true}, pc.LocalAddr(), pc)
	}
	return pc, err
}

func (s *stack) addr(t testing.TB, k key) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at[k] == nil {
		t.Fatalf("%v was never opened", k)
	}
	return s.at[k].String()
}

func tcp(s string) key { return key{netip.MustParseAddrPort(s), false} }
func udp(s string) key { return key{netip.MustParseAddrPort(s), true} }

// dial connects as a member of the slice whose address is 127.0.0.host.
func (s *stack) dial(t testing.TB, k key, host byte) net.Conn {
	t.Helper()
	var d net.Dialer
	network := "tcp"
	if k.udp {
		network = "udp"
		d.LocalAddr = &net.UDPAddr{IP: net.IPv4(127, 0, 0, host)}
	} else {
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, host)}
	}
	c, err := d.Dial(network, s.addr(t, k))
	if errors.Is(err, syscall.ECONNRESET) {
		return reset{err: err} // it came before Dial was through
	}
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	t.Cleanup(func() { c.Close() })
	return c
}

// reset is a connection that was reset before anybody saw it.
type reset struct {
	net.Conn
	err error
}

func (c reset) Read([]byte) (int, error)  { return 0, c.err }
func (c reset) Write([]byte) (int, error) { return 0, c.err }

// service is a target that answers every connection's whole stream with its
// name before it.
func service(t testing.TB, name, network, addr string) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				if b, err := io.ReadAll(c); err == nil {
					c.Write([]byte(name + ":" + string(b)))
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

// datagrams is the same for UDP. "who" is answered with the sender's address.
func datagrams(t testing.TB, name, addr string) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			reply := name + ":" + string(buf[:n])
			if string(buf[:n]) == "who" {
				reply = from.String()
			}
			pc.WriteTo([]byte(reply), from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	return pc.LocalAddr().String()
}

func checkLeaks(t testing.TB) {
	opt := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, opt) })
}

// start runs a Publisher until the test ends. It returns when it serves.
func start(t testing.TB, s *stack, cfg Config) *Publisher {
	t.Helper()
	cfg.Stack = s
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
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
		if n := p.conns.Load(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
		if err := p.Set(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Set after Run = %v", err)
		}
	})
	eventually(t, "running", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.state == running })
	return p
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(deadline); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func backend(name, addr string, ports ...Port) Backend {
	return Backend{Name: name, Addrs: []netip.Addr{netip.MustParseAddr(addr)}, Ports: ports}
}

func set(t testing.TB, p *Publisher, b ...Backend) {
	t.Helper()
	if err := p.Set(b); err != nil {
		t.Fatal(err)
	}
}

// ask sends one stream and returns the answer.
func ask(c net.Conn, what string) (string, error) {
	if _, err := io.WriteString(c, what); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestStreamsReachTheirTargets(t *testing.T) {
	checkLeaks(t)
	dir, err := os.MkdirTemp("", "publish")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := newStack()
	p := start(t, s, Config{})
	web := service(t, "web", "tcp", "127.0.0.1:0")
	sock := service(t, "sock", "unix", filepath.Join(dir, "s"))
	_, port, _ := net.SplitHostPort(web)
	set(t, p,
		Backend{Name: "web", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}, Ports: []Port{
			{Name: "http", Port: 80, Protocol: overlay.TCP, Target: web},
			{Name: "byname", Port: 81, Protocol: overlay.TCP, Target: "localhost:" + port},
			{Name: "sock", Port: 82, Protocol: overlay.TCP, Target: "unix:" + sock},
		}})
	for k, want := range map[string]string{"10.1.0.5:80": "web", "[fd00::5]:80": "web", "10.1.0.5:81": "web", "10.1.0.5:82": "sock"} {
		got, err := ask(s.dial(t, tcp(k), 1), "hello")
		if err != nil || got != want+":hello" {
			t.Errorf("%s: %q, %v", k, got, err)
		}
	}
	eventually(t, "connections gone", func() bool { return p.Status()[0].Conns == 0 })
	st := p.Status()
	if len(st) != 1 || len(st[0].Ports) != 6 || st[0].Accepted != 4 || st[0].BytesIn != 20 || st[0].BytesOut != 3*9+10 || st[0].LastFault != "" {
		t.Errorf("status %+v", st)
	}
	if x := st[0].Ports[2]; !x.Listening || x.Target != "unix:"+sock || x.Addr.String() != "10.1.0.5:82" || x.Protocol != overlay.TCP {
		t.Errorf("port %+v", x)
	}
}

func TestATargetThatIsDownResetsTheMember(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody listens there now
	set(t, p, backend("down", "10.1.0.5", Port{Port: 80, Protocol: overlay.TCP, Target: l.Addr().String()}))
	if _, err := s.dial(t, tcp("10.1.0.5:80"), 1).Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the member reads %v", err)
	}
	if st := p.Status()[0]; st.Unreached != 1 || !strings.Contains(st.LastFault, "refused") {
		t.Errorf("status %+v", st)
	}
	service(t, "up", "tcp", l.Addr().String())
	if got, err := ask(s.dial(t, tcp("10.1.0.5:80"), 1), "x"); err != nil || got != "up:x" {
		t.Errorf("%q, %v", got, err)
	}
	if st := p.Status()[0]; st.LastFault != "" {
		t.Errorf("status %+v", st)
	}
}

func TestSetOpensAndClosesOnlyDifferences(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	old, other := service(t, "old", "tcp", "127.0.0.1:0"), service(t, "other", "tcp", "127.0.0.1:0")
	keep := Port{Port: 80, Protocol: overlay.TCP, Target: old}
	set(t, p, backend("a", "10.1.0.5", keep), backend("b", "10.1.0.6", keep))
	stays, goes := s.dial(t, tcp("10.1.0.5:80"), 1), s.dial(t, tcp("10.1.0.6:80"), 1)
	eventually(t, "both connected", func() bool { st := p.Status(); return st[0].Conns == 1 && st[1].Conns == 1 })

	keep.Target = other
	set(t, p, backend("a", "10.1.0.5", keep, Port{Port: 81, Protocol: overlay.TCP, Target: old}))
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to what is gone: %v", err)
	}
	if got, err := ask(stays, "x"); err != nil || got != "old:x" {
		t.Errorf("a connection that was there: %q, %v", got, err)
	}
	if got, err := ask(s.dial(t, tcp("10.1.0.5:80"), 1), "x"); err != nil || got != "other:x" {
		t.Errorf("a new one: %q, %v", got, err)
	}
	if got, err := ask(s.dial(t, tcp("10.1.0.5:81"), 1), "x"); err != nil || got != "old:x" {
		t.Errorf("the new port: %q, %v", got, err)
	}
	if _, err := net.Dial("tcp", s.addr(t, tcp("10.1.0.6:80"))); err == nil {
		t.Error("the closed port is open")
	}
	if n := s.opened[tcp("10.1.0.5:80")]; n != 1 {
		t.Errorf("the port that stays was opened %d times", n)
	}
	if st := p.Status(); len(st) != 1 || st[0].Name != "a" {
		t.Errorf("status %+v", st)
	}
	set(t, p)
	if st := p.Status(); len(st) != 0 {
		t.Errorf("status %+v", st)
	}
}

func TestWhatCannotBeIsReportedAndHindersNothing(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	web := service(t, "web", "tcp", "127.0.0.1:0")
	taken := netip.MustParseAddr("10.1.0.9")
	s.fails[taken] = syscall.EADDRNOTAVAIL
	good := Port{Port: 80, Protocol: overlay.TCP, Target: web}
	backends := []Backend{
		backend("unassigned", "10.1.0.9", good),
		backend("good", "10.1.0.5", good),
		backend("twice", "::ffff:10.1.0.5", good),
		backend("bad", "10.1.0.6",
			Port{Port: 1, Protocol: overlay.TCP, Target: "nowhere"},
			Port{Port: 2, Protocol: overlay.TCP, Target: ":80"},
			Port{Port: 3, Protocol: overlay.TCP, Target: "host:0"},
			Port{Port: 4, Protocol: overlay.TCP, Target: "host:http"},
			Port{Port: 5, Protocol: overlay.UDP, Target: "unix:/x"},
			Port{Port: 6, Protocol: overlay.TCP, Target: "unix:"},
			Port{Port: 7, Protocol: "SCTP", Target: web},
			Port{Port: 0, Protocol: overlay.TCP, Target: web},
			good),
	}
	err := p.Set(backends)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		"publish unassigned: open tcp 10.1.0.9:80: cannot assign requested address",
		"publish twice port 80/TCP: tcp 10.1.0.5:80 is taken by backend good",
		`publish bad port 1/TCP: target "nowhere" is not host:port`, "port 2/TCP", "port 3/TCP", "port 4/TCP",
		"port 5/UDP: target \"unix:/x\": a unix socket serves TCP ports", "port 6/TCP", `port 7/SCTP: protocol "SCTP"`, "port 0/TCP: port is 0",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Error("a caller cannot branch on the reason")
	}
	for _, k := range []string{"10.1.0.5:80", "10.1.0.6:80"} {
		if got, err := ask(s.dial(t, tcp(k), 1), "x"); err != nil || got != "web:x" {
			t.Errorf("%s: %q, %v", k, got, err)
		}
	}
	i := slices.IndexFunc(p.Status(), func(b BackendStatus) bool { return b.Name == "unassigned" })
	if st := p.Status()[i].Ports[0]; st.Listening || !strings.Contains(st.Fault, "10.1.0.9:80") {
		t.Errorf("status %+v", st)
	}
	// The address comes, and the port opens without another Set.
	s.mu.Lock()
	delete(s.fails, taken)
	s.mu.Unlock()
	eventually(t, "the port open", func() bool { return p.Status()[i].Ports[0].Listening })
	// A listener that goes away comes back.
	s.mu.Lock()
	s.socks[tcp("10.1.0.9:80")].Close()
	s.mu.Unlock()
	eventually(t, "the port open again", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.opened[tcp("10.1.0.9:80")] == 2 })
}

func TestSetBeforeRunOpensNothing(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p, err := New(Config{Stack: s})
	if err != nil {
		t.Fatal(err)
	}
	set(t, p, backend("a", "10.1.0.5", Port{Port: 80, Protocol: overlay.TCP, Target: "127.0.0.1:1"}))
	if len(s.opened) != 0 {
		t.Error("a socket is open")
	}
	if st := p.Status(); len(st) != 1 || st[0].Ports[0].Listening {
		t.Errorf("status %+v", st)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	eventually(t, "open", func() bool { return p.Status()[0].Ports[0].Listening })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.Run(context.Background()); err == nil {
		t.Error("Run runs twice")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a Publisher without a stack")
	}
	if _, err := New(Config{Stack: s, MaxFlows: -1}); err == nil {
		t.Error("a negative limit")
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	checkLeaks(t)
	for _, c := range []struct {
		name string
		cfg  Config
		ok   []bool // of connections from members 1, 1, 1, 2, 2, 3 to backend a, then member 4 to backend b
	}{
		{"per member", Config{MaxPerClient: 2}, []bool{true, true, false, true, true, true, true}},
		{"per backend", Config{MaxConnsPerBackend: 4}, []bool{true, true, true, true, false, false, true}},
		{"in all", Config{MaxConns: 3}, []bool{true, true, true, false, false, false, false}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStack()
			p := start(t, s, c.cfg)
			port := Port{Port: 80, Protocol: overlay.TCP, Target: service(t, "s", "tcp", "127.0.0.1:0")}
			set(t, p, backend("a", "10.1.0.5", port), backend("b", "10.1.0.6", port))
			var open []net.Conn
			refused := uint64(0)
			for i, host := range []byte{1, 1, 1, 2, 2, 3, 4} {
				k := tcp("10.1.0.5:80")
				if host == 4 {
					k = tcp("10.1.0.6:80")
				}
				before := accepted(p)
				conn := s.dial(t, k, host)
				if !c.ok[i] {
					refused++
					if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("connection %d reads %v", i, err)
					}
					continue
				}
				eventually(t, fmt.Sprintf("connection %d taken", i), func() bool { return accepted(p) == before+1 })
				open = append(open, conn)
			}
			for i, conn := range open {
				if got, err := ask(conn, "x"); err != nil || got != "s:x" {
					t.Errorf("open connection %d: %q, %v", i, got, err)
				}
			}
			if st := p.Status(); st[0].Refused+st[1].Refused != refused {
				t.Errorf("status %+v, want %d refused", st, refused)
			}
		})
	}
}

func accepted(p *Publisher) (n uint64) {
	for _, b := range p.Status() {
		n += b.Accepted
	}
	return n
}
