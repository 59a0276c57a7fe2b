package gossip

import (
	"slices"

	"slicewire/overlay"
)

// takeFrom judges records that came over a session. A gateway passes on what is
// new: to its leaves all of it, to the other gateways what the leaf says of
// itself, and a little of others; more than that they find by summaries. A leaf
// passes nothing on as it comes, for its gateways most likely have it, and
// checks tell when they have not.
//
// An error says that no node that follows the rules says such things.
func (g *Gossip) takeFrom(s *session, m message) error {
	g.refused.add(RefusedMalformed, m.refused)
	if m.refused > 0 {
		return errHostile
	}
	offered := make(map[fingerprint]chain, len(m.chains))
	for _, c := range m.chains {
		offered[c.leaf()] = c
	}
	var own, others [][]byte
	var forged bool
	for _, x := range m.records {
		reason, fresh := g.accept(x, offered, true)
		forged = forged || reason == RefusedSignature
		switch {
		case !fresh:
		case x.record.Origin == s.peer:
			own = append(own, x.raw)
		default:
			others = append(others, x.raw)
		}
	}
	g.settle()
	if fresh := append(slices.Clip(own), others...); len(fresh) > 0 {
		g.signal()
		if !s.dialed {
			g.tellSessions(fresh, s)
			g.tellMembers(own, true)
			if len(others) <= fewRecords {
				g.passOn(others, true)
			}
		}
	}
	if forged {
		return errHostile
	}
	return nil
}

// digest is what a check says.
func (g *Gossip) digest() digest {
	g.mu.Lock()
	d := g.ledger.Digests()
	g.mu.Unlock()
	return digestOf(g.said(encodeDigests(overlay.NodeID{}, d)))
}

// answers yields the answer to a question in pieces of bounded size.
func (g *Gossip) answers(m message) func(yield func([][]byte) bool) {
	if m.kind == typeWant {
		return func(yield func([][]byte) bool) {
			for wants := range slices.Chunk(m.wants, answerPiece) {
				part := m
				part.wants = wants
				if !yield(g.answerWants(part)) {
					return
				}
			}
		}
	}
	if m.kind == typeDigests {
		return func(yield func([][]byte) bool) { yield(g.answerDigests(m)) }
	}
	return func(yield func([][]byte) bool) {
		g.mu.Lock()
		push, pull := g.ledger.Compare(m.summary, m.parts)
		wants := make([]want, 0, len(pull))
		for _, id := range pull {
			wants = append(wants, want{origin: id, marks: g.ledger.Marks(id)})
		}
		g.mu.Unlock()
		if !yield(g.wantMessages(wants, false)) {
			return
		}
		for ids := range slices.Chunk(push, answerPiece) {
			g.mu.Lock()
			var raws [][]byte
			for _, id := range ids {
				raws = append(raws, g.ledger.Missing(id, nil)...)
			}
			messages := g.recordMessagesLocked(raws, true)
			g.mu.Unlock()
			if !yield(messages) {
				return
			}
		}
	}
}
