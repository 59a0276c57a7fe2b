package gateway

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
)

// A wakeLink is a memLink whose Read can be woken.
type wakeLink struct {
	*memLink
	woken chan struct{}
}

func newWakeLink() *wakeLink { return &wakeLink{newMemLink(64), make(chan struct{}, 1)} }

func (l *wakeLink) Read(bufs [][]byte, sizes []int) (int, error) {
	select {
	case p := <-l.out:
		sizes[0] = copy(bufs[0][overlay.Headroom:], p)
		return 1, nil
	case <-l.woken:
		return 0, nil
	case <-l.closed:
		return 0, net.ErrClosed
	}
}

func (l *wakeLink) Wake() {
	select {
	case l.woken <- struct{}{}:
	default:
	}
}

// A probeNode is a node of a slice whose links are watched.
type probeNode struct {
	*node
	key  [32]byte
	link *wakeLink
	tag  overlay.Tag
}

func newProbeNode(t *testing.T, name string) *probeNode {
	return &probeNode{node: newNode(t, "127.0.0.1:0"), key: newKey(t), link: newWakeLink(), tag: overlay.NodeID{Site: "s", Node: name}.Tag()}
}

func (n *probeNode) peer(prefix ...string) Peer {
	p := peer(n.key, n.addr, prefix...)
	p.Tag, p.Probe, p.Standby = n.tag, true, true
	return p
}

func (n *probeNode) tunnel(peers ...Peer) Tunnel {
	return Tunnel{Slice: "red", Tag: n.tag, PrivateKey: n.key, Inside: n.link, Peers: peers}
}

// up reports whether a node finds its link to another up.
func (n *probeNode) up(o *probeNode) bool {
	for _, s := range n.Status() {
		for _, p := range s.Peers {
			if p.PublicKey == PublicKey(o.key) {
				return p.Up
			}
		}
	}
	return false
}

func TestPeersFindTheirLinksUp(t *testing.T) {
	a, b := newProbeNode(t, "a"), newProbeNode(t, "b")
	a.set(a.tunnel(b.peer("10.1.1.0/24"))).run()
	b.set(b.tunnel(a.peer("10.1.0.0/24"))).run()
	eventually(t, "both links are up", func() bool { return a.up(b) && b.up(a) })
	a.link.send(t, packet("10.1.0.2", "10.1.1.2", 7, 100))
	if got := sequence(b.link.receive(t)); got != 7 {
		t.Errorf("packet %d arrives first: a probe went further than the tunnel?", got)
	}
	eventually(t, "the round trip is known", func() bool { return a.Status()[0].Peers[0].RTT > 0 })
	for _, s := range a.Status() {
		if p := s.Peers[0]; !p.Watched || slices.ContainsFunc(p.Prefixes, func(x netip.Prefix) bool { return x.Addr().Is6() }) {
			t.Errorf("status %+v", p)
		}
	}
}

// twoWays is a node with two peers that can carry the same prefix, the first
// before the second.
type twoWays struct{ self, one, two *probeNode }

var carried = netip.MustParsePrefix("10.1.9.0/24")

func newTwoWays(t *testing.T) *twoWays {
	w := &twoWays{newProbeNode(t, "self"), newProbeNode(t, "one"), newProbeNode(t, "two")}
	tun := w.self.tunnel(w.one.peer(), w.two.peer())
	tun.Paths = func(l overlay.Links) map[overlay.Tag][]netip.Prefix {
		best := w.one.tag
		if l.Down[overlay.LinkOf(w.self.tag, w.one.tag)] || l.Leaving[w.one.tag] {
			best = w.two.tag
		}
		return map[overlay.Tag][]netip.Prefix{best: {carried}}
	}
	for _, n := range []*probeNode{w.one, w.two} {
		n.set(n.tunnel(w.self.peer("10.1.0.0/24")))
	}
	w.self.set(tun).run()
	w.two.run()
	return w
}

// carrier returns who has the prefix.
func (w *twoWays) carrier() *probeNode {
	for _, s := range w.self.Status() {
		for i, p := range s.Peers {
			if slices.Contains(p.Prefixes, carried) {
				return []*probeNode{w.one, w.two}[i]
			}
		}
	}
	return nil
}

func TestAPrefixMovesWithTheLinks(t *testing.T) {
	w := newTwoWays(t)
	eventually(t, "the second carries while the first is not there", func() bool { return w.carrier() == w.two })
	w.one.run()
	eventually(t, "the first carries once its link is up", func() bool { return w.carrier() == w.one })
	eventually(t, "its own link is up", func() bool { return w.one.up(w.self) })
	w.self.link.send(t, packet("10.1.0.2", "10.1.9.1", 1, 100))
	if got := sequence(w.one.link.receive(t)); got != 1 {
		t.Errorf("packet %d", got)
	}
	begin := time.Now()
	w.one.stop() // without a word
	eventually(t, "the second carries again", func() bool { return w.carrier() == w.two })
	if took := time.Since(begin); took < 150*time.Millisecond || took > 3*time.Second {
		t.Errorf("the prefix moved %v after the link broke", took)
	}
	w.self.link.send(t, packet("10.1.0.2", "10.1.9.1", 2, 100))
	if got := sequence(w.two.link.receive(t)); got != 2 {
		t.Errorf("packet %d", got)
	}
}

// Nobody has to ask again and again: after each change somebody is told to look.
func TestLinksThatGoUpAndDownAreTold(t *testing.T) {
	moved := make(chan struct{}, 1)
	a := &probeNode{key: newKey(t), link: newWakeLink(), tag: overlay.NodeID{Site: "s", Node: "a"}.Tag()}
	a.node = newNodeOf(t, "127.0.0.1:0", Config{Relinked: func() {
		select {
		case moved <- struct{}{}:
		default:
		}
	}})
	b, _ := newNoteNode(t, "b")
	a.set(a.tunnel(b.peer("10.1.1.0/24"))).run()
	b.set(b.tunnel(a.peer("10.1.0.0/24"))).run()
	told := func(up bool) {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case <-moved:
				if a.up(b) == up {
					return
				}
			case <-late:
				t.Fatalf("not told that the link is up: %v", up)
			}
		}
	}
	told(true)
	b.stop()
	told(false)
	a.stop()
}

func TestWhoLeavesIsLeftAtOnce(t *testing.T) {
	w := newTwoWays(t)
	w.one.run()
	eventually(t, "the first carries", func() bool { return w.carrier() == w.one && w.two.up(w.self) && w.one.up(w.self) })
	w.one.SetLeaving(true)
	if err := w.one.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second carries", func() bool { return w.carrier() == w.two })
	w.one.SetLeaving(false)
	eventually(t, "it carries again", func() bool { return w.carrier() == w.one })
}

func TestASetKeepsWhatIsKnownOfLinks(t *testing.T) {
	a, b := newProbeNode(t, "a"), newProbeNode(t, "b")
	b.set(b.tunnel(a.peer("10.1.0.0/24"))).run()
	a.set(a.tunnel(b.peer("10.1.1.0/24"))).run()
	eventually(t, "the link is up", func() bool { return a.up(b) })
	for range 3 {
		a.set(a.tunnel(b.peer("10.1.1.0/24", "10.1.2.0/24")))
		if !a.up(b) {
			t.Fatal("a Set forgot that the link is up")
		}
	}
	if s := a.Status(); s[0].Peers[0].Changes != 1 {
		t.Errorf("it changed %d times", s[0].Peers[0].Changes)
	}
}

func TestProbesNeedALinkThatWakes(t *testing.T) {
	a, b := newProbeNode(t, "a"), newProbeNode(t, "b")
	tun := a.tunnel(b.peer())
	tun.Inside = newMemLink(1)
	if err := a.Set([]Tunnel{tun}); err == nil {
		t.Error("it is taken")
	}
}

func testMessage() probeMessage {
	return probeMessage{
		from: probeAddr([32]byte{1}), to: probeAddr([32]byte{2}), kind: probeAsk, seq: 1<<32 - 2, demand: 101,
		saying: saying{boot: 3, number: 4, leaving: true, down: []overlay.Tag{5, 1 << 63}, told: []overlay.Tag{6}},
	}
}

func TestAProbeIsReadAsItWasWritten(t *testing.T) {
	want := testMessage()
	b := make([]byte, probeBytesMax)
	got, ok := parseProbe(b[:want.put(b)])
	if !ok || got.from != want.from || got.to != want.to || got.kind != want.kind || got.seq != want.seq || got.demand != 101 || got.saying.boot != 3 ||
		got.saying.number != 4 || !got.saying.leaving || !slices.Equal(got.saying.down, want.saying.down) || !slices.Equal(got.saying.told, want.saying.told) {
		t.Errorf("%+v, %v", got, ok)
	}
	if !isProbe(b) {
		t.Error("it is not recognised")
	}
	want.saying.down = make([]overlay.Tag, 1000)
	want.saying.told = make([]overlay.Tag, 1000)
	if got, ok := parseProbe(b[:want.put(b)]); !ok || len(got.saying.down) != probeTagsMax || len(got.saying.told) != probeTagsMax {
		t.Errorf("%d and %d tags of many, %v", len(got.saying.down), len(got.saying.told), ok)
	}
}

func FuzzParseProbe(f *testing.F) {
	b := make([]byte, probeBytesMax)
	m := testMessage()
	f.Add(b[:m.put(b)])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, ok := parseProbe(in)
		if !ok {
			return
		}
		out := make([]byte, probeBytesMax)
		if n := m.put(out); !slices.Equal(out[:n], in) {
			t.Errorf("% x is written again as % x", in, out[:n])
		}
	})
}

func TestProbesToSilentPeersHoldNoCredits(t *testing.T) {
	self, lost, there := newProbeNode(t, "self"), newProbeNode(t, "lost"), newProbeNode(t, "there")
	there.set(there.tunnel(self.peer("10.1.0.0/24"))).run()
	var peers []Peer
	for range 300 { // more than the governor lets into the device
		lost.key = newKey(t)
		lost.tag++
		peers = append(peers, lost.peer())
	}
	self.set(self.tunnel(append(peers, there.peer("10.1.1.0/24"))...)).run()
	eventually(t, "the link is up", func() bool { return self.up(there) && there.up(self) })
	for i := range uint32(50) {
		self.link.send(t, packet("10.1.0.2", "10.1.1.2", i, 100))
		if got := sequence(there.link.receive(t)); got != i {
			t.Fatalf("packet %d arrives after %d", got, i)
		}
	}
	if s := self.Status()[0]; s.OutsidePeak > 64 {
		t.Errorf("%d packets were in flight", s.OutsidePeak)
	}
}

// A peer can only speak of its own links, and only to who it is a peer of.
func TestAProbeForAnotherIsIgnored(t *testing.T) {
	var now time.Duration
	var mu sync.Mutex
	woken := 0
	p := newProber(testLog(), func() time.Duration { return now }, func() {}).lane(func() { mu.Lock(); woken++; mu.Unlock() })
	self, friend := newKey(t), newKey(t)
	x := peer(friend, netip.MustParseAddrPort("127.0.0.1:1"))
	x.Tag, x.Probe = 2, true
	p.setPeers(&Tunnel{Tag: 1, PrivateKey: self, Peers: []Peer{x}})
	me, him := probeAddr(PublicKey(self)), probeAddr(PublicKey(friend))
	for _, tc := range []struct {
		name     string
		from, to [16]byte
		kind     uint8
		answers  int
	}{
		{"a question of a peer", him, me, probeAsk, 1},
		{"an answer of a peer", him, me, probeAnswer, 0},
		{"a question for another", him, probeAddr([32]byte{9}), probeAsk, 0},
		{"a question of a stranger", probeAddr([32]byte{9}), me, probeAsk, 0},
		{"a question of its own", me, me, probeAsk, 0},
	} {
		b := make([]byte, overlay.Headroom+probeBytesMax)
		m := probeMessage{from: tc.from, to: tc.to, kind: tc.kind, seq: 77}
		n := m.put(b[overlay.Headroom:])
		data := append(make([]byte, overlay.Headroom), packet("10.1.0.1", "10.1.1.1", 5, 64)...)
		rest := p.take([][]byte{b[:overlay.Headroom+n], data})
		if len(rest) != 1 || &rest[0][0] != &data[0] {
			t.Errorf("%s: %d packets are left for the slice", tc.name, len(rest))
		}
		bufs, sizes := [][]byte{make([]byte, 4096), make([]byte, 4096)}, make([]int, 2)
		if got, leave := p.fill(bufs, sizes); got != tc.answers || leave != got {
			t.Errorf("%s: %d answers, %d of which leave, want %d", tc.name, got, leave, tc.answers)
		}
	}
	if p.peers[him].health.Up() {
		t.Error("an answer to nothing brought the link up")
	}
}
