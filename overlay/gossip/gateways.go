package gossip

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"slicewire/overlay"
)

// maxHandshakes is how many sessions may be about to begin at once; each takes a
// signature and an agreement on a key. Others are refused, and try again.
const maxHandshakes = 32

// serveSession serves a stream that begins as TLS does, until it ends.
func (g *Gossip) serveSession(ctx context.Context, t *transport, c *conn) {
	defer func() { _ = c.Close() }()
	select {
	case g.handshakes <- struct{}{}:
	default:
		g.refused.add(RefusedSession, 1)
		return
	}
	s, err := g.open(ctx, c, false)
	<-g.handshakes
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
	list := []gatewayEntry{{g.cfg.Self.String(), n.transport.advertise, g.meta(n.transport.advertise)}}
	for _, e := range g.members.entries() {
		if e.name != g.cfg.Self.String() && g.proves(e.name, e.addr, e.meta) == proven {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b gatewayEntry) int {
		return cmp.Or(compareChoice(leaf, a.name, b.name), a.addr.Compare(b.addr))
	})
	b, err := encodeGateways(list[:min(len(list), maxGateways)])
	if err != nil { // names and proofs of members were checked
		g.log.Error("gateways cannot be said", "err", err)
	}
	return b
}

// entries returns the live members with their proofs.
func (m *members) entries() (out []gatewayEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, n := range m.live {
		out = append(out, gatewayEntry{name, addrOf(n), n.Meta})
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
	last := e.name
	for name := range t.known {
		if compareChoice(self, last, name) < 0 {
			last = name
		}
	}
	delete(t.known, last)
}

// jitter is about d.
func jitter(d time.Duration) time.Duration { return d - d/8 + rand.N(d/4) }
