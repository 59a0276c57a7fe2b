package activate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const patience = 20 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run runs Sockets until the test or end ends them.
func run(t *testing.T) (s *Sockets, end func()) {
	t.Helper()
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var ended atomic.Bool
	end = func() {
		if ended.Swap(true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(end)
	return s, end
}

// free is a port of the loopback that nobody has.
func free(t *testing.T, network string) netip.AddrPort {
	t.Helper()
	if network == "udp" {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer pc.Close()
		return pc.LocalAddr().(*net.UDPAddr).AddrPort()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// echoing opens a port that says back what it hears, and tells how many sockets
// it was handed.
func echoing(t *testing.T, s *Sockets, network string, at netip.AddrPort) (io.Closer, *atomic.Int32) {
	t.Helper()
	var handed atomic.Int32
	var c io.Closer
	var err error
	if network == "tcp" {
		c, err = s.OpenTCP(at, func(l net.Listener) {
			handed.Add(1)
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						_, _ = io.Copy(c, c)
					}()
				}
			}()
		})
	} else {
		c, err = s.OpenUDP(at, func(pc net.PacketConn) {
			handed.Add(1)
			go func() {
				b := make([]byte, 100)
				for {
					n, from, err := pc.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = pc.WriteTo(b[:n], from)
				}
			}()
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return c, &handed
}

// asked says something to a port and wants it back.
func asked(t *testing.T, network string, at netip.AddrPort, what string) {
	t.Helper()
	c, err := net.Dial(network, at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(what))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != what {
		t.Fatalf("%s %v: %q came back, error %v; want %q", network, at, b, err, what)
	}
}

// Of many ports, one goroutine waits for those that were not called; a socket is
// handed over with what called first, and only once.
func TestASocketIsHandedOverWhenItIsCalled(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		s, _ := run(t)
		goroutines := runtime.NumGoroutine()
		const ports = 300
		var at [ports]netip.AddrPort
		var handed [ports]*atomic.Int32
		for i := range ports {
			at[i] = free(t, network)
			var c io.Closer
			c, handed[i] = echoing(t, s, network, at[i])
			defer c.Close()
		}
		if n := runtime.NumGoroutine() - goroutines; n > 0 {
			t.Errorf("%s: %d goroutines for ports that nobody calls", network, n)
		}
		for i := 0; i < ports; i += 7 {
			asked(t, network, at[i], "first")
			asked(t, network, at[i], "second")
		}
		for i := range ports {
			if got, want := handed[i].Load(), int32(1); i%7 == 0 && got != want || i%7 != 0 && got != 0 {
				t.Errorf("%s: port %d was handed over %d times", network, i, got)
			}
		}
	}
}

// A port is closed by Close, whether it was called or not, and another's then;
// before, it is taken.
func TestAPortIsGivenBack(t *testing.T) {
	for _, called := range []bool{false, true} {
		s, _ := run(t)
		at := free(t, "tcp")
		c, handed := echoing(t, s, "tcp", at)
		if called {
			asked(t, "tcp", at, "here")
		}
		if _, err := s.OpenTCP(at, func(net.Listener) {}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the port again: %v, want %v", err, syscall.EADDRINUSE)
		}
		for range 2 {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if d, err := net.Dial("tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, %v: want %v", d, err, syscall.ECONNREFUSED)
		}
		if got := handed.Load() == 1; got != called {
			t.Errorf("handed over %v, want %v", got, called)
		}
		again, _ := echoing(t, s, "tcp", at)
		asked(t, "tcp", at, "again")
		_ = again.Close()
	}
}

// With the end of Run, ports that were not called are closed, and none is opened
// any more.
func TestRunClosesWhatWasNotCalled(t *testing.T) {
	s, end := run(t)
	at := free(t, "tcp")
	c, _ := echoing(t, s, "tcp", at)
	end()
	if _, err := net.Dial("tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want %v", err, syscall.ECONNREFUSED)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.OpenUDP(at, func(net.PacketConn) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want %v", err, net.ErrClosed)
	}
}

// Without descriptors a socket is not handed over and not lost: who called it is
// served when there are some.
func TestAPortWaitsForDescriptors(t *testing.T) {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := free(t, "tcp")
	c, handed := echoing(t, s, "tcp", at)
	defer c.Close()
	d, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	events := []unix.EpollEvent{{Fd: int32(c.(*port).fd)}}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	all := s.hand(events)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if all || handed.Load() != 0 {
		t.Fatalf("handed over (%v, %d) without a descriptor", all, handed.Load())
	}
	if !s.hand(events) || handed.Load() != 1 {
		t.Fatal("not handed over")
	}
	_ = d.SetDeadline(time.Now().Add(patience))
	if _, err := d.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(d, make([]byte, 1)); err != nil {
		t.Error(err)
	}
}

// What was handed over is waited at no more: a connection that its owner leaves
// waiting does not keep everybody else's goroutine busy.
func TestWhatWasHandedOverIsLeftAlone(t *testing.T) {
	s, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	at := free(t, "tcp")
	c, err := s.OpenTCP(at, func(net.Listener) {})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	waiting := func() (n int) {
		if err := s.raw.Control(func(epoll uintptr) { n, _ = unix.EpollWait(int(epoll), make([]unix.EpollEvent, 1), 0) }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := waiting(); n != 1 {
		t.Fatalf("%d ports were called, want 1", n)
	}
	if !s.hand([]unix.EpollEvent{{Fd: int32(c.(*port).fd)}}) {
		t.Fatal("not handed over")
	}
	if n := waiting(); n != 0 {
		t.Error("the port is still waited at")
	}
}
