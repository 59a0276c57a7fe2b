package gateway

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slicewire/overlay"
)

// rekeyPace is the load under which keys change, each way.
const rekeyPace = 5 // packets a millisecond

// A rekeyNode is a probeNode with a key for each generation.
type rekeyNode struct {
	*probeNode
	prefix string
	keys   map[uint64][32]byte
}

func newRekeyNode(t *testing.T, name, prefix string) *rekeyNode {
	return &rekeyNode{newProbeNode(t, name), prefix, map[uint64][32]byte{1: newKey(t), 2: newKey(t), 3: newKey(t)}}
}

// tunnels are the node's tunnels to another of some generations; it sends with
// the first.
func (n *rekeyNode) tunnels(o *rekeyNode, generations ...uint64) (all []Tunnel) {
	for i, g := range generations {
		p := peer(o.keys[g], o.addr, o.prefix)
		p.Name, p.Tag, p.Probe, p.Standby = "peer", o.tag, true, true
		all = append(all, Tunnel{
			Slice: "red", Generation: g, Passive: i > 0, Tag: n.tag, PrivateKey: n.keys[g], Inside: n.link, Peers: []Peer{p},
			Paths: func(overlay.Links) map[overlay.Tag][]netip.Prefix {
				return map[overlay.Tag][]netip.Prefix{o.tag: prefixes(o.prefix)}
			},
		})
	}
	return all
}

// upIn reports whether the link is up in a generation.
func (n *rekeyNode) upIn(generation uint64) bool {
	for _, s := range n.Status() {
		if s.Generation == generation {
			return s.Peers[0].Up
		}
	}
	return false
}

// A load is a stream of numbered packets from one node to another.
type load struct {
	sent, came atomic.Int64
	odd        atomic.Int64 // late or twice
	stop       func()
	done       func()
}

func newLoad(from, to *rekeyNode, src, dst string) *load {
	l := &load{}
	quit, over := make(chan struct{}), make(chan struct{})
	var sending, taking sync.WaitGroup
	sending.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-quit:
				return
			}
			for range rekeyPace {
				select {
				case from.link.out <- packet(src, dst, uint32(l.sent.Load()), 200):
					l.sent.Add(1)
				case <-quit:
					return
				}
			}
		}
	})
	taking.Go(func() {
		next := uint32(0)
		for {
			select {
			case p := <-to.link.in:
				if seq := sequence(p); seq < next {
					l.odd.Add(1)
				} else {
					next = seq + 1
				}
				l.came.Add(1)
			case <-over:
				return
			}
		}
	})
	l.stop = sync.OnceFunc(func() { close(quit); sending.Wait() })
	l.done = sync.OnceFunc(func() { l.stop(); close(over); taking.Wait() })
	return l
}

// passes waits until many more packets have come.
func (l *load) passes(t *testing.T) {
	t.Helper()
	least := l.came.Load() + 500
	eventually(t, "packets flow", func() bool { return l.came.Load() >= least })
}

func TestKeysChangeUnderLoadWithoutLoss(t *testing.T) {
	a, b := newRekeyNode(t, "a", "10.1.0.0/24"), newRekeyNode(t, "b", "10.1.1.0/24")
	for _, n := range []*rekeyNode{a, b} {
		n.link.in = make(chan []byte, 4096)
	}
	a.set(a.tunnels(b, 1)...).run()
	b.set(b.tunnels(a, 1)...).run()
	eventually(t, "both links are up", func() bool { return a.upIn(1) && b.upIn(1) })
	out, back := newLoad(a, b, "10.1.0.2", "10.1.1.2"), newLoad(b, a, "10.1.1.2", "10.1.0.2")
	defer out.done()
	defer back.done()
	both := func() { t.Helper(); out.passes(t); back.passes(t) }
	both()
	for g := uint64(1); g < 3; g++ {
		// Not at the same time, and in another order each time.
		first, second := a, b
		if g == 2 {
			first, second = b, a
		}
		first.set(first.tunnels(second, g, g+1)...)
		both()
		second.set(second.tunnels(first, g, g+1)...)
		eventually(t, "both links are up with the next keys", func() bool { return a.upIn(g+1) && b.upIn(g+1) })
		second.set(second.tunnels(first, g+1, g)...)
		both()
		first.set(first.tunnels(second, g+1, g)...)
		both()
		first.set(first.tunnels(second, g+1)...)
		both()
		second.set(second.tunnels(first, g+1)...)
		both()
	}
	out.stop()
	back.stop()
	defer func() { // what was lost, and where
		for name, n := range map[string]*rekeyNode{"a": a, "b": b} {
			if t.Failed() {
				t.Logf("%s: %d out of %d and %d of %d came; drops %v, %v, of the test %d", name,
					out.came.Load(), out.sent.Load(), back.came.Load(), back.sent.Load(), n.Drops(), n.Status()[0].Drops, n.link.lost.Load())
			}
		}
	}()
	for name, l := range map[string]*load{"out": out, "back": back} {
		eventually(t, "all that was sent has come", func() bool { return l.came.Load() >= l.sent.Load() })
		t.Logf("%s: %d sent, %d came, %d of them late", name, l.sent.Load(), l.came.Load(), l.odd.Load())
		if l.came.Load() > l.sent.Load() {
			t.Errorf("%s: %d packets came, %d were sent", name, l.came.Load(), l.sent.Load())
		}
	}
	for _, n := range []*rekeyNode{a, b} {
		s := n.Status()
		if len(s) != 1 || s[0].Generation != 3 || !s[0].Peers[0].Up || s[0].Peers[0].Changes != 1 {
			t.Errorf("after all changes: %+v", s)
		}
		if lost := n.link.lost.Load(); lost > 0 {
			t.Errorf("the test itself lost %d packets", lost)
		}
	}
}

func TestAForgottenKeyIsRefused(t *testing.T) {
	a, b := newRekeyNode(t, "a", "10.1.0.0/24"), newRekeyNode(t, "b", "10.1.1.0/24")
	a.set(a.tunnels(b, 2, 1)...).run()
	thief := newRekeyNode(t, "b", "10.1.1.0/24") // has b's old key
	thief.keys[1] = b.keys[1]
	thief.set(thief.tunnels(a, 1)...).run()
	eventually(t, "while the old key is taken it makes a session", func() bool { return thief.upIn(1) })
	a.set(a.tunnels(b, 2)...)
	eventually(t, "the session of the old key is over", func() bool { return !thief.upIn(1) })
	thief.stop()
	before := a.Drops()[overlay.DropUnknownSlice.String()]
	again := newRekeyNode(t, "b", "10.1.1.0/24")
	again.keys[1] = b.keys[1]
	again.set(again.tunnels(a, 1)...).run()
	eventually(t, "a handshake with the old key is nobody's", func() bool {
		return a.Drops()[overlay.DropUnknownSlice.String()] >= before+2
	})
	if again.hasSession() {
		t.Error("the old key made a session")
	}
}

// A link is up while it is up with either key, and prefixes move only when it is
// down with both.
func TestAChangeOfKeysMovesNoPrefix(t *testing.T) {
	w := newTwoWays(t)
	w.one.run()
	eventually(t, "the first carries", func() bool { return w.carrier() == w.one })
	next := map[*probeNode][32]byte{w.self: newKey(t), w.one: newKey(t), w.two: newKey(t)}
	var moved atomic.Bool
	paths := func(l overlay.Links) map[overlay.Tag][]netip.Prefix {
		best := w.one.tag
		if l.Down[overlay.LinkOf(w.self.tag, w.one.tag)] {
			best = w.two.tag
			moved.Store(true)
		}
		return map[overlay.Tag][]netip.Prefix{best: {carried}}
	}
	of := func(n *probeNode, generation uint64, others ...*probeNode) Tunnel {
		key := func(n *probeNode) [32]byte {
			if generation == 0 {
				return n.key
			}
			return next[n]
		}
		tun := n.tunnel()
		tun.Generation, tun.PrivateKey = generation, key(n)
		for _, o := range others {
			p := peer(key(o), o.addr)
			p.Tag, p.Probe, p.Standby = o.tag, true, true
			if n != w.self {
				p.Prefixes = prefixes("10.1.0.0/24")
			}
			tun.Peers = append(tun.Peers, p)
		}
		if n == w.self {
			tun.Paths = paths
		}
		return tun
	}
	passive := func(t Tunnel) Tunnel { t.Passive = true; return t }
	// Only the second gets the next key at first: the first is missing there.
	late := of(w.self, 1, w.two)
	late.Missing = []overlay.Tag{w.one.tag}
	w.self.set(of(w.self, 0, w.one, w.two), passive(late))
	w.two.set(of(w.two, 0, w.self), passive(of(w.two, 1, w.self)))
	up := func(generation uint64, peers int) bool {
		n := 0
		for _, s := range w.self.Status() {
			for _, p := range s.Peers {
				if s.Generation == generation && p.Up {
					n++
				}
			}
		}
		return n == peers
	}
	eventually(t, "the second is up with the next key", func() bool { return up(1, 1) })
	w.one.set(of(w.one, 0, w.self), passive(of(w.one, 1, w.self)))
	w.self.set(of(w.self, 0, w.one, w.two), passive(of(w.self, 1, w.one, w.two)))
	eventually(t, "both are up with the next key", func() bool { return up(1, 2) })
	w.self.set(of(w.self, 1, w.one, w.two), passive(of(w.self, 0, w.one, w.two)))
	w.self.set(of(w.self, 1, w.one, w.two))
	if moved.Load() {
		t.Error("a prefix moved because keys changed")
	}
	// A peer without a key of the generation that is left cannot be reached.
	w.self.set(late)
	eventually(t, "the second carries for one without a key", func() bool {
		s := w.self.Status()
		return len(s) == 1 && len(s[0].Peers) == 1 && slices.Contains(s[0].Peers[0].Prefixes, carried)
	})
}

func TestTwoTunnelsOfASliceAgree(t *testing.T) {
	a, b := newRekeyNode(t, "a", "10.1.0.0/24"), newRekeyNode(t, "b", "10.1.1.0/24")
	defer a.sock.close()
	defer b.sock.close()
	for name, change := range map[string]func(all []Tunnel) []Tunnel{
		"two of one generation": func(all []Tunnel) []Tunnel { all[1].Generation = all[0].Generation; return all },
		"two that send":         func(all []Tunnel) []Tunnel { all[1].Passive = false; return all },
		"none that sends":       func(all []Tunnel) []Tunnel { all[0].Passive = true; return all },
		"one that does not send": func(all []Tunnel) []Tunnel {
			return all[1:]
		},
		"two links":              func(all []Tunnel) []Tunnel { all[1].Inside = newWakeLink(); return all },
		"a link without a waker": func(all []Tunnel) []Tunnel { all[0].Inside, all[1].Inside = a.link.memLink, a.link.memLink; return all },
		"three": func(all []Tunnel) []Tunnel {
			x := all[1]
			x.Generation, x.PrivateKey = 9, newKey(t)
			return append(all, x)
		},
	} {
		all := change(a.tunnels(b, 1, 2))
		if name == "a link without a waker" {
			all[0].Peers[0].Probe, all[1].Peers[0].Probe = false, false
		}
		if err := a.Set(all); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := a.Set(a.tunnels(b, 1, 2)); err != nil {
		t.Error(err)
	}
}

// A fork hands its Link from one branch to another while packets flow.
func TestAForkLosesAndDoublesNothing(t *testing.T) {
	link := newWakeLink()
	f := &fork{link: link}
	branches := []*branch{f.branch(), f.branch()}
	const packets = 20000
	var seen sync.Map
	var came atomic.Int64
	var readers sync.WaitGroup
	for i, b := range branches {
		readers.Go(func() {
			bufs, sizes := [][]byte{make([]byte, 2048)}, make([]int, 1)
			for {
				n, err := b.Read(bufs, sizes)
				if err != nil {
					return
				}
				if n == 0 {
					continue
				}
				seq := sequence(bufs[0][overlay.Headroom : overlay.Headroom+sizes[0]])
				if other, twice := seen.LoadOrStore(seq, i); twice {
					t.Errorf("packet %d was read by %d and %d", seq, other, i)
				}
				came.Add(1)
			}
		})
	}
	f.send(branches[0])
	for i := range packets {
		if i%7 == 0 {
			f.send(branches[i%2])
		}
		if i%11 == 0 {
			branches[i%2].Wake()
		}
		link.send(t, packet("10.1.0.1", "10.1.1.1", uint32(i), 64))
	}
	eventually(t, "all packets are read", func() bool { return came.Load() == packets })
	for _, b := range branches {
		if link.isClosed() {
			t.Error("the link was closed before its last branch")
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	if !link.isClosed() {
		t.Error("the link is open after its last branch was closed")
	}
	readers.Wait()
}

// Between the handshake and the next look at all sessions a gate is shut to a
// peer; a tunnel that begins to send at that moment must not lose by it.
func TestWhoBeginsToSendHasItsGateOpen(t *testing.T) {
	a, b := newRekeyNode(t, "a", "10.1.0.0/24"), newRekeyNode(t, "b", "10.1.1.0/24")
	a.set(a.tunnels(b, 1, 2)...).run()
	b.set(b.tunnels(a, 1, 2)...).run()
	eventually(t, "both links are up with both keys", func() bool { return a.upIn(1) && b.upIn(1) && a.upIn(2) && b.upIn(2) })
	a.mu.Lock()
	next := a.running[tunnelID{"red", 2}]
	next.inner.gate.Store(newGate(next.conf.Peers, func(*Peer) bool { return true }))
	a.mu.Unlock()
	a.set(a.tunnels(b, 2, 1)...)
	for i := range 2 * silentPackets {
		a.link.send(t, packet("10.1.0.2", "10.1.1.2", uint32(i), 100))
		if got := sequence(b.link.receive(t)); got != uint32(i) {
			t.Fatalf("packet %d came instead of %d", got, i)
		}
	}
}
