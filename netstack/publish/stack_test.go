package publish

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
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

func (s *stack) OpenTCP(a netip.AddrPort, opened func(net.Listener)) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails[a.Addr()]; err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.add(key{a, false}, l.Addr(), l)
	opened(l)
	return l, nil
}

func (s *stack) OpenUDP(a netip.AddrPort, opened func(net.PacketConn)) (io.Closer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fails[a.Addr()]; err != nil {
		return nil, err
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.add(key{a, true}, pc.LocalAddr(), pc)
	opened(pc)
	return pc, nil
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
