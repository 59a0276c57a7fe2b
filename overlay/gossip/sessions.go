package gossip

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Bounds of what is kept about those at the other ends of sessions.
const (
	maxSessions = 1024 // live ones
	maxLives    = 4096 // nodes whose last instances are remembered
	maxFormer   = 4    // instances before the present one
	maxBarred   = 256
	barFor      = 10 * time.Second // for who said what no node says
)

// sessions is what goes on with those that this node has sessions with, by
// their names: a gateway's leaves, a leaf's gateways.
type sessions struct {
	instance       instance // of this life
	client, server *tls.Config
	look           chan struct{} // capacity 1: the leaf's choice of gateways may be another

	mu     sync.Mutex // guards what follows
	closed bool
	live   map[string]*session
	gone   map[string]departed
	lives  map[string]*lives
	barred map[string]time.Time // until when
	known  map[string]gatewayEntry
	proven provenMembers
	begins map[netip.Addr]int // sessions that are about to begin, by source
	begin  int                // sum of begins
}

// lives is which instances of a node were seen. One that comes back after
// another has come runs beside it: they are two, with one key.
type lives struct {
	now    instance
	former []instance
	back   int // how often one came back, no longer than twinForget apart
	seen   time.Time
	pace   *sessionPace // of all its sessions
}

// twinSessions is how often an instance comes back until that is an alarm: a
// node that started again may have been overtaken by its own last words once.
const twinSessions = 2

func (l *lives) note(i instance, now time.Time) (twin bool) {
	if now.Sub(l.seen) > twinForget {
		l.back = 0
	}
	l.seen = now
	if i == l.now {
		return false
	}
	if slices.Contains(l.former, i) {
		l.back++
	}
	l.former = slices.DeleteFunc(l.former, func(f instance) bool { return f == i })
	l.former = append(l.former, l.now)
	if len(l.former) > maxFormer {
		l.former = l.former[1:]
	}
	l.now = i
	return l.back >= twinSessions
}

func (t *sessions) init() (err error) {
	if t.client, t.server, err = sessionTLS(); err != nil {
		return err
	}
	if _, err := rand.Read(t.instance[:]); err != nil {
		return fmt.Errorf("instance of this life: %w", err)
	}
	t.look = make(chan struct{}, 1)
	t.live = make(map[string]*session)
	t.gone = make(map[string]departed)
	t.lives = make(map[string]*lives)
	t.barred = make(map[string]time.Time)
	t.known = make(map[string]gatewayEntry)
	t.begins = make(map[netip.Addr]int)
	return nil
}

// How many sessions may be about to begin at once; each takes a signature and an
// agreement on a key. No source can take all of it.
const (
	maxBegins          = 64
	maxBeginsPerSource = 16
)

// about reports whether another session from a source may begin. began has to
// follow.
func (t *sessions) about(source netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.begin >= maxBegins || t.begins[source] >= maxBeginsPerSource {
		return false
	}
	t.begin++
	t.begins[source]++
	return true
}

func (t *sessions) began(source netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begin--
	if t.begins[source]--; t.begins[source] == 0 {
		delete(t.begins, source)
	}
}

var (
	errFull   = errors.New("no room for another session")
	errBarred = errors.New("barred for a while for what it said")
)

// add takes note of a session that has begun. old is one of the same node that
// it replaces. twin says that two hold the node's key.
func (t *sessions) add(s *session) (old *session, twin bool, err error) {
	name, now := s.peer.String(), time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	old = t.live[name]
	switch {
	case t.closed || old == nil && len(t.live) >= maxSessions:
		return nil, false, errFull
	case now.Before(t.barred[name]):
		return nil, false, errBarred
	}
	l := t.lives[name]
	if l == nil {
		if len(t.lives) >= maxLives {
			for n, x := range t.lives { // some that is not here
				if t.live[n] == nil || now.Sub(x.seen) > time.Hour {
					delete(t.lives, n)
					break
				}
			}
		}
		l = &lives{now: s.instance, pace: new(sessionPace)}
		t.lives[name] = l
	}
	s.pace = l.pace
	twin = l.note(s.instance, now)
	t.live[name] = s
	delete(t.gone, name)
	return old, twin, nil
}

// remove takes note of a session's end, and reports whether the node has none
// any more. moved says that the node lives on.
func (t *sessions) remove(s *session, left, moved bool) bool {
	name := s.peer.String()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[name] != s {
		return false
	}
	delete(t.live, name)
	if !moved {
		if len(t.gone) >= maxGone {
			for n := range t.gone {
				delete(t.gone, n)
				break
			}
		}
		d := departed{addr: s.addr}
		if !left {
			d.died = time.Now()
		}
		t.gone[name] = d
	}
	return true
}

// bar refuses a node's sessions for a while.
func (t *sessions) bar(name string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.barred, func(_ string, until time.Time) bool { return !now.Before(until) })
	if len(t.barred) < maxBarred {
		t.barred[name] = now.Add(barFor)
	}
}

// all returns the live sessions, sorted by name.
func (t *sessions) all() []*session {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*session, 0, len(t.live))
	for _, name := range slices.Sorted(maps.Keys(t.live)) {
		out = append(out, t.live[name])
	}
	return out
}

// close refuses further sessions and says good-bye to those there are.
func (t *sessions) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, s := range t.all() {
		wg.Go(func() { s.leave(byeLeaving) })
	}
	wg.Wait()
}

// begun takes a session into the table, or refuses it.
func (g *Gossip) begun(s *session) error {
	if s.peer == g.cfg.Self {
		g.refused.add(RefusedClone, 1)
		g.log.Warn("two holders of one node key speak", "node", s.peer.String(), "peer", s.addr.String())
		return errReplaced
	}
	old, twin, err := g.sessions.add(s)
	if err != nil {
		g.refused.add(RefusedSession, 1)
		return err
	}
	if twin {
		g.refused.add(RefusedClone, 1)
		g.log.Warn("two holders of one node key speak", "node", s.peer.String(), "peer", s.addr.String())
	}
	if old != nil {
		old.end(errReplaced)
	} else {
		g.log.Info("member joined", "node", s.peer.String())
	}
	return nil
}

// over takes note of a session's end and of why.
func (g *Gossip) over(s *session, why error) {
	if errors.Is(why, errHostile) {
		g.refused.add(RefusedSession, 1)
		g.sessions.bar(s.peer.String())
	}
	bye, polite := errors.AsType[goodbye](why)
	moved := polite && bye.reason == byeMoving || why == nil
	if g.sessions.remove(s, polite, moved) && !moved {
		g.log.Info("member gone", "node", s.peer.String())
	}
	g.log.Debug("session ended", "node", s.peer.String(), "err", why)
}

// checkSessions ends the sessions with those whose certificate is void by now.
func (g *Gossip) checkSessions() {
	now := g.cfg.Now()
	for _, s := range g.sessions.all() {
		if _, err := g.cfg.Verifier.Authority(s.chain, now); err != nil {
			g.refused.add(RefusedSession, 1)
			g.log.Info("session ended: certificate no good any more", "node", s.peer.String(), "err", err)
			s.end(errVoid)
		}
	}
}

// tellSessions passes records on to all at the other ends but one.
func (g *Gossip) tellSessions(raws [][]byte, but *session) {
	all := g.sessions.all()
	if len(raws) == 0 || len(all) == 0 {
		return
	}
	g.mu.Lock()
	messages := g.recordMessagesLocked(raws, true)
	g.mu.Unlock()
	for _, s := range all {
		if s != but {
			s.tell(messages)
		}
	}
}

// members adds those at the other ends of sessions to what memberlist knows.
func (t *sessions) members(list []Member) []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := make(map[string]int, len(list))
	for i, m := range list {
		at[m.Name] = i
	}
	add := func(m Member) {
		i, known := at[m.Name]
		switch {
		case !known:
			list = append(list, m)
		case list[i].State == StateGone && m.State != StateGone:
			list[i] = m
		}
	}
	for name, s := range t.live {
		add(Member{Name: name, Addr: s.addr, State: StateProven, Leaf: !s.dialed})
	}
	for name, d := range t.gone {
		add(Member{Name: name, Addr: d.addr, State: StateGone})
	}
	return list
}
