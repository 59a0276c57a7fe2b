package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slicewire/overlay/overlaytest"
)

// listen accepts one connection on a free port of addr and hands it over.
func listen(t testing.TB, st *Stack, addr netip.Addr) (netip.AddrPort, <-chan net.Conn) {
	t.Helper()
	l, err := st.ListenTCP(netip.AddrPortFrom(addr, 0))
	if err != nil {
		t.Fatal(err)
	}
	c := make(chan net.Conn, 1)
	go func() {
		defer close(c)
		defer l.Close()
		if conn, err := l.Accept(); err == nil {
			c <- conn
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort(), c
}

func connect(t testing.TB, from, to *Stack, addr netip.Addr) (near, far net.Conn) {
	t.Helper()
	at, accepted := listen(t, to, addr)
	near, err := from.DialTCP(within(t), netip.Addr{}, at)
	if err != nil {
		t.Fatal(err)
	}
	far, ok := <-accepted
	if !ok {
		t.Fatal("not accepted")
	}
	return near, far
}

// send writes n seeded bytes to c, half-closes it and returns their hash.
func send(c net.Conn, seed uint64, n int) ([]byte, error) {
	rng := rand.New(rand.NewPCG(seed, seed))
	h := sha256.New()
	b := make([]byte, 64<<10)
	for n > 0 {
		k := min(n, 1+rng.IntN(len(b)))
		for i := 0; i+8 <= k; i += 8 {
			v := rng.Uint64()
			for j := range 8 {
				b[i+j] = byte(v >> (8 * j))
			}
		}
		h.Write(b[:k])
		if _, err := c.Write(b[:k]); err != nil {
			return nil, err
		}
		n -= k
	}
	return h.Sum(nil), c.(interface{ CloseWrite() error }).CloseWrite()
}

func TestTCPIsExactBothWays(t *testing.T) {
	for _, c := range []struct {
		name string
		addr netip.Addr
		lose int // one packet of so many is lost
	}{{"IPv4", two4, 0}, {"IPv6", two6, 0}, {"with one packet in 200 lost", two4, 200}} {
		t.Run(c.name, func(t *testing.T) {
			var count, bad atomic.Int64
			one, two := pair(t, func(p []byte) bool {
				n := count.Add(1)
				if n%64 == 0 && !overlaytest.ChecksumsOK(p) || len(p) > testMTU {
					bad.Add(1)
				}
				return c.lose == 0 || n%int64(c.lose) != 0
			})
			size := 64 << 20
			if c.lose != 0 {
				size = 8 << 20
			}
			near, far := connect(t, one, two, c.addr)
			var wg sync.WaitGroup
			for i, way := range [][2]net.Conn{{near, far}, {far, near}} {
				want := make(chan []byte, 1)
				wg.Go(func() {
					h, err := send(way[0], uint64(i), size)
					if err != nil {
						t.Error(err)
					}
					want <- h
				})
				wg.Go(func() {
					h := sha256.New()
					n, err := io.Copy(h, way[1])
					if w := <-want; err != nil || n != int64(size) || !bytes.Equal(h.Sum(nil), w) {
						t.Errorf("way %d: %d of %d bytes, same %v, %v", i, n, size, bytes.Equal(h.Sum(nil), w), err)
					}
				})
			}
			wg.Wait()
			near.Close()
			far.Close()
			if bad.Load() != 0 {
				t.Errorf("%d packets too long or with wrong checksums", bad.Load())
			}
		})
	}
}

func TestTCPToAnAddressOfOurOwn(t *testing.T) {
	one, _ := pair(t, nil)
	for _, addr := range []netip.Addr{one4, one6} {
		near, far := connect(t, one, one, addr)
		const size = 8 << 20
		want := make(chan []byte, 1)
		go func() {
			h, err := send(near, 5, size)
			if err != nil {
				t.Error(err)
			}
			want <- h
		}()
		h := sha256.New()
		n, err := io.Copy(h, far)
		if err != nil || n != size || !bytes.Equal(h.Sum(nil), <-want) {
			t.Errorf("%v: %d bytes, %v", addr, n, err)
		}
		near.Close()
		far.Close()
		if _, err := one.Ping(within(t), addr); err != nil {
			t.Error(err)
		}
	}
}

func TestUDP(t *testing.T) {
	one, two := pair(t, nil)
	for _, addr := range []netip.Addr{two4, two6} {
		server, err := two.ListenUDP(netip.AddrPortFrom(addr, 0))
		if err != nil {
			t.Fatal(err)
		}
		client, err := one.DialUDP(netip.Addr{}, server.LocalAddr().(*net.UDPAddr).AddrPort())
		if err != nil {
			t.Fatal(err)
		}
		_ = server.SetDeadline(time.Now().Add(testPatience))
		_ = client.SetDeadline(time.Now().Add(testPatience))
		// The last is longer than the MTU: it travels in fragments.
		for _, size := range []int{0, 1, 100, 1300, 4000} {
			msg := bytes.Repeat([]byte{byte(size)}, size)
			if _, err := client.Write(msg); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 8000)
			n, from, err := server.ReadFrom(b)
			if err != nil || !bytes.Equal(b[:n], msg) {
				t.Fatalf("%v: %d of %d bytes, %v", addr, n, size, err)
			}
			if _, err := server.WriteTo(b[:n], from); err != nil {
				t.Fatal(err)
			}
			if err := client.(interface{ Await() error }).Await(); err != nil {
				t.Fatal(err)
			}
			if n, err := client.Read(b); err != nil || !bytes.Equal(b[:n], msg) {
				t.Fatalf("%v: reply of %d bytes, %v", addr, n, err)
			}
		}
		server.Close()
		if _, err := server.WriteTo(nil, client.LocalAddr()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write after close: %v", err)
		}
		client.Close()
	}
}

func TestPing(t *testing.T) {
	one, _ := pair(t, nil)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			rtt, err := one.Ping(within(t), []netip.Addr{two4, two6}[i%2])
			if err != nil || rtt <= 0 || rtt > testPatience {
				t.Errorf("%v, %v", rtt, err)
			}
		})
	}
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := one.Ping(ctx, netip.MustParseAddr("10.1.16.99")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping of nobody: %v", err)
	}
}

func TestErrorsAreThoseOfSockets(t *testing.T) {
	var cut atomic.Bool
	one, two := pair(t, func([]byte) bool { return !cut.Load() })
	nobody := netip.AddrPortFrom(two4, 9)
	var op *net.OpError
	if _, err := one.DialTCP(within(t), netip.Addr{}, nobody); !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &op) {
		t.Errorf("dial of a closed port: %v", err)
	}
	if _, err := one.DialTCP(within(t), two4, nobody); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("dial from a foreign address: %v", err)
	}
	if _, err := one.ListenTCP(netip.AddrPortFrom(two4, 0)); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("listen on a foreign address: %v", err)
	}
	l, err := one.ListenTCP(netip.AddrPortFrom(one4, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := one.ListenTCP(l.Addr().(*net.TCPAddr).AddrPort()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("listen twice: %v", err)
	}
	accepted := make(chan error, 1)
	go func() { _, err := l.Accept(); accepted <- err }()
	l.Close()
	if err := <-accepted; !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept on a closed listener: %v", err)
	}

	udp, err := one.DialUDP(netip.Addr{}, nobody)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	_ = udp.SetDeadline(time.Now().Add(testPatience))
	if _, err := udp.Write([]byte("anybody?")); err != nil {
		t.Error(err)
	}
	awaits := udp.(interface{ Await() error })
	if err := awaits.Await(); err != nil {
		t.Errorf("await of a port unreachable: %v", err)
	}
	if _, err := udp.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("read after a port unreachable: %v", err)
	}
	_ = udp.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if err := awaits.Await(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("await of nothing: %v", err)
	}
	_ = udp.SetReadDeadline(time.Time{})
	awaited := make(chan error, 1)
	go func() { awaited <- awaits.Await() }()
	udp.Close()
	if err := <-awaited; err != nil && !errors.Is(err, net.ErrClosed) {
		t.Errorf("await of a socket closed meanwhile: %v", err)
	}

	near, far := connect(t, one, two, two4)
	_ = near.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read past its deadline: %v", err)
	}
	_ = near.SetReadDeadline(time.Time{})
	blocked := make(chan error, 1)
	go func() { _, err := near.Read(make([]byte, 1)); blocked <- err }()
	near.Close()
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of a connection closed meanwhile: %v", err)
	}
	far.Close()

	// A peer that is gone: dials end with their context, writes with their deadline.
	near, far = connect(t, one, two, two4)
	cut.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := one.DialTCP(ctx, netip.Addr{}, nobody); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("dial of a dead peer: %v", err)
	}
	_ = near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	b := make([]byte, 1<<20)
	for err = nil; err == nil; {
		_, err = near.Write(b)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("write to a dead peer: %v", err)
	}
	near.Close()
	far.Close()
}

func TestCloseDuringATransfer(t *testing.T) {
	one, two := pair(t, nil)
	near, far := connect(t, one, two, two4)
	done := make(chan error, 2)
	read := make(chan struct{})
	go func() {
		var err error
		for b := make([]byte, 1<<20); err == nil; {
			_, err = near.Write(b)
		}
		done <- err
	}()
	go func() {
		b := make([]byte, 64<<10)
		n, err := far.Read(b)
		close(read)
		for err == nil && n > 0 {
			n, err = far.Read(b)
		}
		done <- err
	}()
	<-read
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err == nil {
			t.Error("a connection outlived its stack")
		}
	}
	if _, err := one.DialTCP(within(t), netip.Addr{}, netip.AddrPortFrom(two4, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial after close: %v", err)
	}
	if err := one.Set(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("set after close: %v", err)
	}
}

func TestSetIsWholeAndIdempotent(t *testing.T) {
	one, two := pair(t, nil)
	third := netip.MustParseAddr("10.1.16.77")
	for _, addrs := range [][]netip.Addr{{two4, third}, {two4, third}, {third, two6}} {
		if err := two.Set(addrs); err != nil {
			t.Fatal(err)
		}
		for _, a := range []netip.Addr{two4, two6, third} {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			if slices.Contains(addrs, a) {
				ctx = within(t)
			}
			if _, err := one.Ping(ctx, a); (err == nil) != slices.Contains(addrs, a) {
				t.Errorf("addresses %v: ping %v: %v", addrs, a, err)
			}
			cancel()
		}
	}
	for _, bad := range [][]netip.Addr{{{}}, {third, third}, {netip.MustParseAddr("224.0.0.1")}, {netip.MustParseAddr("::ffff:1.2.3.4")}} {
		if two.Set(bad) == nil {
			t.Errorf("%v accepted", bad)
		}
	}
}
