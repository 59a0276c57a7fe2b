package gossip

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

const (
	leafDialTime = 1500 * time.Millisecond // an unanswered first packet is repeated after a second
	seedsAgain   = 15 * time.Second        // look up the seeds' names
	seedsAlone   = 2 * time.Second
)

// A leaf is what Run runs on a node that is no member: it dials, and nobody
// dials it.
type leaf struct {
	g       *Gossip
	events  chan leafEvent
	seeds   chan map[netip.AddrPort]bool
	found   map[netip.AddrPort]bool // addresses of the seeds
	targets map[netip.AddrPort]*target
	at      map[*session]*target
}

// A leafEvent is a session that began, one that ended, or one that came to
// nothing.
type leafEvent struct {
	target *target
	s      *session // nil: it came to nothing
	began  bool
	err    error
}

// runLeaf is Run of a leaf.
func (g *Gossip) runLeaf(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	l := &leaf{
		g: g, events: make(chan leafEvent), seeds: make(chan map[netip.AddrPort]bool),
		targets: make(map[netip.AddrPort]*target), at: make(map[*session]*target),
	}
	choosing, stopChoosing := context.WithCancel(work)
	defer stopChoosing()
	var wg sync.WaitGroup
	wg.Go(func() { l.resolve(choosing) })
	wg.Go(func() { g.maintainLeaf(work) })
	wg.Go(func() { l.loop(choosing, work, &wg) })
	close(g.ready)
	g.log.Info("gossip up", "node", g.cfg.Self.String(), "leaf", true)
	<-ctx.Done()
	stopChoosing()
	g.sessions.close()
	stop()
	wg.Wait()
	return nil
}

// maintainLeaf is maintainLoop of a leaf.
func (g *Gossip) maintainLeaf(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		g.publish(g.maintain())
		g.checkSessions()
		wake(g.sessions.look) // the certificate may be another
		select {
		case <-tick.C:
		case <-g.queues.tend:
		case <-ctx.Done():
			return
		}
	}
}

// resolve looks up the seeds, again when they are others, and sooner while
// there is no session.
func (l *leaf) resolve(ctx context.Context) {
	for {
		select {
		case l.seeds <- l.g.resolveSeeds(ctx):
		case <-ctx.Done():
			return
		}
		again := seedsAgain
		if len(l.g.sessions.all()) == 0 {
			again = seedsAlone
		}
		timer := time.NewTimer(again)
		select {
		case <-timer.C:
		case <-l.g.queues.join:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// loop owns the choice of gateways until ctx ends. What it starts is counted in
// wg and ends with work.
func (l *leaf) loop(ctx, work context.Context, wg *sync.WaitGroup) {
	for {
		again := l.step(work, wg)
		timer := time.NewTimer(again)
		select {
		case e := <-l.events:
			l.happened(e)
		case l.found = <-l.seeds:
		case <-l.g.sessions.look:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			l.drain(work)
			return
		}
		timer.Stop()
	}
}

// drain takes what those still report that work.
func (l *leaf) drain(work context.Context) {
	for {
		select {
		case <-l.events:
		case <-work.Done():
			return
		}
	}
}

// step does what is to be done now and says when to look again.
func (l *leaf) step(work context.Context, wg *sync.WaitGroup) time.Duration {
	l.collect()
	g := l.g
	_, fp := g.ownChain()
	all := g.sessions.all()
	live := make([]string, 0, len(all))
	var targets []*target
	for _, t := range l.targets {
		targets = append(targets, t)
	}
	for _, s := range all {
		live = append(live, s.peer.String())
	}
	dial, drop, again := choose(g.cfg.Self, time.Now(), targets, live)
	for _, t := range dial {
		l.dial(work, wg, t)
	}
	for _, s := range all {
		name := s.peer.String()
		for _, d := range drop {
			if d == name && !s.leaving() {
				wg.Go(func() { s.leave(byeMoving) })
			}
		}
	}
	// With another certificate, one session after the other is made anew.
	for _, s := range all {
		if t := l.at[s]; t != nil && s.own != fp {
			if !t.dialing && time.Since(t.failed) > t.pause(false, true) {
				l.dial(work, wg, t)
			}
			break
		}
	}
	return again
}

// collect makes the targets those that the seeds and the gateways known come to.
func (l *leaf) collect() {
	wanted := make(map[netip.AddrPort]string, len(l.found))
	for addr := range l.found {
		wanted[addr] = ""
	}
	for _, e := range l.g.gatewaysKnown() {
		wanted[e.addr] = e.name
	}
	for addr, name := range wanted {
		t := l.targets[addr]
		if t == nil {
			t = &target{addr: addr, share: 1}
			l.targets[addr] = t
		}
		if t.name == "" {
			t.name = name
		}
	}
	busy := make(map[*target]bool, len(l.at))
	for _, t := range l.at {
		busy[t] = true
	}
	for addr, t := range l.targets {
		if _, ok := wanted[addr]; !ok && !t.dialing && !busy[t] {
			delete(l.targets, addr)
		}
	}
}

// dial has a session made and served.
func (l *leaf) dial(work context.Context, wg *sync.WaitGroup, t *target) {
	t.dialing = true
	wg.Go(func() {
		report := func(e leafEvent) {
			select {
			case l.events <- e:
			case <-work.Done():
			}
		}
		s, err := l.connect(work, t.addr)
		if err != nil {
			report(leafEvent{target: t, err: err})
			return
		}
		report(leafEvent{target: t, s: s, began: true})
		err = s.run(work)
		l.g.over(s, err)
		report(leafEvent{target: t, s: s, err: err})
	})
}

func (l *leaf) connect(ctx context.Context, addr netip.AddrPort) (*session, error) {
	dialing, cancel := context.WithTimeout(ctx, leafDialTime)
	raw, err := l.g.cfg.Network.Dial(dialing, addr)
	cancel()
	if err != nil {
		return nil, err
	}
	s, err := l.g.open(ctx, raw, true)
	if err != nil {
		return nil, err
	}
	s.addr = addr
	if err := l.g.begun(s); err != nil {
		_ = s.conn.Close()
		return nil, fmt.Errorf("session with %v: %w", s.peer, err)
	}
	return s, nil
}

// happened takes note of what became of a dial.
func (l *leaf) happened(e leafEvent) {
	t := e.target
	fail := func(times int) {
		t.fails, t.failed, t.share = times, time.Now(), 0.5+rand.Float64()
	}
	switch {
	case e.s == nil:
		t.dialing = false
		t.unwanted = errors.Is(e.err, errUnwanted)
		fail(t.fails + 1)
		l.g.log.Debug("gateway does not answer", "peer", t.addr.String(), "err", e.err)
	case e.began:
		t.dialing, t.unwanted = false, false
		t.name = e.s.peer.String()
		l.at[e.s] = t
	default:
		delete(l.at, e.s)
		bye, polite := errors.AsType[goodbye](e.err)
		switch {
		case errors.Is(e.err, errReplaced):
		case polite && bye.reason == byeFull:
			t.unwanted = true
			fail(t.fails + 1)
		case time.Since(e.s.since) < briefly:
			fail(t.fails + 1)
		default:
			fail(1)
		}
	}
}
