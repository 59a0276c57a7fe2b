package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
	"slicewire/router"
	"slicewire/shaper"
)

// A policedPath is a workload's port, a router with a policy of 100 rules and a
// shaper whose ceiling is never reached: all that a packet of such a slice meets
// before it is encrypted. One goroutine, the router's reader of the port, does
// all of it: this Link's Read takes from the shaper what came of the batch before.
type policedPath struct {
	router  *router.Router
	queue   *shaper.Queue
	headers []byte // policedHeaders bytes each, of packets of the flows at random
	size    int    // of a packet
	at      int

	bufs  [][]byte
	sizes []int
	put   int // packets read by the router
	out   int // packets that came out of the shaper
	began int64
	spent int64 // processor's time of the latest work, ns
	left  int   // batches of it
	busy  bool
	work  chan int      // batches to do
	done  chan struct{} // they are done

	once   sync.Once
	closed chan struct{}
}

const (
	policedPayload = 128 // bytes
	policedHeaders = 48  // those of UDP over either IP, and some data
)

func newPolicedPath(t testing.TB, v6 bool, flows int) *policedPath {
	rng := rand.New(rand.NewPCG(1, 2))
	p := &policedPath{
		queue: shaper.New(shaper.NewUplink(0)), sizes: make([]int, overlay.BatchSize),
		work: make(chan int), done: make(chan struct{}), closed: make(chan struct{}),
	}
	p.queue.Set(shaper.Plan{Share: shaper.Share{Guaranteed: shaper.Gbps, Ceiling: 90 * shaper.Gbps}, Classes: []shaper.Class{{}}})
	for range overlay.BatchSize {
		p.bufs = append(p.bufs, make([]byte, overlay.Headroom+overlay.MaxPacket))
	}
	var err error
	if p.router, err = router.New(router.Config{Slice: "red", MTU: slicePathMTU, Outlet: p.queue}); err != nil {
		t.Fatal(err)
	}
	src, s := netip.MustParseAddr("10.0.0.2"), router.State{Policy: hundredRules(t)}
	if v6 {
		src = netip.MustParseAddr("fd00::2")
	}
	s.Ports = []router.Port{{Name: "a", Role: router.Inside, Link: p, Sources: []netip.Prefix{netip.PrefixFrom(src, src.BitLen())}}, {Name: router.OutsideName}}
	seen := make(map[netip.Prefix]bool)
	for len(s.Routes) < 10_000 { // as a large mesh has them
		a := netip.AddrFrom4([4]byte{byte(16 + rng.IntN(64)), byte(rng.Uint32()), byte(rng.Uint32()), 1})
		bits := 16 + rng.IntN(13)
		if v6 {
			a, bits = netip.AddrFrom16([16]byte{0xfd, 1, 2, 3, 4, byte(rng.Uint32()), byte(rng.Uint32()), byte(rng.Uint32()), 15: 1}), 48+rng.IntN(17)
		}
		if x := netip.PrefixFrom(a, bits).Masked(); !seen[x] {
			seen[x] = true
			s.Routes = append(s.Routes, router.Route{Prefix: x, Port: router.OutsideName})
		}
	}
	if err := p.router.Set(s); err != nil {
		t.Fatal(err)
	}
	some := make([][]byte, flows)
	for i := range some {
		to := s.Routes[rng.IntN(len(s.Routes))].Prefix.Addr().Next()
		some[i] = overlaytest.UDP(netip.AddrPortFrom(src, uint16(i)), netip.AddrPortFrom(to, uint16(rng.Uint32())), make([]byte, policedPayload))
		p.size = len(some[i])
	}
	for range 2048 * overlay.BatchSize {
		p.headers = append(p.headers, some[rng.IntN(flows)][:policedHeaders]...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.router.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p.pass(t, 2048) // all flows are known, all memory is there
	if n := len(p.router.Flows()); n < flows*9/10 {
		t.Fatalf("%d flows are remembered of %d", n, flows)
	}
	return p
}

// hundredRules all select everything; the last one allows it.
func hundredRules(t testing.TB) *router.Policy {
	every := []overlay.Block{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}, {Prefix: netip.MustParsePrefix("::/0")}}
	var rules []overlay.Rule
	for i := range 100 {
		r := overlay.Rule{Name: fmt.Sprint("rule ", i), Tier: overlay.TierPolicy, Subject: every, Peer: every, Ports: []overlay.PortRange{{Proto: overlay.ProtoTCP, First: uint16(i), Last: uint16(i)}}}
		if i == 99 {
			r.Ports = nil
		}
		rules = append(rules, r)
	}
	p, err := router.NewPolicy(rules)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// pass takes batches through, all of which have to come out.
func (p *policedPath) pass(t testing.TB, batches int) {
	t.Helper()
	before := p.out
	p.work <- batches
	<-p.done
	if got := p.out - before; got != batches*overlay.BatchSize {
		t.Fatalf("%d of %d came out: %v, %v", got, batches*overlay.BatchSize, p.router.Counters().Drops, p.queue.Drops().Snapshot())
	}
}

// Read is called by the router, which has written what it got before.
func (p *policedPath) Read(bufs [][]byte, sizes []int) (int, error) {
	for p.out < p.put { // or until there is no more: then some were dropped
		p.queue.Wake()
		n, err := p.queue.Read(p.bufs, p.sizes)
		if n == 0 || err != nil {
			break
		}
		p.out += n
	}
	if p.left == 0 {
		if p.busy {
			p.spent, p.busy = threadTime()-p.began, false
			p.done <- struct{}{}
		}
		select {
		case p.left = <-p.work:
			runtime.LockOSThread() // once more each time: it ends with its goroutine
			p.began, p.busy = threadTime(), true
		case <-p.closed:
			return 0, net.ErrClosed
		}
	}
	p.left--
	for i, b := range bufs {
		overlay.PutMeta(b, overlay.Meta{})
		*(*[policedHeaders]byte)(b[overlay.Headroom:]) = [policedHeaders]byte(p.headers[p.at:])
		sizes[i] = p.size
		if p.at += policedHeaders; p.at == len(p.headers) {
			p.at = 0
		}
	}
	p.put += len(bufs)
	return len(bufs), nil
}

// Write takes what would go to the workload: nothing does.
func (p *policedPath) Write([][]byte) error { return nil }

func (p *policedPath) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// threadTime is the processor's time that this thread has had, in ns.
// getrusage(2) would count in ticks.
func threadTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return t.Nano()
}

// What policy and shaping together cost a packet: processor's time, which others
// on the machine add less to than to the clock's.
func BenchmarkPolicedAndShaped(b *testing.B) {
	for _, c := range []struct {
		flows int
		v6    bool
	}{{1, false}, {100, false}, {10_000, false}, {10_000, true}} {
		b.Run(fmt.Sprintf("flows=%d/IPv6=%v", c.flows, c.v6), func(b *testing.B) {
			p := newPolicedPath(b, c.v6, c.flows)
			b.ReportAllocs()
			b.ResetTimer()
			p.pass(b, b.N)
			n := float64(b.N * overlay.BatchSize)
			b.ReportMetric(float64(p.spent)/n, "cpu-ns/packet")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/n, "ns/packet")
		})
	}
}

// A packet of a flow that is known costs no allocation on its way through policy
// and shaper.
func TestPolicedAndShapedAllocatesNothing(t *testing.T) {
	if slack > 1 {
		t.Skip("the race detector allocates")
	}
	for _, flows := range []int{1, 100, 10_000} {
		p := newPolicedPath(t, false, flows)
		if n := testing.AllocsPerRun(5, func() { p.pass(t, 500) }); n >= 50 {
			t.Errorf("%d flows: %v allocations in 500 batches", flows, n)
		}
	}
}
