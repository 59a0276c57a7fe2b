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

// busyFor is how long after its last packet a slice is in use.
const busyFor = 10 * time.Second

// A prober watches a slice's links to this node's peers. Its probes go out and
// come in with the packets of the slice's tunnels, through the same devices and
// the same queues behind the shaper, and are answered here: what is busy inside
// of a tunnel says nothing about the link. Each tunnel is a lane of its own; a
// link is up while one of its lanes is.
type prober struct {
	log     *slog.Logger
	now     func() time.Duration
	changed func()                         // something was heard that step should look at; it never waits
	notes   func(peer string, body []byte) // takes what peers tell; nil: nobody does
	moved   atomic.Uint64                  // packets through the tunnels, probes not counted

	mu     sync.Mutex
	self   overlay.Tag
	lanes  []*lane
	nodes  map[overlay.Tag]*neighbor // all that are watched
	own    saying                    // what the others are told
	demand overlay.Demand            // what they are told besides; a probe that is lost is not missed
	dirty  bool                      // paths may be others now

	movedThen uint64
	movedAt   time.Duration
}

// A neighbor is a node that is watched, by whichever lanes. The prober's mutex
// guards it.
type neighbor struct {
	tag    overlay.Tag
	links  []*watched
	said   saying         // by the node; zero if nothing yet
	fresh  bool           // said has changed
	demand overlay.Demand // the latest
	knows  uint32         // number of the newest saying of ours that the node has
}

func (n *neighbor) up() bool {
	return slices.ContainsFunc(n.links, func(w *watched) bool { return w.health.Up() })
}

func newProber(log *slog.Logger, now func() time.Duration, changed func()) *prober {
	return &prober{
		log: log, now: now, changed: changed,
		nodes: make(map[overlay.Tag]*neighbor), own: saying{boot: rand.Uint32(), number: 1},
		movedAt: -busyFor,
	}
}

// regroup gathers the neighbors of all lanes. What they said is kept.
func (p *prober) regroup() {
	nodes := make(map[overlay.Tag]*neighbor)
	node := func(tag overlay.Tag) *neighbor {
		n := nodes[tag]
		if n == nil {
			if n = p.nodes[tag]; n == nil {
				n = &neighbor{tag: tag}
			}
			n.links = nil
			nodes[tag] = n
		}
		return n
	}
	for _, l := range p.lanes {
		for _, w := range l.peers {
			w.node = node(w.tag)
			w.node.links = append(w.node.links, w)
		}
		for _, tag := range l.missing {
			node(tag)
		}
	}
	p.nodes = nodes
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

// setDemand says what this node would send of the slice's ceiling, and has it told
// at once to those who share it when that has changed.
func (p *prober) setDemand(d overlay.Demand) {
	p.mu.Lock()
	changed := p.demand != d
	if changed {
		p.demand = d
		p.hurry(func(w *watched) bool { return w.beside })
	}
	p.mu.Unlock()
	if changed {
		p.changed()
	}
}

// news makes what is told next another saying than before, and has it told at
// once to all who listen.
func (p *prober) news() {
	p.own.number++
	p.hurry(func(*watched) bool { return true })
}

// hurry has those who listen, and are of such, probed now. mu is held.
func (p *prober) hurry(such func(*watched) bool) {
	now := p.now()
	for _, l := range p.lanes {
		for _, w := range l.peers {
			if w.health.Up() && such(w) {
				w.health.Hurry(now)
			}
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
	var sent []*lane
	for _, l := range p.lanes {
		before := len(l.pending)
		for addr, w := range l.peers {
			was := w.node.up()
			seq, send, at := w.health.Step(now, busy || w.standby)
			if send {
				w.asked[seq%uint32(len(w.asked))] = p.own.number
				l.queue(addr, probeAsk, seq)
			}
			if was && !w.node.up() {
				p.log.Info("link down", "peer", w.name)
				p.dirty = true
			}
			next = min(next, at)
		}
		if len(l.pending) > before {
			sent = append(sent, l)
		}
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
	p.mu.Unlock()
	for _, l := range sent {
		l.wake()
	}
	return dirty, next
}

// findings lists the peers to which there is no link: as this node finds, and as
// only they say.
func (p *prober) findings() (down, told []overlay.Tag) {
	for _, n := range p.nodes {
		switch {
		case !n.up():
			down = append(down, n.tag)
		case slices.Contains(n.said.down, p.self):
			told = append(told, n.tag)
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
	for _, n := range p.nodes {
		up := n.up()
		if !up || slices.Contains(n.said.down, p.self) {
			l.Down[overlay.LinkOf(p.self, n.tag)] = true
		}
		if n.said.leaving {
			l.Leaving[n.tag] = true
		}
		if !up {
			continue
		}
		for _, tags := range [][]overlay.Tag{n.said.down, n.said.told} {
			for _, x := range tags {
				if x != p.self {
					l.Down[overlay.LinkOf(n.tag, x)] = true
				}
			}
		}
	}
	return l
}

// hear keeps what the node says if it is newer than what it said before.
func (n *neighbor) hear(s *saying) {
	if s.boot == n.said.boot && int32(s.number-n.said.number) <= 0 {
		return
	}
	n.fresh = true
	n.said = *s
}

// told reports whether all peers that are up know what this node says now.
func (p *prober) told() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.nodes {
		if n.up() && n.knows != p.own.number {
			return false
		}
	}
	return true
}
