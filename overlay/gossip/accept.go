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
// offered are chains that came along. It reports whether the record is new here.
func (g *Gossip) accept(s sealed, offered map[fingerprint]chain, paced bool) bool {
	_, fresh := g.weigh(s, offered, paced)
	return fresh
}

// weigh is accept that says why not, too.
func (g *Gossip) weigh(s sealed, offered map[fingerprint]chain, paced bool) (reason string, fresh bool) {
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
	if errors.Is(err, overlay.RefusedRevoked) {
		return string(overlay.RefusedRevoked), false
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
	// Bytes from outside lie in a message's buffer; what is kept gets its own,
	// so that one record does not hold a whole message in memory.
	raw := append([]byte(nil), s.raw...)
	switch g.ledger.Judge(s.record, raw) {
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
	if _, err := g.cfg.Verifier.Authority(c, now); errors.Is(err, overlay.RefusedRevoked) {
		return string(overlay.RefusedRevoked), false
	}
	mine := s.record.Origin == g.cfg.Self
	if paced && !mine && !g.paceLocked(s.record.Origin, now) {
		return RefusedRate, false
	}
	g.ledger.Offer(s.record, raw)
	if _, known := g.chains[s.signer]; !known {
		g.chains[s.signer] = cloneChain(c)
	}
	if s.record.Key.Kind == overlay.KindRevocation {
		g.enforceLocked()
		g.queues.wakeMaintainer() // whoever is void is put out
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

func cloneChain(c chain) chain {
	out := make(chain, len(c))
	for i, der := range c {
		out[i] = append([]byte(nil), der...)
	}
	return out
}

// pruneChainsLocked forgets the chains that nothing held was signed with.
func (g *Gossip) pruneChainsLocked() {
	used := make(map[fingerprint]bool, len(g.chains))
	for _, id := range g.ledger.Origins() {
		for _, h := range g.ledger.Of(id) {
			used[signerOf(h.Raw)] = true
		}
	}
	for fp := range g.chains {
		if !used[fp] {
			delete(g.chains, fp)
		}
	}
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

// bucket is a token bucket: 0 <= tokens <= paceBurst.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at); d > 0 {
		b.tokens = min(paceBurst, b.tokens+d.Seconds()*pacePerSecond)
	}
	b.at = now
}

func (b *bucket) full(now time.Time) bool {
	b.fill(now)
	return b.tokens >= paceBurst
}

func (g *Gossip) paceLocked(id overlay.NodeID, now time.Time) bool {
	b := g.pace[id]
	if b == nil {
		b = &bucket{tokens: paceBurst, at: now}
		g.pace[id] = b
	}
	b.fill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
