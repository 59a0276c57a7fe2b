package gateway

import (
	"slices"
	"sync/atomic"

	"slicewire/overlay"
)

// probesPending bounds the probes that wait for a device to read them. It reads
// at once unless its way outside is full; then one more is worth nothing.
const probesPending = 256

// A lane is the way of a slice's probes through one of its tunnels. Addresses of
// probes are made of keys, so each lane has its own. The prober's mutex
// guards addr and what follows.
type lane struct {
	probes  *prober
	wake    func()       // has the device read what is pending
	waiting atomic.Int32 // how many are pending

	addr    [16]byte
	peers   map[[16]byte]*watched // by probe address
	missing []overlay.Tag         // cannot be reached in this lane
	pending []probeMessage
	notes   []note
}

// A watched peer is one that is probed in a lane.
type watched struct {
	name    string
	key     [32]byte
	tag     overlay.Tag
	node    *neighbor
	standby bool
	beside  bool // shares the slice's ceiling
	silent  bool // no session: what is sent to it stays in the device
	health  overlay.Health
	asked   [64]uint32 // number of our saying in the latest questions
	notes   tokens     // for what it tells
}

func (p *prober) lane(wake func()) *lane {
	l := &lane{probes: p, wake: wake}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lanes = append(p.lanes, l)
	return l
}

// close has the lane watch nobody any more.
func (l *lane) close() {
	p := l.probes
	p.mu.Lock()
	p.lanes = slices.DeleteFunc(p.lanes, func(x *lane) bool { return x == l })
	p.regroup()
	p.mu.Unlock()
	p.changed()
}

// setPeers says who is to be watched. What is known of those that stay is kept.
func (l *lane) setPeers(t *Tunnel) {
	p := l.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	p.self, l.addr = t.Tag, probeAddr(PublicKey(t.PrivateKey))
	peers := make(map[[16]byte]*watched)
	for i := range t.Peers {
		x := &t.Peers[i]
		if !x.Probe {
			continue
		}
		addr := probeAddr(x.PublicKey)
		w := l.peers[addr]
		if w == nil || w.tag != x.Tag {
			w = new(watched)
		}
		w.name, w.key, w.tag, w.standby, w.beside = x.Name, x.PublicKey, x.Tag, x.Standby, x.Beside
		peers[addr] = w
	}
	l.peers, l.missing = peers, t.Missing
	p.regroup()
}

func (l *lane) queue(to [16]byte, kind uint8, seq uint32) {
	if len(l.pending) < probesPending {
		m := probeMessage{from: l.addr, to: to, kind: kind, seq: seq, saying: l.probes.own}
		if w := l.peers[to]; w != nil && w.beside {
			m.demand = l.probes.demand
		}
		l.pending = append(l.pending, m)
		l.waiting.Store(int32(len(l.pending) + len(l.notes)))
	}
}

// fill writes pending probes into the device's buffers and returns how many, and
// how many of them will leave it soon. Those to silent peers must not hold
// credits of the governor, which would miss them for other packets.
func (l *lane) fill(bufs [][]byte, sizes []int) (n, leave int) {
	if l.waiting.Load() == 0 {
		return 0, 0
	}
	l.probes.mu.Lock()
	defer l.probes.mu.Unlock()
	n = min(len(l.pending), len(bufs), len(sizes))
	for i := range n {
		sizes[i] = l.pending[i].put(bufs[i][overlay.Headroom:])
		if w := l.peers[l.pending[i].to]; w != nil && !w.silent {
			leave++
		}
	}
	l.pending = slices.Delete(l.pending, 0, n)
	more, leaving := l.fillNotes(bufs[n:], sizes[n:])
	l.waiting.Store(int32(len(l.pending) + len(l.notes)))
	return n + more, leave + leaving
}

// setSilent says which peers have no session.
func (l *lane) setSilent(silent func(key [32]byte) bool) {
	l.probes.mu.Lock()
	defer l.probes.mu.Unlock()
	for _, w := range l.peers {
		w.silent = silent(w.key)
	}
}

// take takes the probes out of what a peer sent and returns the other packets,
// in order, in the same slice.
func (l *lane) take(bufs [][]byte) [][]byte {
	rest := bufs[:0]
	for _, b := range bufs {
		if isProbe(b[overlay.Headroom:]) {
			if pkt := b[overlay.Headroom:]; !l.read(pkt) {
				l.hear(pkt)
			}
			continue
		}
		rest = append(rest, b)
	}
	return rest
}

// hear notes what a probe says and answers it. What is no probe of a peer of
// ours is ignored: the tunnel has it from a peer, but nobody else would take it.
func (l *lane) hear(pkt []byte) {
	m, ok := parseProbe(pkt)
	if !ok {
		return
	}
	p := l.probes
	p.mu.Lock()
	w := l.peers[m.from]
	if w == nil || m.to != l.addr {
		p.mu.Unlock()
		return
	}
	now, node := p.now(), w.node
	was, then, asleep := node.up(), p.dirty, !w.health.Up()
	node.hear(&m.saying)
	node.demand = m.demand
	if m.kind == probeAnswer {
		if w.health.Heard(now, m.seq) {
			if n := w.asked[m.seq%uint32(len(w.asked))]; int32(n-node.knows) > 0 {
				node.knows = n
			}
		}
		if !was && node.up() {
			p.log.Info("link up", "peer", w.name)
		}
	} else {
		w.health.Noticed(now)
		l.queue(m.from, probeAnswer, m.seq)
	}
	if was != node.up() || node.fresh {
		p.dirty, node.fresh = true, false
	}
	look := p.dirty && !then || m.kind == probeAsk && asleep
	p.mu.Unlock()
	if m.kind == probeAsk {
		l.wake()
	}
	if look {
		p.changed()
	}
}

// status fills in what is known of the link to a peer in this lane.
func (l *lane) status(s *PeerStatus) {
	l.probes.mu.Lock()
	defer l.probes.mu.Unlock()
	w := l.peers[probeAddr(s.PublicKey)]
	if w == nil {
		return
	}
	s.Watched, s.Up, s.RTT, s.Loss = true, w.health.Up(), w.health.RTT(), w.health.Loss()
	s.Changes, s.Leaving = w.health.Changes(), w.node.said.leaving
	if w.node.up() {
		s.Demand = w.node.demand
	}
}
