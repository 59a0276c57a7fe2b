package gateway

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

const (
	// busyFor is how long after its last packet a slice is in use.
	busyFor = 10 * time.Second
	// probesPending bounds the probes that wait for the device to read them. It
	// reads at once unless its way outside is full; then one more is worth nothing.
	probesPending = 256
)

// A prober watches a tunnel's links to its peers. Its probes go out and come in
// with the packets of the tunnel, through the same device and the same queues
// behind the shaper, and are answered here: what is busy inside of the tunnel
// says nothing about the link.
type prober struct {
	log     *slog.Logger
	now     func() time.Duration
	changed func()        // something was heard that step should look at; it never waits
	moved   atomic.Uint64 // packets through the tunnel, probes not counted
	waiting atomic.Int32  // how many are pending

	mu      sync.Mutex
	self    overlay.Tag
	addr    [16]byte
	peers   map[[16]byte]*watched // by probe address
	own     saying                // what the others are told
	dirty   bool                  // paths may be others now
	pending []probeMessage
	wake    func() // has the device read what is pending

	movedThen uint64
	movedAt   time.Duration
}

// A watched peer is one that is probed.
type watched struct {
	name    string
	key     [32]byte
	tag     overlay.Tag
	standby bool
	silent  bool // no session: what is sent to it stays in the device
	health  overlay.Health
	said    saying     // by the peer; zero if nothing yet
	fresh   bool       // said has changed
	asked   [64]uint32 // number of our saying in the latest questions
	knows   uint32     // number of the newest saying of ours that the peer has
}

func newProber(log *slog.Logger, now func() time.Duration, changed, wake func()) *prober {
	return &prober{
		log: log, now: now, changed: changed, wake: wake,
		peers: make(map[[16]byte]*watched), own: saying{boot: rand.Uint32(), number: 1},
		movedAt: -busyFor,
	}
}

// setPeers says who is to be watched. What is known of those that stay is kept.
func (p *prober) setPeers(t *Tunnel) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self, p.addr = t.Tag, probeAddr(PublicKey(t.PrivateKey))
	peers := make(map[[16]byte]*watched)
	for i := range t.Peers {
		x := &t.Peers[i]
		if !x.Probe {
			continue
		}
		addr := probeAddr(x.PublicKey)
		w := p.peers[addr]
		if w == nil || w.tag != x.Tag {
			w = new(watched)
		}
		w.name, w.key, w.tag, w.standby = x.Name, x.PublicKey, x.Tag, x.Standby
		peers[addr] = w
	}
	p.peers = peers
	p.dirty = true
}

// setLeaving says whether others should carry what this node carries for its
// site.
func (p *prober) setLeaving(leaving bool) {
	p.mu.Lock()
	if p.own.leaving != leaving {
		p.own.leaving = leaving
		p.news()
		p.dirty = true
	}
	p.mu.Unlock()
	p.changed()
}

// news makes what is told next another saying than before, and has it told at
// once to all who listen.
func (p *prober) news() {
	p.own.number++
	now := p.now()
	for _, w := range p.peers {
		if w.health.Up() {
			w.health.Hurry(now)
		}
	}
}

// step sends what is due and judges links. dirty says that paths have to be
// looked at again; next is when to call again at the latest.
func (p *prober) step() (dirty bool, next time.Duration) {
	p.mu.Lock()
	now := p.now()
	if moved := p.moved.Load(); moved != p.movedThen {
		p.movedThen, p.movedAt = moved, now
	}
	busy := now-p.movedAt < busyFor
	next = now + time.Hour
	before := len(p.pending)
	for addr, w := range p.peers {
		was := w.health.Up()
		seq, send, at := w.health.Step(now, busy || w.standby)
		if send {
			w.asked[seq%uint32(len(w.asked))] = p.own.number
			p.queue(addr, probeAsk, seq)
		}
		if was && !w.health.Up() {
			p.log.Info("link down", "peer", w.name)
			p.dirty = true
		}
		next = min(next, at)
	}
	if p.dirty {
		down, told := p.findings()
		if !slices.Equal(down, p.own.down) || !slices.Equal(told, p.own.told) {
			p.own.down, p.own.told = down, told
			p.news()
			next = now
		}
	}
	dirty, p.dirty = p.dirty, false
	sent := len(p.pending) > before
	p.mu.Unlock()
	if sent {
		p.wake()
	}
	return dirty, next
}

// findings lists the peers to which there is no link: as this node finds, and as
// only they say.
func (p *prober) findings() (down, told []overlay.Tag) {
	for _, w := range p.peers {
		switch {
		case !w.health.Up():
			down = append(down, w.tag)
		case slices.Contains(w.said.down, p.self):
			told = append(told, w.tag)
		}
	}
	slices.Sort(down)
	slices.Sort(told)
	return down, told
}

// links returns all that is known of the slice's links: a link is down if
// either end says so. What a peer says that cannot be reached is out of date.
func (p *prober) links() overlay.Links {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := overlay.Links{Down: make(map[overlay.Link]bool), Leaving: make(map[overlay.Tag]bool)}
	if p.own.leaving {
		l.Leaving[p.self] = true
	}
	for _, w := range p.peers {
		if !w.health.Up() || slices.Contains(w.said.down, p.self) {
			l.Down[overlay.LinkOf(p.self, w.tag)] = true
		}
		if w.said.leaving {
			l.Leaving[w.tag] = true
		}
		if !w.health.Up() {
			continue
		}
		for _, tags := range [][]overlay.Tag{w.said.down, w.said.told} {
			for _, x := range tags {
				if x != p.self {
					l.Down[overlay.LinkOf(w.tag, x)] = true
				}
			}
		}
	}
	return l
}

func (p *prober) queue(to [16]byte, kind uint8, seq uint32) {
	if len(p.pending) < probesPending {
		p.pending = append(p.pending, probeMessage{from: p.addr, to: to, kind: kind, seq: seq, saying: p.own})
		p.waiting.Store(int32(len(p.pending)))
	}
}

// fill writes pending probes into the device's buffers and returns how many, and
// how many of them will leave it soon. Those to silent peers must not hold
// credits of the governor, which would miss them for other packets.
func (p *prober) fill(bufs [][]byte, sizes []int) (n, leave int) {
	if p.waiting.Load() == 0 {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n = min(len(p.pending), len(bufs), len(sizes))
	for i := range n {
		sizes[i] = p.pending[i].put(bufs[i][overlay.Headroom:])
		if w := p.peers[p.pending[i].to]; w != nil && !w.silent {
			leave++
		}
	}
	p.pending = slices.Delete(p.pending, 0, n)
	p.waiting.Store(int32(len(p.pending)))
	return n, leave
}

// setSilent says which peers have no session.
func (p *prober) setSilent(silent func(key [32]byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.peers {
		w.silent = silent(w.key)
	}
}

// take takes the probes out of what a peer sent and returns the other packets,
// in order, in the same slice.
func (p *prober) take(bufs [][]byte) [][]byte {
	rest := bufs[:0]
	for _, b := range bufs {
		if isProbe(b[overlay.Headroom:]) {
			p.hear(b[overlay.Headroom:])
			continue
		}
		rest = append(rest, b)
	}
	return rest
}

// hear notes what a probe says and answers it. What is no probe of a peer of
// ours is ignored: the tunnel has it from a peer, but nobody else would take it.
func (p *prober) hear(pkt []byte) {
	m, ok := parseProbe(pkt)
	if !ok {
		return
	}
	p.mu.Lock()
	w := p.peers[m.from]
	if w == nil || m.to != p.addr {
		p.mu.Unlock()
		return
	}
	now := p.now()
	was, then := w.health.Up(), p.dirty
	w.hear(&m.saying)
	if m.kind == probeAnswer {
		if w.health.Heard(now, m.seq) {
			if n := w.asked[m.seq%uint32(len(w.asked))]; int32(n-w.knows) > 0 {
				w.knows = n
			}
		}
		if !was && w.health.Up() {
			p.log.Info("link up", "peer", w.name)
		}
	} else {
		w.health.Noticed(now)
		p.queue(m.from, probeAnswer, m.seq)
	}
	if was != w.health.Up() || w.fresh {
		p.dirty, w.fresh = true, false
	}
	look := p.dirty && !then || m.kind == probeAsk && !was
	p.mu.Unlock()
	if m.kind == probeAsk {
		p.wake()
	}
	if look {
		p.changed()
	}
}

// hear keeps what the peer says if it is newer than what it said before.
func (w *watched) hear(s *saying) {
	if s.boot == w.said.boot && int32(s.number-w.said.number) <= 0 {
		return
	}
	w.fresh = true
	w.said = *s
}

// status fills in what is known of the link to a peer.
func (p *prober) status(s *PeerStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.peers[probeAddr(s.PublicKey)]
	if w == nil {
		return
	}
	s.Watched, s.Up, s.RTT, s.Loss = true, w.health.Up(), w.health.RTT(), w.health.Loss()
	s.Changes, s.Leaving = w.health.Changes(), w.said.leaving
}

// told reports whether all peers that are up know what this node says now.
func (p *prober) told() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.peers {
		if w.health.Up() && w.knows != p.own.number {
			return false
		}
	}
	return true
}
