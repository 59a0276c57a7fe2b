package router

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what should take no time.
const patience = 20 * time.Second

// run serves g until the test ends and then looks for what it left behind.
func (g *rig) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run did not end")
		}
		goleak.VerifyNone(t)
	})
	t.Cleanup(stop)
	return stop
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (w *wire) count() int { w.mu.Lock(); defer w.mu.Unlock(); return len(w.got) }

func TestRunCarriesPacketsAndEndsClean(t *testing.T) {
	g := newRig(t)
	stop := g.run(t)
	addr := netip.MustParseAddr
	g.a.in <- [][]byte{
		overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.0.3"), 2), nil),
		overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.16.3"), 2), nil),
	}
	eventually(t, "the neighbour gets its packet", func() bool { return g.b.count() == 1 })
	bufs, sizes := withHeadroom(make([]byte, testMTU)), make([]int, 1)
	if n, err := g.Outside().Read(bufs, sizes); n != 1 || err != nil || sizes[0] != 28 {
		t.Errorf("the tunnel read %d packets, %v", n, err)
	}
	if err := g.Outside().Write(withHeadroom(overlaytest.UDP(ap(addr("10.1.16.3"), 1), ap(addr("10.1.0.2"), 2), nil))); err != nil {
		t.Error(err)
	}
	if g.a.count() != 1 {
		t.Error("the packet from outside did not arrive")
	}
	want := []PortCount{
		{"a", Inside, 2, 56, 1, 28}, {"b", Inside, 0, 0, 1, 28}, {"node", Local, 0, 0, 0, 0}, {OutsideName, Outside, 1, 28, 1, 28},
	}
	if c := g.Counters(); !slices.Equal(c.Ports, want) || len(c.Drops) != 0 {
		t.Errorf("counted %v %v, want %v", c.Ports, c.Drops, want)
	}

	blocked := make(chan error, 1)
	go func() { _, err := g.Outside().Read(bufs, sizes); blocked <- err }()
	stop()
	if err := <-blocked; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the tunnel's Read after Run: %v", err)
	}
	if err := g.Outside().Write(bufs); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the tunnel's Write after Run: %v", err)
	}
	for name, w := range map[string]*wire{"a": g.a, "b": g.b, "node": g.own} {
		select {
		case <-w.closed:
		default:
			t.Errorf("port %s was not closed", name)
		}
	}
	if err := g.Set(g.state); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Set after Run: %v", err)
	}
	if g.Run(context.Background()) == nil {
		t.Error("ran twice")
	}
}

func TestSetChangesPortsWithoutLoss(t *testing.T) {
	g := newRig(t)
	g.run(t)
	addr := netip.MustParseAddr
	pkt := overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.0.3"), 2), nil)
	// While port a sends, everything else changes a hundred times.
	const packets = 5000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range packets {
			g.a.in <- [][]byte{slices.Clone(pkt)}
		}
	}()
	for i := range 100 {
		s := g.state
		s.Ports = slices.Clone(s.Ports)
		extra := newWire()
		s.Ports = append(s.Ports, Port{Name: "extra", Link: extra, Role: Inside, Sources: prefixes("10.1.0.9/32")})
		s.Routes = append(slices.Clone(s.Routes), Route{netip.MustParsePrefix("10.1.0.9/32"), "extra"})
		if err := g.Set(s); err != nil {
			t.Fatal(err)
		}
		g.a.in <- [][]byte{overlaytest.UDP(ap(addr("10.1.0.2"), 1), ap(addr("10.1.0.9"), 2), nil)}
		eventually(t, fmt.Sprintf("extra port %d gets its packet", i), func() bool { return extra.count() == 1 })
		if err := g.Set(g.state); err != nil {
			t.Fatal(err)
		}
		<-extra.closed
	}
	<-sent
	eventually(t, "every packet arrives", func() bool { return g.b.count() == packets })
	if d := g.Counters().Drops; len(d) != 0 {
		t.Errorf("lost %v", d)
	}

	// A new Link under an old name: the old one is closed, counting goes on.
	s := g.state
	s.Ports = slices.Clone(s.Ports)
	next := newWire()
	s.Ports[1].Link = next
	if err := g.Set(s); err != nil {
		t.Fatal(err)
	}
	<-g.b.closed
	g.a.in <- [][]byte{slices.Clone(pkt)}
	eventually(t, "the new link gets the packet", func() bool { return next.count() == 1 })
	if n := g.Counters().Ports[1].OutPackets; n != packets+1 {
		t.Errorf("port b counted %d, want %d", n, packets+1)
	}
}

func TestSetRefusesWhatMakesNoSense(t *testing.T) {
	w, x := newWire(), newWire()
	p := netip.MustParsePrefix
	for _, c := range []struct {
		name  string
		state State
		want  string
	}{
		{"a port without a name", State{Ports: []Port{{Link: w, Role: Inside}}}, "without a name"},
		{"two ports of one name", State{Ports: []Port{{Name: "a", Link: w, Role: Inside}, {Name: "a", Link: x, Role: Inside}}}, "twice"},
		{"two ports of one link", State{Ports: []Port{{Name: "a", Link: w, Role: Inside}, {Name: "b", Link: w, Role: Inside}}}, "another port"},
		{"a port without a link", State{Ports: []Port{{Name: "a", Role: Inside}}}, "has a link"},
		{"an outside port with a link", State{Ports: []Port{{Name: OutsideName, Role: Outside, Link: w}}}, "has a link"},
		{"an outside port of another name", State{Ports: []Port{{Name: "a", Role: Outside}}}, "named"},
		{"an inside port named outside", State{Ports: []Port{{Name: OutsideName, Role: Inside, Link: w}}}, "named"},
		{"an unknown role", State{Ports: []Port{{Name: "a", Link: w, Role: 9}}}, "role"},
		{"a source that is no prefix", State{Ports: []Port{{Name: "a", Link: w, Role: Inside, Sources: make([]netip.Prefix, 1)}}}, "prefix"},
		{"a route to nowhere", State{Routes: []Route{{p("10.0.0.0/8"), "a"}}}, "no port"},
		{"a route that is no prefix", State{Routes: []Route{{netip.Prefix{}, "a"}}}, "prefix"},
		{"an IPv4-mapped route", State{Routes: []Route{{p("::ffff:10.0.0.0/104"), "a"}}}, "mapped"},
		{"two routes for one prefix", State{Ports: []Port{{Name: "a", Link: w, Role: Inside}},
			Routes: []Route{{p("10.0.0.0/8"), "a"}, {p("10.1.0.0/8"), "a"}}}, "given twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := New(Config{Slice: "red", MTU: testMTU, Outlet: newQueue(testMTU)})
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Set(c.state); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want something with %q", err, c.want)
			}
		})
	}
	r, _ := New(Config{Slice: "red", MTU: testMTU, Outlet: newQueue(testMTU)})
	if err := r.Set(State{Ports: []Port{{Name: "a", Link: w, Role: Inside}}}); err != nil {
		t.Fatal(err)
	}
	if err := r.Set(State{Ports: []Port{{Name: "b", Link: w, Role: Inside}}}); err == nil {
		t.Error("a link changed its port")
	}
	for _, cfg := range []Config{{MTU: 1420}, {Slice: "red"}, {Slice: "red", MTU: 1279}, {Slice: "red", MTU: 65536}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v accepted", cfg)
		}
	}
}

func TestTheNodesOwnStackIsHeldBackInsteadOfDropped(t *testing.T) {
	g := newRig(t)
	g.run(t)
	const packets = 20 * queuePackets
	pkt := overlaytest.UDP(ap(netip.MustParseAddr("10.1.0.1"), 1), ap(netip.MustParseAddr("10.1.16.3"), 2), make([]byte, 1000))
	go func() {
		for range packets / overlay.BatchSize {
			batch := make([][]byte, overlay.BatchSize)
			for i := range batch {
				batch[i] = pkt
			}
			select {
			case g.own.in <- batch:
			case <-g.own.closed:
				return
			}
		}
	}()
	bufs, sizes := make([][]byte, overlay.BatchSize), make([]int, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+testMTU)
	}
	for got := 0; got < packets; {
		n, err := g.Outside().Read(bufs, sizes)
		if err != nil {
			t.Fatal(err)
		}
		got += n
	}
	if d := g.Counters().Drops; len(d) != 0 {
		t.Errorf("dropped %v", d)
	}
}

func TestATunnelThatStandsStillDoesNotSilenceTheNode(t *testing.T) {
	g := newRig(t)
	g.run(t)
	addr := netip.MustParseAddr
	out := overlaytest.UDP(ap(addr("10.1.0.1"), 1), ap(addr("10.1.16.3"), 2), make([]byte, 1000))
	in := overlaytest.UDP(ap(addr("10.1.0.1"), 1), ap(addr("10.1.0.2"), 2), nil)
	const rounds = 2000
	for range rounds { // nobody reads outside; each waited for would be minutes
		g.own.in <- [][]byte{out, in}
	}
	eventually(t, "the workload gets what the node sent", func() bool { return g.a.count() == rounds })
	c := g.Counters()
	if got := int(c.Drops[overlay.DropQueueFull.String()]) + g.queue.n; got != rounds {
		t.Errorf("%d packets queued or dropped as queue-full, want %d: %v", got, rounds, c.Drops)
	}
}

func TestAMillionMalformedPackets(t *testing.T) {
	const total = 1_000_000
	g := newRig(t)
	g.port("a").link, g.port("b").link, g.port("node").link = discard{}, discard{}, discard{}
	var every []netip.Addr
	for _, s := range []string{"10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.16.3", "fd00:1::1", "fd00:1::2", "fd00:1::3", "fd00:1:0:100::3"} {
		every = append(every, netip.MustParseAddr(s))
	}
	seed := rand.Uint64()
	var wg sync.WaitGroup
	var read atomic.Uint64
	wg.Go(func() {
		bufs, sizes := make([][]byte, overlay.BatchSize), make([]int, overlay.BatchSize)
		for i := range bufs {
			bufs[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
		}
		for {
			n, err := g.Outside().Read(bufs, sizes)
			if err != nil {
				return
			}
			read.Add(uint64(n))
		}
	})
	var sides sync.WaitGroup
	for side, from := range []string{"a", OutsideName} {
		sides.Go(func() {
			gen := overlaytest.NewGenerator(seed+uint64(side), every, every)
			death := overlaytest.PacketOfDeath(ap(every[side], 1), ap(every[0], 80))
			batch := make([][]byte, 0, overlay.BatchSize)
			for i := range total / 2 {
				p := gen.Malformed()
				if i%1000 == 0 {
					p = death
				}
				if batch = append(batch, p); len(batch) == cap(batch) || i == total/2-1 {
					g.put(from, batch...)
					batch = batch[:0]
				}
			}
		})
	}
	sides.Wait()
	eventually(t, "the queue is empty", func() bool { g.queue.mu.Lock(); defer g.queue.mu.Unlock(); return g.queue.n == 0 })
	_ = g.Outside().Close()
	wg.Wait()
	c := g.Counters()
	var in, out, lost uint64
	for _, p := range c.Ports {
		in += p.InPackets
		if p.Name != OutsideName {
			out += p.OutPackets
		}
	}
	for _, n := range c.Drops {
		lost += n
	}
	if in != total || in != out+read.Load()+lost {
		t.Errorf("seed %d: %d in, %d delivered, %d lost: they do not add up: %v", seed, in, out+read.Load(), lost, c.Drops)
	}
	t.Logf("seed %d: %d delivered, lost %v", seed, out+read.Load(), c.Drops)
}
