package gossip

import (
	"time"

	"slicewire/overlay"
)

// A summary is as long as the mesh is large: 60 KB for a thousand nodes. Where
// it would be longer than fewOrigins make it, digests of 64 parts go instead,
// 1 KB in a packet, and a summary of those parts only that differ comes back.
const (
	fewOrigins = 32
	// compareWith is how many members everything held is compared with, in every
	// maintainEvery, where digests do and where summaries do. A cut that is over
	// before anybody counts as dead is noticed by nobody, and what was said
	// meanwhile is not said again: this is how it is found. Digests cost 250
	// bytes a second.
	compareWith    = 1
	compareFewWith = 4
)

// filling is how long after many records came at once more of them are expected:
// a newcomer is told everything by one or two, and not by everybody who compares
// digests with it meanwhile.
const filling = 2 * time.Second

// state says what is held here, in a summary or in digests.
func (g *Gossip) state() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ledger.Len() <= fewOrigins {
		return g.said(encodeSummary(g.cfg.Self, g.ledger.Summary()))
	}
	return g.said(encodeDigests(g.cfg.Self, g.ledger.Digests()))
}

// said returns an encoded message. The ledger's bounds keep it within
// maxMessage.
func (g *Gossip) said(b []byte, err error) []byte {
	if err != nil {
		g.log.Error("what is held cannot be said", "err", err)
		return nil
	}
	return b
}

// answerDigests says what is held here of the parts that differ.
func (g *Gossip) answerDigests(m message) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	parts := g.ledger.Differ(m.digests)
	if parts == 0 || parts.Len() > overlay.Parts/2 && time.Since(g.filled) < filling {
		return nil
	}
	return [][]byte{g.said(encodePart(g.cfg.Self, parts, g.ledger.SummaryOf(parts)))}
}

// saidAlready reports whether b, the state of one with whom states are being
// exchanged, needs no answer: digests, while what is held here is so little that
// it was sent in whole. A newcomer would ask for everything twice.
func (g *Gossip) saidAlready(b []byte) bool {
	if len(b) < 2 || b[1] != typeDigests {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.Len() <= fewOrigins
}

// compare tells a few members, chosen at random, what is held here.
func (g *Gossip) compare() {
	g.mu.Lock()
	with := compareWith
	if g.ledger.Len() <= fewOrigins {
		with = compareFewWith
	}
	g.mu.Unlock()
	for _, name := range g.members.some(g.cfg.Self.String(), with) {
		// When the outbox is full, the next round has to do.
		g.queues.send(job{to: name, fit: true, make: func() [][]byte { return [][]byte{g.state()} }})
	}
}
