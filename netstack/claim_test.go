package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// lazy opens a TCP port that answers every connection with what it says, and
// tells how often its listener was made.
func lazy(t testing.TB, st *Stack, at netip.AddrPort) (io.Closer, func() int) {
	t.Helper()
	var made atomic.Int32
	c, err := st.OpenTCP(at, func(l net.Listener) {
		made.Add(1)
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
	if err != nil {
		t.Fatal(err)
	}
	return c, func() int { return int(made.Load()) }
}

// echoed says b to a TCP port and wants it back.
func echoed(t testing.TB, from *Stack, at netip.AddrPort, b string) {
	t.Helper()
	c, err := from.DialTCP(within(t), netip.Addr{}, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(testPatience))
	if _, err := c.Write([]byte(b)); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != b {
		t.Errorf("%q came back, error %v; want %q", got, err, b)
	}
}

// A port that was opened has no listener before its first connection, which
// finds one, from outside and from the stack itself, and as many as come at once.
func TestAListenerIsMadeForTheFirstConnection(t *testing.T) {
	one, two := pair(t, nil)
	for _, a := range []netip.Addr{two4, two6} {
		for port, from := range map[uint16]*Stack{80: one, 81: two, 40080: one} {
			at := netip.AddrPortFrom(a, port)
			c, made := lazy(t, two, at)
			if n := made(); n != 0 {
				t.Fatalf("%v: %d listeners before anybody called", at, n)
			}
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					c, err := from.DialTCP(within(t), netip.Addr{}, at)
					if err != nil {
						t.Errorf("%v: %v", at, err)
						return
					}
					_ = c.Close()
				})
			}
			wg.Wait()
			echoed(t, from, at, "now")
			if n := made(); n != 1 {
				t.Errorf("%v: %d listeners were made, want 1", at, n)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if _, err := from.DialTCP(within(t), netip.Addr{}, at); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v: %v after it was closed, want %v", at, err, syscall.ECONNREFUSED)
			}
		}
	}
}

// A port that was closed before anybody called is as if it had never been open.
func TestAPortThatNobodyCalledIsClosed(t *testing.T) {
	one, two := pair(t, nil)
	for _, port := range []uint16{80, 40080} {
		at := netip.AddrPortFrom(two4, port)
		c, made := lazy(t, two, at)
		_ = c.Close()
		_ = c.Close()
		if _, err := one.DialTCP(within(t), netip.Addr{}, at); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%v, want %v", err, syscall.ECONNREFUSED)
		}
		if n := made(); n != 0 {
			t.Errorf("%d listeners were made", n)
		}
		l, err := two.ListenTCP(at) // and another may have it
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
	}
}

// A port is one's, in whichever order they ask, before and after it was called.
func TestAnOpenPortIsTaken(t *testing.T) {
	one, two := pair(t, nil)
	at := netip.AddrPortFrom(two4, 80)
	taken := func(when string) {
		t.Helper()
		if _, err := two.ListenTCP(at); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: a listener: %v, want %v", when, err, syscall.EADDRINUSE)
		}
		if _, err := two.OpenTCP(at, func(net.Listener) {}); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: the port again: %v, want %v", when, err, syscall.EADDRINUSE)
		}
	}
	c, _ := lazy(t, two, at)
	taken("not called")
	echoed(t, one, at, "once")
	taken("called")
	_ = c.Close()
	l, err := two.ListenTCP(at)
	if err != nil {
		t.Fatal(err)
	}
	taken("somebody listens")
	_ = l.Close()
	if _, err := two.OpenTCP(netip.AddrPortFrom(one4, 80), func(net.Listener) {}); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("a foreign address: %v, want %v", err, syscall.EADDRNOTAVAIL)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := two.OpenTCP(at, func(net.Listener) {}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed stack: %v, want %v", err, net.ErrClosed)
	}
}

// Who dials out from any port does not get one that was opened: of two free
// ports, the second connection finds none.
func TestADialDoesNotTakeAnOpenPort(t *testing.T) {
	one, two := pair(t, nil)
	_, last := two.s.PortRange()
	if err := two.s.SetPortRange(last-1, last); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(one4, 80)
	far, _ := lazy(t, one, to)
	defer far.Close()
	dials := map[string]func() (net.Conn, error){
		"tcp": func() (net.Conn, error) { return two.DialTCP(within(t), two4, to) },
		"udp": func() (net.Conn, error) { return two.DialUDP(two4, to) },
	}
	for transport, dial := range dials {
		open := lazy
		if transport == "udp" {
			open = lazyUDP
		}
		c, _ := open(t, two, netip.AddrPortFrom(two4, last))
		first, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		if second, err := dial(); err == nil {
			t.Errorf("%s: %v was dialled from", transport, second.LocalAddr())
		}
		_ = first.Close()
		_ = c.Close()
	}
}

// lazyUDP is lazy for datagrams.
func lazyUDP(t testing.TB, st *Stack, at netip.AddrPort) (io.Closer, func() int) {
	t.Helper()
	var made atomic.Int32
	c, err := st.OpenUDP(at, func(pc net.PacketConn) {
		made.Add(1)
		go func() {
			b := make([]byte, 1500)
			for {
				n, from, err := pc.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = pc.WriteTo(b[:n], from)
			}
		}()
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, func() int { return int(made.Load()) }
}

// The first datagram of a port is not lost for its socket being made.
func TestASocketIsMadeForTheFirstDatagram(t *testing.T) {
	one, two := pair(t, nil)
	for _, a := range []netip.Addr{two4, two6} {
		for port, from := range map[uint16]*Stack{53: one, 54: two, 40053: one} {
			at := netip.AddrPortFrom(a, port)
			c, made := lazyUDP(t, two, at)
			u, err := from.DialUDP(netip.Addr{}, at)
			if err != nil {
				t.Fatal(err)
			}
			_ = u.SetDeadline(time.Now().Add(testPatience))
			for _, want := range []string{"first", "second"} {
				if n := made(); (n == 0) != (want == "first") {
					t.Errorf("%v: %d sockets before the %s datagram", at, n, want)
				}
				b := make([]byte, 100)
				if _, err := u.Write([]byte(want)); err != nil {
					t.Fatal(err)
				}
				n, err := u.Read(b)
				if err != nil || string(b[:n]) != want {
					t.Fatalf("%v: %q came back, error %v; want %q", at, b[:n], err, want)
				}
			}
			_ = c.Close()
			if _, err := u.Write([]byte("late")); err != nil {
				t.Fatal(err)
			}
			if _, err := u.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%v: %v after it was closed, want %v", at, err, syscall.ECONNREFUSED)
			}
			_ = u.Close()
		}
	}
}

// Ports are opened, called and closed at once by many: whoever gets through is
// answered by the port that is open, and all that was made ends.
func TestPortsAreCalledWhileTheyOpenAndClose(t *testing.T) {
	one, two := pair(t, nil)
	var owners, callers sync.WaitGroup
	stop := make(chan struct{})
	for port := range uint16(4) {
		at := netip.AddrPortFrom(two4, 100+port)
		owners.Go(func() {
			for range 200 {
				c, _ := lazy(t, two, at)
				if d, err := one.DialTCP(within(t), netip.Addr{}, at); err == nil {
					_ = d.Close()
				} else {
					t.Errorf("%v is open: %v", at, err)
				}
				_ = c.Close()
			}
		})
		for range 2 {
			callers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					c, err := one.DialTCP(within(t), netip.Addr{}, at)
					if err == nil {
						_ = c.Close()
					} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
						t.Errorf("%v: %v", at, err)
						return
					}
				}
			})
		}
	}
	owners.Wait()
	close(stop)
	callers.Wait()
}
