package gossip

import (
	"errors"
	"time"

	"slicewire/overlay"
)

// Pace of each origin's accepted changes. The burst holds everything one origin
// may say, so that a newcomer learns it at once.
const (
	paceBurst     = 2 * overlay.MaxRecordsPerOrigin
	pacePerSecond = 50
)

// accept judges one record from outside and keeps it if it is good and new.
// The cheap checks come first, so that what everybody repeats costs little:
//
//  1. Known bytes and old versions need no cryptography.
//  2. The certificate chain, which the verifier remembers.
//  3. The signature over the bytes as they came.
//  4. The certificate's authority over what is said.
//  5. The origin's pace, then the ledger.
//
// offered are chains that came along. It returns why it refused the record, if it
// did, and whether the record is new here. What a revocation voids goes with
// settle, which the caller calls after the last of several records.
func (g *Gossip) accept(s sealed, offered map[fingerprint]chain, paced bool) (reason string, fresh bool) {
	reason, fresh = g.judge(s, offered, paced)
	if reason != "" {
		g.refused.add(reason, 1)
		if reason == RefusedClone {
			g.log.Warn("two holders of one node key speak", "node", s.record.Origin.String())
		}
	}
	return reason, fresh
}

func (g *Gossip) judge(s sealed, offered map[fingerprint]chain, paced bool) (reason string, fresh bool) {
	now := g.cfg.Now()
	g.mu.Lock()
	verdict := g.ledger.Judge(s.record, s.raw)
	c, known := g.chains[s.signer]
	g.mu.Unlock()
	switch verdict {
	case overlay.Same:
		return "", false
	case overlay.Old:
		return RefusedStale, false
	}
	if !known {
		if c = offered[s.signer]; c == nil {
			return RefusedNoCert, false
		}
	}
	authority, err := g.cfg.Verifier.Authority(c, now)
	if r, ok := void(err); ok {
		return string(r), false
	}
	if err != nil || authority.Mesh != g.cfg.Mesh {
		return RefusedCert, false
	}
	if !g.cfg.Verifier.Signed(c, signRecord, s.body, s.sig) {
		return RefusedSignature, false
	}
	if err := authority.Permits(s.record, now); err != nil {
		if r, ok := errors.AsType[overlay.Refusal](err); ok {
			return string(r), false
		}
		return RefusedMalformed, false
	}
	return g.keep(s, c, now, paced)
}

// keep gives a verified record to the ledger.
func (g *Gossip) keep(s sealed, c chain, now time.Time, paced bool) (reason string, fresh bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.ledger.Judge(s.record, s.raw) {
	case overlay.Same:
		return "", false
	case overlay.Old:
		return RefusedStale, false
	case overlay.Conflict:
		return RefusedClone, false
	case overlay.Full:
		return RefusedFull, false
	}
	// It may have been revoked since it was judged.
	_, err := g.cfg.Verifier.Authority(c, now)
	if r, ok := void(err); ok {
		return string(r), false
	}
	mine := s.record.Origin == g.cfg.Self
	if paced && !mine && !g.paceLocked(s.record.Origin, now) {
		return RefusedRate, false
	}
	// Bytes from outside lie in a message's buffer; what is kept gets its own,
	// so that one record does not hold a whole message in memory.
	g.ledger.Offer(s.record, g.cfg.Keep(s.raw))
	g.keepChainLocked(s.signer, c)
	if s.record.Key.Kind == overlay.KindRevocation {
		g.unsettled = true
	}
	if mine {
		// Somebody told this node what it once said itself. A later version than
		// this node has given is a clone's, or of a past that it has forgotten.
		g.own.dirty = true
		g.queues.wakeMaintainer()
		if g.own.told && !s.record.Version.Less(overlay.Version{Epoch: g.own.epoch}) {
			reason = RefusedClone
		}
	}
	return reason, true
}

// settle makes the revocations count that were accepted since the last time. To do
// so once for all that a message has is what lets a node hear of thousands.
func (g *Gossip) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.unsettled {
		return
	}
	g.unsettled = false
	g.enforceLocked()
	g.queues.wakeMaintainer() // whoever is void is put out
}

// keepChainLocked keeps the chain of a signer whose record is held now.
func (g *Gossip) keepChainLocked(signer fingerprint, c chain) {
	if _, known := g.chains[signer]; known {
		return
	}
	kept := make(chain, len(c))
	for i, der := range c {
		kept[i] = g.cfg.Keep(der)
	}
	g.chains[signer] = kept
}

// pruneEvery is how often chains are forgotten that nothing held was signed
// with, beside when records go: it looks at all records.
const pruneEvery = time.Minute

// pruneChainsLocked forgets the chains that nothing held was signed with.
func (g *Gossip) pruneChainsLocked() {
	used := make(map[fingerprint]bool, len(g.chains))
	g.ledger.Each(func(h overlay.Held) { used[signerOf(h.Raw)] = true })
	for fp := range g.chains {
		if !used[fp] {
			delete(g.chains, fp)
		}
	}
}

// forgetLocked forgets what is of no account any more of the origins' pace and
// of what was asked.
func (g *Gossip) forgetLocked() {
	for id, b := range g.pace {
		if b.full(g.cfg.Now()) {
			delete(g.pace, id)
		}
	}
	for id, q := range g.asked {
		if g.cfg.Now().Sub(q.at).Abs() > askAgain {
			delete(g.asked, id)
		}
	}
}

// signerOf reads the fingerprint out of sealed bytes that were accepted.
func signerOf(raw []byte) fingerprint { return fingerprint(raw[3 : 3+len(fingerprint{})]) }

// bucket is a token bucket: 0 <= tokens <= burst.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) fill(now time.Time, burst, perSecond float64) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*perSecond)
	}
	b.at = now
}

func (b *bucket) full(now time.Time) bool {
	b.fill(now, paceBurst, pacePerSecond)
	return b.tokens >= paceBurst
}

func (g *Gossip) paceLocked(id overlay.NodeID, now time.Time) bool {
	b := g.pace[id]
	if b == nil {
		b = &bucket{tokens: paceBurst, at: now}
		g.pace[id] = b
	}
	b.fill(now, paceBurst, pacePerSecond)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
