package gossip

import (
	"slices"
	"time"

	"slicewire/overlay"
)

// askAgain is how soon the same is asked for once more: when several members
// offer the same news of an origin, the first is asked.
const askAgain = 300 * time.Millisecond

// answerLate is how long a question may wait for its answer. By then others have
// told the asker much of what it lacked, and while many ask at once nobody is
// helped by telling everything to each three times: it hears instead what there
// is, and asks for what it lacks still.
const answerLate = 2 * time.Second

// A question is what was asked for, and when.
type question struct {
	digest [16]byte
	at     time.Time
}

// fewRecords is how many records a message holds that came by broadcast, or
// that goes out by broadcast. More travel by stream.
const fewRecords = 8

// handle works on one message from the network.
func (g *Gossip) handle(b []byte) {
	m, err := decodeMessage(b)
	if err != nil {
		g.refused.add(RefusedMalformed, 1)
		return
	}
	switch m.kind {
	case typeRecords:
		g.takeRecords(m)
	case typeSummary, typePart:
		g.answer(m, len(b), g.answerSummary)
	case typeDigests:
		g.answer(m, len(b), g.answerDigests)
	case typeWant:
		g.answer(m, len(b), g.answerWants)
	}
}

// answer has a question answered when its turn comes, by what is held then: an
// answer may be a thousand times as long as its question, and must not wait in
// memory. A sender that is not known yet will be told what is held here when it
// is.
func (g *Gossip) answer(m message, size int, how func(message) [][]byte) {
	if m.sender == g.cfg.Self || g.members.find(m.sender.String()) == nil {
		return
	}
	// What digests ask for, they ask for again if it gets lost.
	fit := m.kind == typeDigests || m.kind == typePart
	asked := time.Now()
	late := func() [][]byte {
		if time.Since(asked) > answerLate {
			return [][]byte{g.state()}
		}
		return how(m)
	}
	if !g.queues.send(job{to: m.sender.String(), fit: fit, make: late, cost: size}) {
		g.refused.add(RefusedQueue, 1)
	}
}

// takeRecords judges what came, and passes small news on once.
func (g *Gossip) takeRecords(m message) {
	g.refused.add(RefusedMalformed, m.refused)
	offered := make(map[fingerprint]chain, len(m.chains))
	for _, c := range m.chains {
		offered[c.leaf()] = c
	}
	few := len(m.records) <= fewRecords
	if !few {
		g.mu.Lock()
		g.filled = time.Now()
		g.mu.Unlock()
	}
	var fresh [][]byte
	for _, s := range m.records {
		reason, isNew := g.accept(s, offered, true)
		if isNew {
			fresh = append(fresh, s.raw)
		}
		if few && reason == RefusedNoCert {
			g.askSigner(s.record.Origin)
		}
	}
	g.settle()
	if len(fresh) == 0 {
		return
	}
	g.signal()
	g.tellSessions(fresh, nil)
	if few {
		g.passOn(fresh, len(m.chains) > 0) // as it came
	}
}

// passOn tells members a few records of others that are new here, as far as its
// pace allows; a revocation waits for nothing.
func (g *Gossip) passOn(fresh [][]byte, chained bool) {
	urgent := slices.ContainsFunc(fresh, func(raw []byte) bool {
		s, err := unseal(raw)
		return err == nil && s.record.Origin.Site == ""
	})
	if len(fresh) == 0 || !urgent && !g.mayRelay(len(fresh), time.Now()) {
		return
	}
	small, _ := g.broadcast(fresh, chained)
	g.sendNow(small, relayAtOnce)
}

// Pace of what this node passes on of what others say. When a whole mesh starts,
// or changes at once, passing everything on would keep all of it busy for
// minutes; summaries then carry it, many records in one answer.
const (
	relayBurst     = 64
	relayPerSecond = 8
)

// mayRelay reports whether so many records may be passed on now.
func (g *Gossip) mayRelay(records int, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.relays.fill(now, relayBurst, relayPerSecond)
	if g.relays.tokens < float64(records) {
		return false
	}
	g.relays.tokens -= float64(records)
	return true
}

// askSigner asks a member for what it says, of which news came without the
// certificate it was signed with.
func (g *Gossip) askSigner(id overlay.NodeID) {
	if g.members.find(id.String()) == nil {
		return // summaries will tell, if it is anybody
	}
	now := g.cfg.Now()
	g.mu.Lock()
	again := now.Sub(g.asked[id].at).Abs() < askAgain
	if !again {
		g.asked[id] = question{at: now}
	}
	marks := g.ledger.Marks(id)
	g.mu.Unlock()
	if !again {
		g.sendTo(id.String(), g.wantMessages([]want{{origin: id, marks: marks}}, false))
	}
}

// answerSummary asks for what is missing here and sends what the other has
// nothing of.
func (g *Gossip) answerSummary(m message) [][]byte {
	now := g.cfg.Now()
	g.mu.Lock()
	push, pull := g.ledger.Compare(m.summary, m.parts)
	var raws [][]byte
	for _, id := range push {
		raws = append(raws, g.ledger.Missing(id, nil)...)
	}
	offered := make(map[overlay.NodeID]question, len(m.summary))
	for _, s := range m.summary {
		offered[s.Origin] = question{s.Digest, now}
	}
	var wants []want
	for _, id := range pull {
		if q := g.asked[id]; q.digest == offered[id].digest && now.Sub(q.at).Abs() < askAgain {
			continue
		}
		g.asked[id] = offered[id]
		wants = append(wants, want{origin: id, marks: g.ledger.Marks(id)})
	}
	messages := g.recordMessagesLocked(raws, true)
	g.mu.Unlock()
	return append(messages, g.wantMessages(wants, false)...)
}

// answerWants sends what is held beyond the marks, and asks back where the marks
// tell of something that is missing here. That question gives rise to no other:
// two nodes of which one refuses what the other holds would never end.
func (g *Gossip) answerWants(m message) [][]byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	var raws [][]byte
	var wants []want
	seen := make(map[overlay.NodeID]bool)
	for _, w := range m.wants {
		if !seen[w.origin] {
			seen[w.origin] = true
			raws = append(raws, g.ledger.Missing(w.origin, w.marks)...)
			if !m.back && g.ledger.Lacks(w.origin, w.marks) {
				wants = append(wants, want{origin: w.origin, marks: g.ledger.Marks(w.origin)})
			}
		}
	}
	return append(g.recordMessagesLocked(raws, true), g.wantMessages(wants, true)...)
}

func (g *Gossip) sendTo(name string, messages [][]byte) {
	if len(messages) > 0 && !g.queues.send(job{to: name, make: func() [][]byte { return messages }}) {
		g.refused.add(RefusedQueue, 1)
	}
}

// recordMessagesLocked packs sealed records, and the chains they need if chained,
// into as few messages as bulkMessage allows.
func (g *Gossip) recordMessagesLocked(raws [][]byte, chained bool) [][]byte {
	var out [][]byte
	for len(raws) > 0 {
		chains := make(map[fingerprint]bool)
		var with []chain
		n, size := 0, 0
		for ; n < len(raws) && size < bulkMessage && len(with) < 200; n++ {
			fp := signerOf(raws[n])
			if c := g.chains[fp]; chained && c != nil && !chains[fp] {
				chains[fp] = true
				with = append(with, c)
				for _, der := range c {
					size += len(der)
				}
			}
			size += len(raws[n])
		}
		if b, err := encodeRecords(with, raws[:n]); err == nil {
			out = append(out, b)
		} else {
			g.log.Error("records cannot be said", "err", err)
		}
		raws = raws[n:]
	}
	return out
}

// wantMessages packs questions into messages of bounded size.
func (g *Gossip) wantMessages(wants []want, back bool) [][]byte {
	const markSize = 32
	var out [][]byte
	for len(wants) > 0 {
		n, size := 0, 0
		for ; n < len(wants) && size < bulkMessage; n++ {
			size += 2*64 + len(wants[n].marks)*markSize
		}
		if b, err := encodeWants(g.cfg.Self, wants[:n], back); err == nil {
			out = append(out, b)
		} else {
			g.log.Error("questions cannot be said", "err", err)
		}
		wants = wants[n:]
	}
	return out
}

// publish tells everybody what this node has signed.
func (g *Gossip) publish(raws [][]byte) {
	if len(raws) == 0 {
		return
	}
	g.signal()
	g.tellSessions(raws, nil)
	g.tellMembers(raws, g.isNews())
}

// tellMembers tells all members what this node, or a leaf of it, has signed, with
// the certificate if chained.
func (g *Gossip) tellMembers(raws [][]byte, chained bool) {
	if len(raws) > fewRecords {
		g.sendToAll(raws)
		return
	}
	small, large := g.broadcast(raws, chained)
	g.sendToAll(large)
	g.sendNow(small, tellAtOnce)
}

// To how many members, chosen at random, news goes at once: broadcasts wait for
// the next round of gossip.
const (
	tellAtOnce  = 16 // this node's own
	relayAtOnce = 3  // another's
)

func (g *Gossip) sendNow(messages [][]byte, members int) {
	if len(messages) == 0 {
		return
	}
	for _, name := range g.members.some(g.cfg.Self.String(), members) {
		// When the outbox is full, the broadcast has to do.
		g.queues.send(job{to: name, make: func() [][]byte { return messages }, packet: true})
	}
}

// newChain is how long after this node's certificate was first used it goes with
// every record. Nearly all have it then, and it is two thirds of a message. Who
// has not asks, see askSigner.
const newChain = time.Minute

// isNews reports whether others may not know the certificate yet that this node
// signs with.
func (g *Gossip) isNews() bool {
	_, fp := g.ownChain()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.own.signer != fp {
		g.own.signer, g.own.since = fp, time.Now()
	}
	return time.Since(g.own.since) < newChain
}

// broadcast puts each record that fits a packet, with or without its chain, into
// the broadcast queue, and returns these messages and the other records.
func (g *Gossip) broadcast(raws [][]byte, chained bool) (messages, rest [][]byte) {
	n := g.net.Load()
	if n == nil {
		return nil, nil // whoever comes asks
	}
	for _, raw := range raws {
		s, err := unseal(raw)
		with := chained || s.record.Origin.Site == "" // issuers are rare, and revocations urgent
		g.mu.Lock()
		packed := g.recordMessagesLocked([][]byte{raw}, with)
		g.mu.Unlock()
		if err != nil || len(packed) != 1 || len(packed[0]) > n.packetRoom {
			rest = append(rest, raw)
			continue
		}
		messages = append(messages, packed[0])
		n.broadcasts.QueueBroadcast(newBroadcast(s.record, packed[0]))
		n.broadcasts.Prune(maxBroadcasts)
	}
	return messages, rest
}

func (g *Gossip) sendToAll(raws [][]byte) {
	if len(raws) == 0 {
		return
	}
	g.mu.Lock()
	messages := g.recordMessagesLocked(raws, true)
	g.mu.Unlock()
	for _, name := range g.members.names(g.cfg.Self.String()) {
		g.sendTo(name, messages)
	}
}
