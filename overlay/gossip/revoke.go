package gossip

import (
	"encoding/hex"
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
// than the issuer's own end. id is the issuer's, as its Authority says. again is
// higher when the same is said once more with another certificate, else 0.
func SealRevocation(issuer Signer, id overlay.NodeID, r overlay.Revocation, until time.Time, again uint64) ([]byte, error) {
	rec := r.Record()
	rec.Origin, rec.NotAfter, rec.Version.Seq = id, until.UTC().Truncate(time.Second), again
	return sealForAnnounce(issuer, rec)
}

// SealRoot signs what the mesh's next authority says of itself, as that
// authority, and returns it as Announce takes it. key is the SHA-256 of its
// public key; serial is higher for a later statement; it holds until the given
// time, in whole seconds, which is no later than the end of the signer's
// certificate.
func SealRoot(root Signer, key [32]byte, statement []byte, serial uint64, until time.Time) ([]byte, error) {
	return sealForAnnounce(root, overlay.Record{
		Origin: overlay.NodeID{Node: overlay.IssuerName(key)}, Key: overlay.Key{Kind: overlay.KindRoot, Name: hex.EncodeToString(key[:])},
		Version: overlay.Version{Epoch: serial}, NotAfter: until.UTC().Truncate(time.Second), Root: &overlay.RootBody{Statement: statement},
	})
}

func sealForAnnounce(s Signer, rec overlay.Record) ([]byte, error) {
	c := chain(s.Chain())
	body, err := encodeBody(rec, c.leaf())
	if err != nil {
		return nil, err
	}
	return encodeRecords([]chain{c}, [][]byte{seal(body, s.Sign(signRecord, body))})
}

// Announce takes in what SealRevocation or SealRoot made, wherever it was made,
// and tells everybody. It is judged like what comes from the network. What is
// known already is no error.
func (g *Gossip) Announce(message []byte) error {
	m, err := decodeMessage(message)
	if err != nil {
		return err
	}
	if m.kind != typeRecords || m.refused != 0 || len(m.records) != 1 {
		return errNotAnnounced
	}
	r := m.records[0].record
	if r.Key.Kind != overlay.KindRevocation && r.Key.Kind != overlay.KindRoot {
		return errNotAnnounced
	}
	offered := make(map[fingerprint]chain)
	for _, c := range m.chains {
		offered[c.leaf()] = c
	}
	reason, fresh := g.judge(m.records[0], offered, false)
	g.settle()
	switch {
	case reason == RefusedStale: // a later one of the same node and issuer is held
		return nil
	case reason != "":
		return fmt.Errorf("record of kind %d about %s: %w", r.Key.Kind, r.Key.Name, overlay.Refusal(reason))
	}
	if fresh {
		g.publish([][]byte{m.records[0].raw})
	}
	return nil
}

var errNotAnnounced = errors.New("this is neither a signed revocation nor the statement of an authority")

// SignedBy returns the records held that were signed with the certificate at the
// head of a chain.
func (g *Gossip) SignedBy(c [][]byte) (out []overlay.Record) {
	leaf := chain(c).leaf()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range g.ledger.Origins() {
		for _, h := range g.ledger.Of(id) {
			if signerOf(h.Raw) == leaf {
				out = append(out, h.Record)
			}
		}
	}
	return out
}

// Enforce drops every record whose certificate is void by now. Call it when the
// Verifier has changed its mind by itself.
func (g *Gossip) Enforce() {
	g.mu.Lock()
	n := g.enforceLocked()
	g.mu.Unlock()
	if n > 0 {
		g.signal()
	}
}

// void returns why a certificate is void for good, if that is what err says.
func void(err error) (overlay.Refusal, bool) {
	for _, r := range []overlay.Refusal{overlay.RefusedRevoked, overlay.RefusedRetired, overlay.RefusedFork} {
		if errors.Is(err, r) {
			return r, true
		}
	}
	return "", false
}

// Chains returns the certificate chains that stand behind the records held, DER,
// leaf first. The caller does not change them.
func (g *Gossip) Chains() [][][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pruneChainsLocked()
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
	total := 0
	for {
		g.cfg.Verifier.Revoke(g.revocationsLocked())
		now := g.cfg.Now()
		gone := make(map[fingerprint]bool)
		for fp, c := range g.chains {
			_, err := g.cfg.Verifier.Authority(c, now)
			_, gone[fp] = void(err)
		}
		again := false
		n := g.ledger.Drop(func(h overlay.Held) bool {
			drop := gone[signerOf(h.Raw)]
			again = again || drop && h.Record.Key.Kind == overlay.KindRevocation
			return drop
		})
		total += n
		if n > 0 {
			g.own.next = time.Time{} // some may be this node's
			g.log.Warn("records of void certificates dropped", "records", n)
		}
		if !again {
			return total
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
