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
// expect its news by broadcast, and ask it for that only which it has to say
// itself, and only if nothing comes: each at another time, for it has to answer
// them all.
const (
	greeters = 32
	// askSpread times the number of members is how long it takes until all have
	// asked. A member answers 33 a second over a distance of 30 ms.
	askSpread = 50 * time.Millisecond
	// maxNewcomers bounds those to be asked. In a mesh that comes together, of
	// more than so many, the rest are found by summaries.
	maxNewcomers = 1024
)

// A newcomer is to be asked at a time, unless it is heard of before.
type newcomer struct {
	at     time.Time
	newest overlay.Version // what was seen of it when it came
}

// greet tells a new member what is known here, or remembers to ask it. It is
// called with memberlist's lock held.
func (g *Gossip) greet(name string) {
	if n := g.members.count(); rand.IntN(n) >= greeters {
		id := memberID(name)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.newcomers) < maxNewcomers {
			g.newcomers[id] = newcomer{time.Now().Add(rand.N(askSpread * time.Duration(n))), g.ledger.Newest(id)}
		}
		return
	}
	if !g.queues.send(job{to: name, make: func() [][]byte { return [][]byte{g.summary()} }}) {
		g.refused.add(RefusedQueue, 1)
	}
}

// askNewcomers asks those whose time has come and of whom nothing was heard.
func (g *Gossip) askNewcomers() {
	g.mu.Lock()
	var ask []want
	for id, n := range g.newcomers {
		if time.Now().Before(n.at) {
			continue
		}
		delete(g.newcomers, id)
		if g.ledger.Newest(id) == n.newest {
			ask = append(ask, want{origin: id, marks: g.ledger.Marks(id)})
		}
	}
	g.mu.Unlock()
	for _, w := range ask {
		g.sendTo(w.origin.String(), g.wantMessages([]want{w}, false))
	}
}

func memberID(name string) overlay.NodeID {
	site, node, _ := strings.Cut(name, "/")
	return overlay.NodeID{Site: site, Node: node}
}
