package gossip

import (
	"math/rand/v2"
	"strings"

	"slicewire/overlay"
)

// How a new member is told what is known, and tells what it knows. It exchanges
// states with the one that lets it in, which tells it everything. In a mesh of
// few, all others send it their state at once: nothing is faster. In a mesh of
// many, so many of them, chosen at random, ask for what it says of itself, in a
// packet, and pass it on; digests carry it to whoever it does not reach.
const greeters = 32

// greet tells a new member what is known here, or asks it. It is called with
// memberlist's lock held.
func (g *Gossip) greet(name string) {
	if rand.IntN(g.members.count()) >= greeters {
		return
	}
	j := job{to: name, fit: true, make: func() [][]byte {
		g.mu.Lock()
		if g.ledger.Len() <= fewOrigins {
			g.mu.Unlock()
			return [][]byte{g.state()}
		}
		id := memberID(name)
		ask := []want{{origin: id, marks: g.ledger.Marks(id)}}
		g.mu.Unlock()
		return g.wantMessages(ask, false)
	}}
	if !g.queues.send(j) {
		g.refused.add(RefusedQueue, 1)
	}
}

func memberID(name string) overlay.NodeID {
	site, node, _ := strings.Cut(name, "/")
	return overlay.NodeID{Site: site, Node: node}
}
