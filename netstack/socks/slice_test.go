package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const deadline = 20 * time.Second

// A slice stands for the network behind the proxy: services on the kernel's
// loopback under overlay addresses. Its sockets are real.
type slice struct {
	mu    sync.Mutex
	names map[string][]netip.Addr
	real  map[netip.AddrPort]netip.AddrPort // overlay to loopback
	back  map[netip.AddrPort]netip.AddrPort
	fails map[netip.Addr]error
	asked []string
}

func newSlice() *slice {
	return &slice{
		names: map[string][]netip.Addr{},
		real:  map[netip.AddrPort]netip.AddrPort{},
		back:  map[netip.AddrPort]netip.AddrPort{},
		fails: map[netip.Addr]error{},
	}
}

func (s *slice) publish(overlay string, real net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, r := netip.MustParseAddrPort(overlay), addrPortOf(real)
	s.real[o], s.back[r] = r, o
}

func (s *slice) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, name)
	if a, ok := s.names[name]; ok {
		return a, nil
	}
	return nil, fmt.Errorf("look up %q: %w", name, ErrNoName)
}

func (s *slice) DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
	s.mu.Lock()
	real, ok := s.real[dst]
	err := s.fails[dst.Addr()]
	s.mu.Unlock()
	switch {
	case errors.Is(err, context.DeadlineExceeded): // nobody answers
		<-ctx.Done()
		return nil, ctx.Err()
	case err != nil:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
	case !ok:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", real.String())
}

func (s *slice) ListenUDP(bool) (net.PacketConn, error) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	return translated{pc, s}, err
}

type translated struct {
	net.PacketConn
	s *slice
}

func (c translated) WriteTo(b []byte, to net.Addr) (int, error) {
	c.s.mu.Lock()
	real, ok := c.s.real[addrPortOf(to)]
	c.s.mu.Unlock()
	if !ok {
		return 0, syscall.EHOSTUNREACH
	}
	return c.PacketConn.WriteTo(b, net.UDPAddrFromAddrPort(real))
}

func (c translated) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err != nil {
		return n, from, err
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if o, ok := c.s.back[addrPortOf(from)]; ok {
		return n, net.UDPAddrFromAddrPort(o), nil
	}
	return n, from, nil
}

// echo serves TCP under overlay: it answers the whole stream when that ends,
// and so needs a half-close.
func (s *slice) echo(t testing.TB, overlay string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
				b, err := io.ReadAll(c)
				if err == nil {
					c.Write(b)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	s.publish(overlay, l.Addr())
}

// whoami asks echoUDP from which address it is asked.
const whoami = "whoami"

// echoUDP answers every datagram with "re: " before it.
func (s *slice) echoUDP(t testing.TB, overlay string) *net.UDPConn {
	t.Helper()
	pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			reply := append([]byte("re: "), buf[:n]...)
			if string(buf[:n]) == whoami {
				reply = []byte(from.String())
			}
			pc.WriteToUDPAddrPort(reply, from)
		}
	}()
	t.Cleanup(func() { pc.Close(); <-done })
	s.publish(overlay, pc.LocalAddr())
	return pc
}

// checkLeaks must be called before anything that registers a cleanup.
func checkLeaks(t testing.TB) {
	opt := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, opt) })
}

func tcpListener(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func unixListener(t testing.TB) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "socks") // t.TempDir's may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a proxy into s until the test ends.
func start(t testing.TB, s *slice, cfg Config) *Server {
	t.Helper()
	if cfg.Listener == nil {
		cfg.Listener = tcpListener(t)
	}
	cfg.Dialer, cfg.Resolver = s, s
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
		if st := p.Stats(); st.Conns != 0 || st.Associations != 0 {
			t.Errorf("left over: %+v", st)
		}
	})
	return p
}

func (s *Server) addr() net.Addr { return s.cfg.Listener.Addr() }

func connect(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial(s.addr().Network(), s.addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually polls a condition that other goroutines bring about.
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
