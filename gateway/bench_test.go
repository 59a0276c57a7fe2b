package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"slicewire/overlay"
)

// inbound is a train of data messages and what is needed to take it through
// the mux to the buffers of a device.
type inbound struct {
	m       *mux
	d       datagram
	r       *receiver
	packets [][]byte
	sizes   []int
	eps     []conn.Endpoint
}

func newInbound(t testing.TB, count, size int) *inbound {
	m, b := testMux(t)
	x := &inbound{m: m, d: datagram{buf: m.trains.get(), size: size, from: netip.MustParseAddrPort("192.0.2.1:1")}}
	for range count {
		x.d.n += copy(x.d.buf.b[x.d.n:], outer(typeData, 1, size))
	}
	x.r = &receiver{bind: b[0], done: b[0].done}
	x.sizes = make([]int, overlay.BatchSize)
	x.eps = make([]conn.Endpoint, overlay.BatchSize)
	for range overlay.BatchSize {
		x.packets = append(x.packets, make([]byte, 2048))
	}
	return x
}

// cross delivers the train and takes it out again; it returns the packets.
func (x *inbound) cross(t testing.TB) int {
	before, n := x.d.buf, x.d.n
	x.m.deliver(&x.d, 0)
	x.m.flush()
	got := 0
	for x.r.bind.queue.n > 0 {
		k, err := x.r.receive(x.packets, x.sizes, x.eps)
		if err != nil {
			t.Fatal(err)
		}
		x.r.bind.inside.give(k)
		got += k
	}
	if x.d.buf != before { // the train was kept: refill the new buffer's header
		copy(x.d.buf.b, before.b[:n])
	}
	return got
}

func TestThePacketPathDoesNotAllocate(t *testing.T) {
	for _, tt := range []struct {
		name        string
		count, size int
	}{{"trains", 44, 1452}, {"single packets", 1, 100}} {
		t.Run("inside, "+tt.name, func(t *testing.T) {
			x := newInbound(t, tt.count, tt.size)
			if x.cross(t) != tt.count {
				t.Fatal("packets are missing")
			}
			if n := testing.AllocsPerRun(200, func() { x.cross(t) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
		t.Run("outside, "+tt.name, func(t *testing.T) {
			in := listen(t, "127.0.0.1:0") // takes nothing: the kernel drops what is too much
			defer in.Close()
			s, err := newSocket(listen(t, "127.0.0.1:0"), testLog())
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			m, b := testMux(t)
			m.out = s
			to := m.ends.get(in.LocalAddr().(*net.UDPAddr).AddrPort())
			var bufs [][]byte
			for range min(tt.count, overlay.BatchSize) {
				bufs = append(bufs, outer(typeData, 1, tt.size))
			}
			send := func() {
				b[0].outside.take(len(bufs))
				if err := b[0].Send(bufs, to); err != nil {
					t.Fatal(err)
				}
			}
			send()
			if n := testing.AllocsPerRun(200, send); n != 0 && !raceEnabled {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func BenchmarkDemux(b *testing.B) {
	for _, c := range []struct{ count, size int }{{44, 1452}, {1, 1452}, {1, 100}} {
		b.Run(fmt.Sprintf("%dx%d", c.count, c.size), func(b *testing.B) {
			x := newInbound(b, c.count, c.size)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += x.cross(b)
			}
			if n != b.N*c.count {
				b.Fatalf("%d packets of %d", n, b.N*c.count)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
		})
	}
}

func BenchmarkInitiationForOneOf(b *testing.B) {
	for _, slices := range []int{1, 10, 50} {
		b.Run(fmt.Sprint(slices), func(b *testing.B) {
			m := newMux(nil, false, testLog())
			var all []*bind
			for range slices {
				x := new(bind)
				x.mac1.Store(newMAC1(PublicKey(newKey(b))))
				all = append(all, x)
			}
			m.binds.Store(&all)
			p := outer(typeInitiation, 0, initiationBytes)
			from := netip.MustParseAddrPort("192.0.2.1:1")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ { // a second each, so that the limit lets them through
				if m.routeInitiation(p, from, time.Duration(i)*time.Second) != nil {
					b.Fatal("a forged initiation is ours")
				}
			}
			if m.drops.Get(overlay.DropRateLimited) != 0 {
				b.Fatal("the limit was measured")
			}
		})
	}
}

func BenchmarkSend(b *testing.B) {
	for _, gso := range []bool{true, false} {
		for _, c := range []struct{ count, size int }{{32, 1452}, {1, 1452}} {
			b.Run(fmt.Sprintf("gso=%v/%dx%d", gso, c.count, c.size), func(b *testing.B) {
				in := listen(b, "127.0.0.1:0")
				defer in.Close()
				s, err := newSocket(listen(b, "127.0.0.1:0"), testLog())
				if err != nil {
					b.Fatal(err)
				}
				defer s.close()
				if !gso {
					s.gso.Store(false)
				}
				to := newEndpoint(in.LocalAddr().(*net.UDPAddr).AddrPort(), false)
				var bufs [][]byte
				for range c.count {
					bufs = append(bufs, outer(typeData, 1, c.size))
				}
				b.ReportAllocs()
				for b.Loop() {
					if lost := s.send(bufs, to); lost != 0 {
						b.Fatalf("%d lost", lost)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.count), "ns/packet")
			})
		}
	}
}

// A source is a Link that always has packets, and takes any.
type source struct {
	*memLink
	p []byte
}

func (s *source) Read(bufs [][]byte, sizes []int) (int, error) {
	if s.isClosed() {
		return 0, net.ErrClosed
	}
	for i := range bufs {
		sizes[i] = copy(bufs[i][overlay.Headroom:], s.p)
	}
	return len(bufs), nil
}

// BenchmarkPair is two gateways over loopback in one process, one way as fast
// as it goes: ns/packet is both sides together, of the wall clock.
func BenchmarkPair(b *testing.B) {
	for _, c := range []struct {
		size  int
		show  OuterTOS
		class byte
	}{{1420, TOSOff, 0}, {100, TOSOff, 0}, {1420, TOSECN, 0}, {1420, TOSECN, 2}, {100, TOSECN, 2}} {
		size := c.size
		b.Run(fmt.Sprintf("%d/show=%d/class=%d", size, c.show, c.class), func(b *testing.B) {
			src := &source{newMemLink(1), packet("10.1.1.1", "10.1.2.9", 0, size)}
			src.p[1] = c.class
			sink := newMemLink(1)
			sink.sink = true
			ka, kb := newKey(b), newKey(b)
			x, y := newNodeOf(b, "127.0.0.1:0", Config{OuterTOS: c.show}), newNodeOf(b, "127.0.0.1:0", Config{OuterTOS: c.show})
			x.set(Tunnel{Slice: "red", PrivateKey: ka, Inside: src, Peers: []Peer{peer(kb, y.addr, "10.1.2.0/24")}}).run()
			y.set(Tunnel{Slice: "red", PrivateKey: kb, Inside: sink, Peers: []Peer{peer(ka, x.addr, "10.1.1.0/24")}}).run()
			eventually(b, "traffic", func() bool { return sink.wrote.Load() > 1000 })
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			cpu := cpuTime(b)
			start := time.Now()
			n0 := sink.wrote.Load()
			b.ResetTimer()
			for sink.wrote.Load()-n0 < int64(b.N) {
				time.Sleep(100 * time.Microsecond)
			}
			b.StopTimer()
			n := float64(sink.wrote.Load() - n0)
			el := time.Since(start)
			cpu = cpuTime(b) - cpu
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(el.Nanoseconds())/n, "ns/packet")
			b.ReportMetric(n*float64(size)*8/el.Seconds()/1e6, "Mbit/s")
			b.ReportMetric(cpu.Seconds()/(n*float64(size)/1e9), "CPU-s/GB")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/packet")
			s, r := x.Status()[0], y.Status()[0]
			b.Logf("n=%.0f out %d peak %d, in peak %d, drops %v %v %v", n, s.Outside, s.OutsidePeak, r.InsidePeak, s.Drops, r.Drops, y.Drops())
			x.stop()
			y.stop()
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	var user, sys int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &sys); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+sys) * 10 * time.Millisecond
}

func TestIdleTunnelsAreCheap(t *testing.T) {
	rss := func() int {
		runtime.GC()
		b, err := os.ReadFile("/proc/self/statm")
		if err != nil {
			t.Fatal(err)
		}
		var size, resident int
		if _, err := fmt.Sscan(string(b), &size, &resident); err != nil {
			t.Fatal(err)
		}
		return resident * os.Getpagesize() >> 10
	}
	n := newNode(t, "127.0.0.1:0").run()
	eventually(t, "running", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return n.state == stateRunning })
	var all []Tunnel
	const slices = 10
	g0, r0 := runtime.NumGoroutine(), rss()
	for i := range slices {
		all = append(all, Tunnel{Slice: fmt.Sprint(i), PrivateKey: newKey(t), Inside: newMemLink(1),
			Peers: []Peer{peer(newKey(t), netip.AddrPort{}, "10.0.0.0/8")}})
	}
	n.set(all...)
	g, r := runtime.NumGoroutine()-g0, rss()-r0
	t.Logf("a slice with one peer: %d goroutines, %d KiB resident", g/slices, r/slices)
	if g/slices > 20+3*runtime.NumCPU() {
		t.Errorf("%d goroutines for a slice", g/slices)
	}
	n.stop()
}
