package gossip

import (
	"math/rand/v2"
	"strings"
	"time"

	"slicewire/overlay"
)

// How a new member is told what is known, and tells what it knows. It has
// exchanged summaries with the one that let it in. In a mesh of few, all others
// send it theirs at once: nothing is faster. A summary is as long as the mesh is
// large, and there are as many, so in a mesh of many only some do. The others
// expect its news by broadcast, and ask it afterwards for what they missed of
// what it has to say itself: each at another time, in a packet that is answered
// only if something is missing.
const (
	greeters = 32
	// askSpread times the number of members is how long it takes until all have
	// asked: twenty a second.
	askSpread = 50 * time.Millisecond
	// maxNewcomers bounds those to be asked. In a mesh that comes together, of
	// more than so many, the rest are found by summaries.
	maxNewcomers = 1024
)

// greet tells a new member what is known here, or remembers to ask it. It is
// called with memberlist's lock held.
func (g *Gossip) greet(name string) {
	if n := g.members.count(); rand.IntN(n) >= greeters {
		id := memberID(name)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.newcomers) < maxNewcomers {
			g.newcomers[id] = time.Now().Add(rand.N(askSpread * time.Duration(n)))
		}
		return
	}
	if !g.queues.send(job{to: name, make: func() [][]byte { return [][]byte{g.summary()} }}) {
		g.refused.add(RefusedQueue, 1)
	}
}

// askNewcomers asks those whose time has come.
func (g *Gossip) askNewcomers(n *network) {
	var ask []want
	g.mu.Lock()
	for id, at := range g.newcomers {
		if !time.Now().Before(at) {
			delete(g.newcomers, id)
			ask = append(ask, want{origin: id, marks: g.ledger.Marks(id)})
		}
	}
	g.mu.Unlock()
	g.ask(n, ask, true)
}

// askWith is how many members are asked, in every maintainEvery, for what they
// have to say themselves. A cut that is over before anybody counts as dead is
// noticed by nobody, and what was said meanwhile is not said again: without
// these questions it waits for the next summaries to cross what was the cut. So
// everybody is asked by as many others as often, however large the mesh is.
const askWith = 4

// askSome asks a few members, chosen at random.
func (g *Gossip) askSome(n *network) {
	names := g.members.names(g.cfg.Self.String())
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var ask []want
	g.mu.Lock()
	for _, name := range names[:min(len(names), askWith)] {
		id := memberID(name)
		ask = append(ask, want{origin: id, marks: g.ledger.Marks(id)})
	}
	g.mu.Unlock()
	g.ask(n, ask, false)
}

// ask asks each origin itself for what it has to say beyond the marks. Those of
// an origin with many records do not fit a packet; they go by stream, or if not
// large are left to summaries.
func (g *Gossip) ask(n *network, wants []want, large bool) {
	for _, w := range wants {
		messages := g.wantMessages([]want{w}, false)
		small := len(messages) == 1 && len(messages[0]) <= n.packetRoom
		if !small && !large {
			continue
		}
		// When the outbox is full, summaries have to do.
		g.queues.send(job{to: w.origin.String(), make: func() [][]byte { return messages }, packet: small})
	}
}

func memberID(name string) overlay.NodeID {
	site, node, _ := strings.Cut(name, "/")
	return overlay.NodeID{Site: site, Node: node}
}
