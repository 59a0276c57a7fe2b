package gossip

import (
	"cmp"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"slicewire/overlay"
)

// serveSession serves a stream that begins as TLS does, until it ends.
func (g *Gossip) serveSession(ctx context.Context, t *transport, c *conn) {
	defer func() { _ = c.Close() }()
	source := addrPortOf(c.RemoteAddr()).Addr()
	if !g.sessions.about(source) {
		g.refused.add(RefusedSession, 1)
		return
	}
	s, err := g.open(ctx, c, false)
	g.sessions.began(source)
	if err != nil {
		g.log.Debug("session not begun", "peer", addrPortOf(c.RemoteAddr()).String(), "err", err)
		return
	}
	if err := g.begun(s); err != nil {
		_ = writeFrame(s.conn, encodeBye(byeFull))
		return
	}
	t.trust(c)
	g.over(s, s.run(ctx))
}

// gatewaysFor says which gateways a leaf could have sessions with: those of its
// own site and, so that not all choose the same, those of others in an order of
// its own.
func (g *Gossip) gatewaysFor(leaf overlay.NodeID) []byte {
	n := g.net.Load()
	if n == nil {
		return nil
	}
	list := choiceOrder(leaf, g.gatewaysProven(), func(e gatewayEntry) string { return e.name })
	self := gatewayEntry{g.cfg.Self.String(), n.transport.advertise, g.meta(n.transport.advertise)}
	b, err := encodeGateways(append([]gatewayEntry{self}, list[:min(len(list), maxGateways-1)]...))
	if err != nil { // names and proofs of members were checked
		g.log.Error("gateways cannot be said", "err", err)
	}
	return b
}

// provenMembers are the members whose proof is good, as of a moment ago: each
// leaf is told some of them every gatewaysAt.
type provenMembers struct {
	at   time.Time
	list []gatewayEntry
}

// gatewaysProven returns the other members whose proof is good, sorted by name.
// The caller does not change them.
func (g *Gossip) gatewaysProven() []gatewayEntry {
	t := &g.sessions
	t.mu.Lock()
	p := t.proven
	t.mu.Unlock()
	if !p.at.IsZero() && time.Since(p.at) < gatewaysAt/2 {
		return p.list
	}
	p = provenMembers{at: time.Now()}
	for _, e := range g.members.entries() {
		if e.name != g.cfg.Self.String() && g.proves(e.name, e.addr, e.meta) == proven {
			p.list = append(p.list, e)
		}
	}
	t.mu.Lock()
	t.proven = p
	t.mu.Unlock()
	return p.list
}

// entries returns the live members with their proofs.
func (m *members) entries() (out []gatewayEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, l := range m.live {
		out = append(out, gatewayEntry{name, l.addr, l.node.Meta})
	}
	return out
}

// gatewaysKnown returns the gateways that a leaf was told of and whose proof is
// good, now or before.
func (g *Gossip) gatewaysKnown() []gatewayEntry {
	t := &g.sessions
	for _, s := range t.all() {
		s.mu.Lock()
		told := s.told
		s.mu.Unlock()
		for _, e := range told {
			if e.name != g.cfg.Self.String() && g.proves(e.name, e.addr, e.meta) == proven {
				t.learn(e, g.cfg.Self)
			}
		}
	}
	return t.entries()
}

// entries returns the gateways known, sorted by name.
func (t *sessions) entries() []gatewayEntry {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]gatewayEntry, 0, len(t.known))
	for _, e := range t.known {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b gatewayEntry) int { return cmp.Compare(a.name, b.name) })
	return out
}

// learn keeps the gateway, maxGateways of them: those that are chosen first.
func (t *sessions) learn(e gatewayEntry, self overlay.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[e.name] = e
	if len(t.known) <= maxGateways {
		return
	}
	names := slices.Sorted(maps.Keys(t.known))
	delete(t.known, choiceOrder(self, names, func(name string) string { return name })[maxGateways])
}

// jitter is about d.
func jitter(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4) }
