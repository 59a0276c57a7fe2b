package gossip

import (
	"errors"
	"fmt"
	"time"

	"slicewire/overlay"
)

// revocationsWith is how many members revocations are compared with at a time, in
// every maintainEvery. Broadcasts get lost in a partition, and full summaries
// are too rare for what has to hold ten seconds after it heals.
const revocationsWith = 3

// SealRevocation signs a revocation as an issuer and returns it as Announce
// takes it. It holds until the given time, in whole seconds, which is no later
// than the issuer's own end. id is the issuer's, as its Authority says.
func SealRevocation(issuer Signer, id overlay.NodeID, r overlay.Revocation, until time.Time) ([]byte, error) {
	rec := r.Record()
	rec.Origin, rec.NotAfter = id, until.UTC().Truncate(time.Second)
	c := chain(issuer.Chain())
	body, err := encodeBody(rec, c.leaf())
	if err != nil {
		return nil, err
	}
	return encodeRecords([]chain{c}, [][]byte{seal(body, issuer.Sign(signRecord, body))})
}

// Announce takes in what SealRevocation made, wherever it was made, and tells
// everybody. It is judged like what comes from the network. What is known
// already is no error.
func (g *Gossip) Announce(message []byte) error {
	m, err := decodeMessage(message)
	if err != nil {
		return err
	}
	if m.kind != typeRecords || m.refused != 0 || len(m.records) != 1 || m.records[0].record.Key.Kind != overlay.KindRevocation {
		return errors.New("this is not a signed revocation")
	}
	offered := make(map[fingerprint]chain)
	for _, c := range m.chains {
		offered[c.leaf()] = c
	}
	reason, fresh := g.judge(m.records[0], offered, false)
	switch {
	case reason == RefusedStale: // a later one of the same node and issuer is held
		return nil
	case reason != "":
		return fmt.Errorf("revocation of %s: %w", m.records[0].record.Key.Name, overlay.Refusal(reason))
	}
	if fresh {
		g.publish([][]byte{m.records[0].raw})
	}
	return nil
}

// Chains returns the certificate chains that stand behind the records held, DER,
// leaf first. The caller does not change them.
func (g *Gossip) Chains() [][][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([][][]byte, 0, len(g.chains))
	for _, fp := range sortedPrints(g.chains) {
		out = append(out, g.chains[fp])
	}
	return out
}

// enforceLocked makes the revocations held count: the verifier learns them, and
// every record goes whose certificate they make void. Among these may be
// revocations themselves, by an issuer whose key was revoked; then the rest
// counts without them. It returns how many records went.
func (g *Gossip) enforceLocked() int {
	gone := 0
	for {
		g.cfg.Verifier.Revoke(g.revocationsLocked())
		now := g.cfg.Now()
		void := make(map[fingerprint]bool)
		for fp, c := range g.chains {
			_, err := g.cfg.Verifier.Authority(c, now)
			void[fp] = errors.Is(err, overlay.RefusedRevoked)
		}
		again := false
		n := g.ledger.Drop(func(h overlay.Held) bool {
			drop := void[signerOf(h.Raw)]
			again = again || drop && h.Record.Key.Kind == overlay.KindRevocation
			return drop
		})
		gone += n
		if n > 0 {
			g.log.Warn("records of revoked certificates dropped", "records", n)
		}
		if !again {
			return gone
		}
	}
}

func (g *Gossip) revocationsLocked() []overlay.Revocation {
	var out []overlay.Revocation
	for _, id := range g.ledger.Issuers() {
		for _, h := range g.ledger.Of(id) {
			if r, ok := overlay.RevocationOf(h.Record); ok {
				out = append(out, r)
			}
		}
	}
	return out
}

// compareRevocations asks a few members for revocations beyond those held here.
// Who has fewer than this node learns of it by the same question, and asks back.
func (g *Gossip) compareRevocations(n *network) {
	g.mu.Lock()
	var wants []want
	for _, id := range g.ledger.Issuers() {
		if marks := g.ledger.Marks(id); len(marks) > 0 {
			wants = append(wants, want{origin: id, marks: marks})
		}
	}
	g.mu.Unlock()
	messages := g.wantMessages(wants, false)
	if len(messages) == 0 {
		return
	}
	small := len(messages) == 1 && len(messages[0]) <= n.packetRoom
	for _, name := range g.members.some(g.cfg.Self.String(), revocationsWith) {
		// When the outbox is full, the next round has to do.
		g.queues.send(job{to: name, make: func() [][]byte { return messages }, packet: small})
	}
}
