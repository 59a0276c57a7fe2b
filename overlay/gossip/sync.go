package gossip

import (
	"math/rand/v2"
	"time"

	"slicewire/overlay"
)

// askAgain is how soon the same is asked for once more: when several members
// offer the same news of an origin, the first is asked.
const askAgain = 300 * time.Millisecond

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
	case typeSummary:
		g.answer(m, len(b), g.answerSummary)
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
	if !g.queues.send(job{to: m.sender.String(), make: func() [][]byte { return how(m) }, cost: size}) {
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
	var fresh [][]byte
	for _, s := range m.records {
		if g.accept(s, offered, true) {
			fresh = append(fresh, s.raw)
		}
	}
	if len(fresh) == 0 {
		return
	}
	g.signal()
	g.tellSessions(fresh, nil)
	if len(m.records) <= fewRecords {
		small, _ := g.broadcast(fresh)
		g.sendNow(small, relayAtOnce)
	}
}

// answerSummary asks for what is missing here and sends what the other has
// nothing of.
func (g *Gossip) answerSummary(m message) [][]byte {
	now := g.cfg.Now()
	g.mu.Lock()
	push, pull := g.ledger.Compare(m.summary)
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
	messages := g.recordMessagesLocked(raws)
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
	return append(g.recordMessagesLocked(raws), g.wantMessages(wants, true)...)
}

func (g *Gossip) sendTo(name string, messages [][]byte) {
	if len(messages) > 0 && !g.queues.send(job{to: name, make: func() [][]byte { return messages }}) {
		g.refused.add(RefusedQueue, 1)
	}
}

// summary says what is held here.
func (g *Gossip) summary() []byte {
	g.mu.Lock()
	s := g.ledger.Summary()
	g.mu.Unlock()
	b, err := encodeSummary(g.cfg.Self, s)
	if err != nil { // the ledger's bounds keep it within maxMessage
		g.log.Error("summary cannot be said", "err", err)
		return nil
	}
	return b
}

// recordMessagesLocked packs sealed records and the chains they need into as few
// messages as bulkMessage allows.
func (g *Gossip) recordMessagesLocked(raws [][]byte) [][]byte {
	var out [][]byte
	for len(raws) > 0 {
		chains := make(map[fingerprint]bool)
		var with []chain
		n, size := 0, 0
		for ; n < len(raws) && size < bulkMessage && len(with) < 200; n++ {
			fp := signerOf(raws[n])
			if c := g.chains[fp]; c != nil && !chains[fp] {
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
	g.tellMembers(raws)
}

func (g *Gossip) tellMembers(raws [][]byte) {
	if len(raws) > fewRecords {
		g.sendToAll(raws)
		return
	}
	small, large := g.broadcast(raws)
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
	names := g.members.names(g.cfg.Self.String())
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names[:min(len(names), members)] {
		// When the outbox is full, the broadcast has to do.
		g.queues.send(job{to: name, make: func() [][]byte { return messages }, packet: true})
	}
}

// broadcast puts each record that fits a packet, with its chain, into the
// broadcast queue, and returns these messages and the other records.
func (g *Gossip) broadcast(raws [][]byte) (messages, rest [][]byte) {
	n := g.net.Load()
	if n == nil {
		return nil, nil // whoever comes asks
	}
	for _, raw := range raws {
		g.mu.Lock()
		packed := g.recordMessagesLocked([][]byte{raw})
		g.mu.Unlock()
		s, err := unseal(raw)
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
	messages := g.recordMessagesLocked(raws)
	g.mu.Unlock()
	for _, name := range g.members.names(g.cfg.Self.String()) {
		g.sendTo(name, messages)
	}
}
