package gateway

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"slicewire/overlay"
)

// loop is two sockets on the loopback and packets that go from one to the
// other, which loses none of so few.
type loop struct {
	out, in *socket
	to      *endpoint
	bufs    [][]byte
	into    []datagram
}

func newLoop(t testing.TB, count, size int) *loop {
	near, far := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	if err := far.SetReadDeadline(time.Now().Add(time.Minute)); err != nil { // not for ever, should one be lost
		t.Fatal(err)
	}
	l := &loop{to: newEndpoint(far.LocalAddr().(*net.UDPAddr).AddrPort(), false)}
	var err error
	if l.out, err = newSocket(near, testLog()); err != nil {
		t.Fatal(err)
	}
	if l.in, err = newSocket(far, testLog()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = l.out.close(), l.in.close() })
	pool := bufferPool{size: trainBytes, keep: trainsKept}
	for range receiveBatch {
		l.into = append(l.into, datagram{buf: pool.get()})
	}
	for i := range count {
		l.bufs = append(l.bufs, outer(typeData, uint32(i), size))
	}
	if got := l.cross(t, true); got != count {
		t.Fatalf("%d of %d packets arrived", got, count)
	}
	return l
}

// cross sends the packets and receives as many, and returns how many were as
// long as what was sent and, if they are to be compared, the same.
func (l *loop) cross(t testing.TB, compare bool) (same int) {
	if lost := l.out.send(l.bufs, l.to); lost != 0 {
		t.Fatalf("%d lost", lost)
	}
	for came := 0; came < len(l.bufs); {
		n, err := l.in.receive(l.into)
		if err != nil {
			t.Fatal(err)
		}
		for i := range l.into[:n] {
			d := &l.into[i]
			if d.size == 0 {
				t.Fatal("an empty or truncated datagram")
			}
			for off := 0; off < d.n; off += d.size {
				p := d.buf.b[off:min(off+d.size, d.n)]
				if came < len(l.bufs) && len(p) == len(l.bufs[came]) && (!compare || bytes.Equal(p, l.bufs[came])) {
					same++
				}
				came++
			}
		}
	}
	return same
}

var loops = []struct{ count, size int }{{overlay.BatchSize, 1452}, {1, 1452}, {1, 100}}

// BenchmarkLoopback is both ends of the transport and the kernel between them.
func BenchmarkLoopback(b *testing.B) {
	for _, c := range loops {
		b.Run(fmt.Sprintf("%dx%d", c.count, c.size), func(b *testing.B) {
			l := newLoop(b, c.count, c.size)
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				n += l.cross(b, false)
			}
			if n != b.N*c.count {
				b.Fatalf("%d packets of %d", n, b.N*c.count)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
		})
	}
}

func TestTheSocketsDoNotAllocate(t *testing.T) {
	for _, c := range loops {
		l := newLoop(t, c.count, c.size)
		if n := testing.AllocsPerRun(200, func() { l.cross(t, false) }); n != 0 && !raceEnabled {
			t.Errorf("%d packets of %d bytes: %v allocations", c.count, c.size, n)
		}
	}
}

// pass takes one batch through a governor that has room.
func pass(t testing.TB, g *governor) {
	if !g.wait(nil) {
		t.Fatal("stopped")
	}
	g.take(overlay.BatchSize)
	g.give(overlay.BatchSize)
}

// A fullGovernor is one whose taker waits each time, until another goroutine
// gives.
type fullGovernor struct {
	*governor
	give chan struct{}
}

func newFullGovernor(t testing.TB) *fullGovernor {
	g := &fullGovernor{newGovernor(defaultLimit()), make(chan struct{})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range g.give {
			g.governor.give(defaultLimit())
		}
	}()
	t.Cleanup(func() { close(g.give); <-ended })
	return g
}

func (g *fullGovernor) pass(t testing.TB) {
	g.take(defaultLimit())
	g.give <- struct{}{}
	if !g.wait(nil) {
		t.Fatal("stopped")
	}
}

// empty demands that everything was given back and nothing written off.
func (g *governor) empty(t testing.TB) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.c.inFlight() != 0 || g.c.lost != 0 || g.c.taken == 0 {
		t.Fatalf("%d in flight, %d lost of %d", g.c.inFlight(), g.c.lost, g.c.taken)
	}
}

func BenchmarkGovernor(b *testing.B) {
	b.Run("with room", func(b *testing.B) {
		g := newGovernor(defaultLimit())
		b.ReportAllocs()
		for b.Loop() {
			pass(b, g)
		}
		g.empty(b)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*overlay.BatchSize), "ns/packet")
	})
	b.Run("full", func(b *testing.B) {
		g := newFullGovernor(b)
		b.ReportAllocs()
		for b.Loop() {
			g.pass(b)
		}
		g.empty(b)
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*defaultLimit()), "ns/packet")
	})
}

func TestTheGovernorDoesNotAllocate(t *testing.T) {
	g, full := newGovernor(defaultLimit()), newFullGovernor(t)
	if n := testing.AllocsPerRun(1000, func() { pass(t, g) }); n != 0 {
		t.Errorf("with room: %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() { full.pass(t) }); n != 0 {
		t.Errorf("full: %v allocations", n)
	}
}

// newBusyGate returns a gate with a thousand prefixes, one peer of which is
// silent, and a batch for live ones.
func newBusyGate(t testing.TB) (*gate, [][]byte) {
	live, silent := newKey(t), newKey(t)
	var all []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256))
	}
	g := newGate([]Peer{peer(live, netip.AddrPort{}, all...), peer(silent, netip.AddrPort{}, "10.0.0.0/8", "fd00::/64")},
		func(p *Peer) bool { return p.PublicKey == PublicKey(silent) })
	var bufs [][]byte
	for i := range overlay.BatchSize {
		p := packet("10.9.9.9", fmt.Sprintf("10.%d.%d.7", i%3, i), 0, 100)
		bufs = append(bufs, append(make([]byte, overlay.Headroom), p...))
	}
	return g, bufs
}

// admitted lets a batch through a gate and returns how many packets passed.
func admitted(g *gate, bufs [][]byte, sizes []int, drops *overlay.Drops) (n int) {
	for i, b := range bufs {
		sizes[i] = len(b) - overlay.Headroom
	}
	g.admit(bufs, sizes, drops)
	for _, size := range sizes {
		if size > 0 {
			n++
		}
	}
	return n
}

func BenchmarkGate(b *testing.B) {
	g, bufs := newBusyGate(b)
	sizes := make([]int, len(bufs))
	var drops overlay.Drops
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n += admitted(g, bufs, sizes, &drops)
	}
	if n != b.N*len(bufs) {
		b.Fatalf("%d of %d passed", n, b.N*len(bufs))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
}

func TestTheGateDoesNotAllocate(t *testing.T) {
	g, bufs := newBusyGate(t)
	sizes := make([]int, len(bufs))
	var drops overlay.Drops
	if n := testing.AllocsPerRun(100, func() {
		if got := admitted(g, bufs, sizes, &drops); got != len(bufs) {
			t.Fatalf("%d of %d passed", got, len(bufs))
		}
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}
