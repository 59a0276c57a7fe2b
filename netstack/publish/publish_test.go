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
	"syscall"
	"testing"

	"github.com/pires/go-proxyproto"

	"slicewire/overlay"
)

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

// A target that reads the PROXY protocol is told of the member, before what that
// says; others are told nothing.
func TestATargetIsToldOfItsClient(t *testing.T) {
	checkLeaks(t)
	s := newStack()
	p := start(t, s, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	reader := &proxyproto.Listener{Listener: l, ConnPolicy: func(proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) { return proxyproto.REQUIRE, nil }}
	t.Cleanup(func() { reader.Close() })
	plain := service(t, "plain", "tcp", "127.0.0.1:0")
	set(t, p, backend("web", "10.1.0.5",
		Port{Port: 80, Protocol: overlay.TCP, Target: l.Addr().String(), Proxied: true}, Port{Port: 81, Protocol: overlay.TCP, Target: plain}))
	c := s.dial(t, tcp("10.1.0.5:80"), 1)
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	got, err := reader.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	said := make([]byte, 5)
	if _, err := io.ReadFull(got, said); err != nil || string(said) != "hello" {
		t.Errorf("%q, %v", said, err)
	}
	if got.RemoteAddr().String() != c.LocalAddr().String() || got.LocalAddr().String() != c.RemoteAddr().String() {
		t.Errorf("the target is told of %v to %v, want %v to %v", got.RemoteAddr(), got.LocalAddr(), c.LocalAddr(), c.RemoteAddr())
	}
	if h := got.(*proxyproto.Conn).ProxyHeader(); h == nil || h.Version != 2 {
		t.Errorf("header %+v", h)
	}
	if got, err := ask(s.dial(t, tcp("10.1.0.5:81"), 1), "x"); err != nil || got != "plain:x" {
		t.Errorf("another port: %q, %v", got, err)
	}
	wrong := Port{Port: 53, Protocol: overlay.UDP, Target: plain, Proxied: true}
	if err := p.Set([]Backend{backend("dns", "10.1.0.6", wrong)}); err == nil || !strings.Contains(err.Error(), "PROXY") {
		t.Errorf("with UDP: %v", err)
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
