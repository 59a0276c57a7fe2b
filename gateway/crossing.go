package gateway

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// crossingWindow is how long after an initiation one in the other direction
	// counts as made at the same time: the longest way to another continent and
	// back, and less than the first greeting.
	crossingWindow = 250 * time.Millisecond
	// answerAgain is how soon another initiation from the same address may hold
	// back ours once more: whoever forges them cannot silence us.
	answerAgain = 2 * time.Second

	// never is long before any time since the mux was made.
	never = -time.Hour
)

// A crossing sorts out initiations of two nodes to each other that are made in
// the same moment, as when both learn of each other at once. WireGuard would
// answer both and complete neither (each side forgets its own when it answers),
// or, its handshake workers running concurrently, agree on half a session, over
// which packets go one way only until the session ages. Of two that are under
// way, the node with the lesser public key passes over the other's, and its own
// counts; and a node that is about to answer makes none of its own.
//
// Should the one that counts be lost, the next greeting repairs it.
type crossing struct {
	mu    sync.Mutex
	peers map[netip.AddrPort]*exchange // by configured endpoint, of one peer only
}

// An exchange is what was said lately with one endpoint. Times are the mux's.
type exchange struct {
	precede bool          // we have the lesser key
	sent    time.Duration // our last initiation
	came    time.Duration // the last initiation from there that went to the device
}

// setPeers says which endpoints belong to peers. An endpoint of two peers is
// nobody's: one cannot tell who speaks. What is under way stays known.
func (c *crossing) setPeers(own [32]byte, peers []Peer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[netip.AddrPort]*exchange)
	for i := range peers {
		for _, at := range peers[i].Endpoints {
			if _, twice := next[at]; twice {
				next[at] = nil
				continue
			}
			e := &exchange{sent: never, came: never}
			if old := c.peers[at]; old != nil {
				*e = *old
			}
			e.precede = lesser(own, peers[i].PublicKey)
			next[at] = e
		}
	}
	c.peers = next
}

// send reports whether an initiation of ours may go out, and notes it.
func (c *crossing) send(to netip.AddrPort, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.peers[to]
	if e == nil {
		return true
	}
	if now-e.came < crossingWindow {
		return false
	}
	e.sent = now
	return true
}

// receive reports whether an initiation from an address is to be answered, and
// notes it.
func (c *crossing) receive(from netip.AddrPort, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.peers[from]
	if e == nil {
		return true
	}
	if e.precede && now-e.sent < crossingWindow {
		return false
	}
	if now-e.came >= answerAgain {
		e.came = now
	}
	return true
}

// answering reports whether an initiation from one of the addresses is being
// answered, so that making one now would only disturb that.
func (c *crossing) answering(at []netip.AddrPort, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range at {
		if e := c.peers[a]; e != nil && now-e.came < crossingWindow {
			return true
		}
	}
	return false
}
