package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/netstack"
	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
	"slicewire/shaper"
)

const slicePathMTU = 1420

// site is one end of a slice without a tunnel: a router and the node's stack.
type site struct {
	router *router.Router
	queue  *shaper.Queue
	stack  *netstack.Stack
	addrs  []netip.Addr
	work   *sink // a workload port
}

// sink is a workload that swallows what it gets and sends what it is told.
type sink struct {
	in   chan [][]byte
	done chan struct{}
	once sync.Once
}

func (s *sink) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case pkts := <-s.in:
		for i, p := range pkts {
			sizes[i] = copy(bufs[i][overlay.Headroom:], p)
		}
		return len(pkts), nil
	case <-s.done:
		return 0, net.ErrClosed
	}
}
func (s *sink) Write([][]byte) error { return nil }
func (s *sink) Close() error         { s.once.Do(func() { close(s.done) }); return nil }

// sites joins two sites by their outside links and returns them running.
func sites(t testing.TB) [2]*site {
	t.Helper()
	before := goleak.IgnoreCurrent()
	prefixes := [2][]netip.Prefix{
		{netip.MustParsePrefix("10.1.0.0/20"), netip.MustParsePrefix("fd00:1::/56")},
		{netip.MustParsePrefix("10.1.16.0/20"), netip.MustParsePrefix("fd00:1:0:100::/56")},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var both [2]*site
	for i := range both {
		var at []netip.Addr
		s := &site{queue: shaper.New(nil), work: &sink{in: make(chan [][]byte), done: make(chan struct{})}}
		var own, workload []netip.Prefix
		var routes []router.Route
		for _, p := range prefixes[i] {
			a := p.Addr().Next()
			at = append(at, a)
			own = append(own, netip.PrefixFrom(a, a.BitLen()))
			workload = append(workload, netip.PrefixFrom(a.Next(), a.BitLen()))
			routes = append(routes, router.Route{Prefix: own[len(own)-1], Port: "node"}, router.Route{Prefix: workload[len(workload)-1], Port: "work"})
		}
		s.addrs = at
		for _, p := range prefixes[1-i] {
			routes = append(routes, router.Route{Prefix: p, Port: router.OutsideName})
		}
		var err error
		if s.stack, err = netstack.New(netstack.Config{Slice: "red", MTU: slicePathMTU}); err != nil {
			t.Fatal(err)
		}
		if err = s.stack.Set(at); err != nil {
			t.Fatal(err)
		}
		if s.router, err = router.New(router.Config{Slice: "red", MTU: slicePathMTU, Outlet: s.queue}); err != nil {
			t.Fatal(err)
		}
		if err = s.router.Set(router.State{
			Ports: []router.Port{
				{Name: "node", Link: s.stack.Link(), Role: router.Local, Sources: own},
				{Name: "work", Link: s.work, Role: router.Inside, Sources: workload},
				{Name: router.OutsideName, Role: router.Outside, Sources: prefixes[1-i]},
			},
			Routes: routes,
		}); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			if err := s.router.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		both[i] = s
	}
	for i := range both {
		wg.Go(func() { cross(both[i].router.Outside(), both[1-i].router.Outside()) })
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		for _, s := range both {
			if n := s.stack.Panics(); n != 0 {
				t.Errorf("%d panics", n)
			}
		}
		if _, bench := t.(*testing.B); !bench {
			goleak.VerifyNone(t, before)
		}
	})
	return both
}

// cross carries packets one way, as a tunnel would.
func cross(from, to router.Link) {
	whole, bufs, sizes := make([][]byte, overlay.BatchSize), make([][]byte, overlay.BatchSize), make([]int, overlay.BatchSize)
	for i := range whole {
		whole[i] = make([]byte, overlay.Headroom+2048)
	}
	for {
		n, err := from.Read(whole, sizes)
		if err != nil {
			return
		}
		for i := range n {
			bufs[i] = whole[i][:overlay.Headroom+sizes[i]]
		}
		if to.Write(bufs[:n]) != nil {
			return
		}
	}
}

func dialed(t testing.TB, from, to *site, family int) (near, far net.Conn) {
	t.Helper()
	l, err := to.stack.ListenTCP(netip.AddrPortFrom(to.addrs[family], 0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if near, err = from.stack.DialTCP(ctx, netip.Addr{}, l.Addr().(*net.TCPAddr).AddrPort()); err != nil {
		t.Fatal(err)
	}
	return near, <-accepted
}

func TestSlicePathIsExact(t *testing.T) {
	s := sites(t)
	const size = 64 << 20
	data := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(data)
	want := sha256.Sum256(data)
	for family := range 2 {
		near, far := dialed(t, s[0], s[1], family)
		var wg sync.WaitGroup
		for _, way := range [][2]net.Conn{{near, far}, {far, near}} {
			wg.Go(func() {
				if _, err := way[0].Write(data); err != nil {
					t.Error(err)
				}
				_ = way[0].(interface{ CloseWrite() error }).CloseWrite()
			})
			wg.Go(func() {
				h := sha256.New()
				n, err := io.Copy(h, way[1])
				if n != size || err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("%d bytes, %v, same %v", n, err, bytes.Equal(h.Sum(nil), want[:]))
				}
			})
		}
		wg.Wait()
		near.Close()
		far.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if _, err := s[0].stack.Ping(ctx, s[1].addrs[family]); err != nil {
			t.Error(err)
		}
		cancel()
	}
	for i := range s {
		d := s[i].router.Counters().Drops
		delete(d, overlay.DropQueueFull.String()) // TCP's own doing, on a slow machine
		if len(d) != 0 {
			t.Errorf("site %d dropped %v", i, d)
		}
	}
}

// Many streams at once wait for each other where they are sent, and lose nothing
// on the way out: what is lost here is 64 KiB at a time, and stops a stream.
func TestManyStreamsLoseNothingOnTheWayOut(t *testing.T) {
	s := sites(t)
	const streams, size = 16, 16 << 20
	var wg sync.WaitGroup
	for range streams {
		near, far := dialed(t, s[0], s[1], 0)
		wg.Go(func() {
			for b, left := make([]byte, 64<<10), size; left > 0; left -= len(b) {
				if _, err := near.Write(b); err != nil {
					t.Error(err)
					return
				}
			}
			_ = near.(interface{ CloseWrite() error }).CloseWrite()
		})
		wg.Go(func() {
			if n, err := io.Copy(io.Discard, far); n != size || err != nil {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
			near.Close()
			far.Close()
		})
	}
	wg.Wait()
	for i := range s {
		if d := s[i].queue.Drops().Snapshot(); len(d) != 0 {
			t.Errorf("site %d dropped %v", i, d)
		}
	}
}

func TestSlicePathSurvivesAMillionMalformedPackets(t *testing.T) {
	const total = 1_000_000
	s := sites(t)
	for _, port := range []uint16{80, 443} {
		l, err := s[0].stack.ListenTCP(netip.AddrPortFrom(s[0].addrs[0], port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	seed := rand.Uint64()
	mine := []netip.Addr{s[0].addrs[0], s[0].addrs[1]}
	workload := []netip.Addr{mine[0].Next(), mine[1].Next()}
	var wg sync.WaitGroup
	send := func(n uint64, sources []netip.Addr, put func([][]byte)) {
		wg.Go(func() {
			g := overlaytest.NewGenerator(seed+n, sources, mine)
			death := overlaytest.PacketOfDeath(netip.AddrPortFrom(sources[0], 1), netip.AddrPortFrom(mine[0], 80))
			for i := 0; i < total/2; {
				var batch [][]byte
				for ; len(batch) < overlay.BatchSize && i < total/2; i++ {
					p := g.Malformed()
					if i%1000 == 0 {
						p = bytes.Clone(death)
					}
					batch = append(batch, p[:min(len(p), slicePathMTU)])
				}
				put(batch)
			}
		})
	}
	send(0, workload, func(pkts [][]byte) { s[0].work.in <- pkts })
	send(1, s[1].addrs, func(pkts [][]byte) {
		bufs := make([][]byte, len(pkts))
		for i, p := range pkts {
			bufs[i] = append(make([]byte, overlay.Headroom), p...)
		}
		_ = s[0].router.Outside().Write(bufs)
	})
	wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := s[1].stack.Ping(ctx, s[0].addrs[0]); err != nil {
		t.Errorf("seed %d: the site is no longer well: %v", seed, err)
	}
	c := s[0].router.Counters()
	t.Logf("seed %d: %+v, stack %v", seed, c, s[0].stack.Drops().Snapshot())
}

func BenchmarkSlicePath(b *testing.B) {
	s := sites(b)
	near, far := dialed(b, s[0], s[1], 0)
	const chunk = 64 << 10
	b.SetBytes(chunk)
	done := make(chan int64, 1)
	go func() {
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{far}, make([]byte, chunk))
		done <- n
	}()
	buf := make([]byte, chunk)
	cpu := func() float64 {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	b.ResetTimer()
	start := cpu()
	for range b.N {
		if _, err := near.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	_ = near.(interface{ CloseWrite() error }).CloseWrite()
	<-done
	b.StopTimer()
	b.ReportMetric((cpu()-start)/(float64(b.N)*chunk/1e9), "cpu-s/GB")
	near.Close()
	far.Close()
}
