package gateway

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
)

// inFlight is how many packets a valve lets go before they have arrived: what is
// dropped in between would be paid for by the others.
const inFlight = 8 * overlay.BatchSize

// A valve is a source that yields packets while it is open.
type valve struct {
	*memLink
	p    []byte
	sink *memLink // where they arrive
	sent int64

	mu   sync.Mutex
	turn sync.Cond
	open bool
}

func newValve(p []byte) *valve {
	v := &valve{memLink: newMemLink(1), p: p}
	v.turn.L = &v.mu
	return v
}

func (v *valve) set(open bool) {
	v.mu.Lock()
	v.open = open
	v.mu.Unlock()
	v.turn.Broadcast()
}

func (v *valve) Read(bufs [][]byte, sizes []int) (int, error) {
	v.mu.Lock()
	for !v.open && !v.isClosed() {
		v.turn.Wait()
	}
	v.mu.Unlock()
	if v.isClosed() {
		return 0, net.ErrClosed
	}
	for tries := 0; v.sent-v.sink.wrote.Load() > inFlight; tries++ {
		if tries == 100 {
			v.sent = v.sink.wrote.Load() // the rest is lost
		}
		time.Sleep(50 * time.Microsecond)
	}
	for i := range bufs {
		sizes[i] = copy(bufs[i][overlay.Headroom:], v.p)
	}
	v.sent += int64(len(bufs))
	return len(bufs), nil
}

func (v *valve) Close() error {
	err := v.memLink.Close()
	v.turn.Broadcast()
	return err
}

// A way is a pair of gateways with a valve at one end.
type way struct {
	*valve
	x, y *node
}

func newWay(b *testing.B, size int, class byte) *way {
	sink := newMemLink(1)
	sink.sink = true
	w := &way{valve: newValve(packet("10.1.1.1", "10.1.2.9", 0, size))}
	w.sink, w.p[1] = sink, class
	ka, kb := newKey(b), newKey(b)
	w.x, w.y = newNodeOf(b, "127.0.0.1:0", Config{OuterTOS: TOSECN}), newNodeOf(b, "127.0.0.1:0", Config{OuterTOS: TOSECN})
	w.x.set(Tunnel{Slice: "red", PrivateKey: ka, Inside: w, Peers: []Peer{peer(kb, w.y.addr, "10.1.2.0/24")}}).run()
	w.y.set(Tunnel{Slice: "red", PrivateKey: kb, Inside: sink, Peers: []Peer{peer(ka, w.x.addr, "10.1.1.0/24")}}).run()
	w.set(true)
	eventually(b, "traffic", func() bool { return sink.wrote.Load() > 1000 })
	w.set(false)
	return w
}

// show has both gateways show classes or not, as if they had been made so: one
// pair for both, as two differ by more than what is measured. Nothing is under
// way then.
func (w *way) show(b *testing.B, o OuterTOS) {
	for _, n := range []*node{w.x, w.y} {
		t := n.running[tunnelID{slice: "red"}]
		t.inner.tos, t.bind.classes = o.mask(), o != TOSOff
		s := n.mux.out.(*socket)
		s.classes.Store(o != TOSOff)
		if err := s.raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, int(o))
		}); err != nil {
			b.Fatal(err)
		}
	}
}

// take lets packets through for a while and returns the CPU that one costs, in ns.
func (w *way) take(b *testing.B, d time.Duration) float64 {
	cpu, n := usage(b), w.sink.wrote.Load()
	w.set(true)
	time.Sleep(d)
	w.set(false)
	for last := int64(-1); last != w.sink.wrote.Load(); time.Sleep(time.Millisecond) { // what is under way
		last = w.sink.wrote.Load()
	}
	return float64(usage(b)-cpu) / float64(w.sink.wrote.Load()-n)
}

func usage(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkClassesOnTheWay is what it costs to show traffic classes outside, of
// the CPU of both ends: with and without take turns of 20 ms, so that both see the
// same machine. The ratio is the median of those of turns next to each other.
func BenchmarkClassesOnTheWay(b *testing.B) {
	for _, c := range []struct {
		size  int
		class byte
	}{{1420, 0}, {1420, 2}, {100, 2}} {
		b.Run(fmt.Sprintf("%d/class=%d", c.size, c.class), func(b *testing.B) {
			w := newWay(b, c.size, c.class)
			var off, ecn, ratios []float64
			turn := func(o OuterTOS) float64 { w.show(b, o); return w.take(b, 20*time.Millisecond) }
			for i := range b.N {
				var x, y float64
				if i%2 == 0 {
					x, y = turn(TOSOff), turn(TOSECN)
				} else {
					y, x = turn(TOSECN), turn(TOSOff)
				}
				off, ecn, ratios = append(off, x), append(ecn, y), append(ratios, y/x)
			}
			w.x.stop()
			w.y.stop()
			median := func(s []float64) float64 { slices.Sort(s); return s[len(s)/2] }
			b.ReportMetric(median(off), "off-cpu-ns/packet")
			b.ReportMetric(median(ecn), "ecn-cpu-ns/packet")
			b.ReportMetric(median(ratios), "ecn/off")
		})
	}
}
