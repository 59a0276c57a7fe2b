package router

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"slicewire/overlay"
)

// wire is a Link whose far end is the test: send makes packets come in, got
// holds what went out.
type wire struct {
	in     chan [][]byte
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex
	got [][]byte
}

func newWire() *wire { return &wire{in: make(chan [][]byte), closed: make(chan struct{})} }

func (w *wire) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case pkts := <-w.in:
		for i, p := range pkts {
			sizes[i] = copy(bufs[i][overlay.Headroom:], p)
		}
		return len(pkts), nil
	case <-w.closed:
		return 0, net.ErrClosed
	}
}

func (w *wire) Write(bufs [][]byte) error {
	select {
	case <-w.closed:
		return net.ErrClosed
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range bufs {
		w.got = append(w.got, slices.Clone(b[overlay.Headroom:]))
	}
	return nil
}

func (w *wire) Close() error { w.once.Do(func() { close(w.closed) }); return nil }

func (w *wire) take() [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	g := w.got
	w.got = nil
	return g
}

func withHeadroom(pkts ...[]byte) [][]byte {
	bufs := make([][]byte, len(pkts))
	for i, p := range pkts {
		bufs[i] = append(make([]byte, overlay.Headroom), p...)
	}
	return bufs
}

func prefixes(s ...string) []netip.Prefix {
	var ps []netip.Prefix
	for _, x := range s {
		ps = append(ps, netip.MustParsePrefix(x))
	}
	return ps
}

// rig is a router with two workloads, the node's stack and the tunnel.
type rig struct {
	*Router
	state     State
	a, b, own *wire
	queue     *queue
}

func newRig(t testing.TB) *rig {
	q := newQueue(testMTU)
	r, err := New(Config{Slice: "red", MTU: testMTU, Outlet: q})
	if err != nil {
		t.Fatal(err)
	}
	q.drops = &r.drops
	g := &rig{Router: r, queue: q, a: newWire(), b: newWire(), own: newWire()}
	g.state = State{
		Ports: []Port{
			{Name: "a", Link: g.a, Role: Inside, Sources: prefixes("10.1.0.2/32", "fd00:1::2/128", "10.1.0.128/25")},
			{Name: "b", Link: g.b, Role: Inside, Sources: prefixes("10.1.0.3/32", "fd00:1::3/128")},
			{Name: "node", Link: g.own, Role: Local, Sources: prefixes("10.1.0.1/32", "fd00:1::1/128")},
			{Name: OutsideName, Role: Outside, Sources: prefixes("10.1.16.0/20", "fd00:1:0:100::/56")},
		},
		Routes: []Route{
			{netip.MustParsePrefix("10.1.0.2/32"), "a"}, {netip.MustParsePrefix("fd00:1::2/128"), "a"},
			{netip.MustParsePrefix("10.1.0.128/25"), "a"},
			{netip.MustParsePrefix("10.1.0.3/32"), "b"}, {netip.MustParsePrefix("fd00:1::3/128"), "b"},
			{netip.MustParsePrefix("10.1.0.1/32"), "node"}, {netip.MustParsePrefix("fd00:1::1/128"), "node"},
			{netip.MustParsePrefix("10.1.16.0/20"), OutsideName}, {netip.MustParsePrefix("fd00:1:0:100::/56"), OutsideName},
		},
	}
	if err := r.Set(g.state); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) port(name string) *port {
	if name == OutsideName {
		return g.outside
	}
	return g.ports[name]
}

// put routes packets that came from a port.
func (g *rig) put(from string, pkts ...[]byte) {
	if from == OutsideName {
		_ = g.Outside().Write(withHeadroom(pkts...))
	} else {
		g.forward(g.port(from), withHeadroom(pkts...), new(batch))
	}
	g.drainSlow()
}

// got returns what went out of each port since the last call.
func (g *rig) got() map[string][][]byte {
	m := make(map[string][][]byte)
	for name, w := range map[string]*wire{"a": g.a, "b": g.b, "node": g.own} {
		if p := w.take(); p != nil {
			m[name] = p
		}
	}
	if p := g.takeOutside(); p != nil {
		m[OutsideName] = p
	}
	return m
}

func (g *rig) takeOutside() [][]byte {
	var pkts [][]byte
	bufs, sizes := withHeadroom(make([]byte, testMTU)), make([]int, 1)
	for g.queue.n > 0 {
		n, err := g.Outside().Read(bufs, sizes)
		if err != nil {
			return pkts
		}
		for i := range n {
			pkts = append(pkts, slices.Clone(bufs[i][overlay.Headroom:][:sizes[i]]))
		}
	}
	return pkts
}
