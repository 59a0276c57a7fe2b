package gateway

import (
	"net/netip"
	"sync"
	"time"
)

// crossingWindow is how long after our initiation one from the same address
// counts as sent at the same time: the longest way to another continent and
// back, and less than the first greeting.
const crossingWindow = 250 * time.Millisecond

// A crossing sorts out initiations of two nodes to each other that were under
// way in the same moment, as when both learn of each other at once. WireGuard
// would answer both and complete neither (each side forgets its own when it
// answers), or, its handshake workers running concurrently, agree on half a
// session. The node with the lesser public key therefore passes over the
// other's initiation, and its own counts.
//
// Should ours have been lost, the other node is heard at its next greeting.
type crossing struct {
	mu      sync.Mutex
	precede map[netip.AddrPort]bool          // configured endpoints: do we have the lesser key
	sent    map[netip.AddrPort]time.Duration // when we sent initiations to those that we precede
}

// setPeers says which endpoints belong to peers with a greater key than ours.
// An endpoint of two peers is nobody's: one cannot tell who speaks.
func (c *crossing) setPeers(own [32]byte, peers []Peer) {
	precede := make(map[netip.AddrPort]bool)
	for i := range peers {
		for _, e := range peers[i].Endpoints {
			_, twice := precede[e]
			precede[e] = !twice && lesser(own, peers[i].PublicKey)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.precede = precede
	c.sent = make(map[netip.AddrPort]time.Duration)
}

// note records an initiation of ours.
func (c *crossing) note(to netip.AddrPort, now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.precede[to] {
		c.sent[to] = now
	}
}

// ours reports whether an initiation from an address crossed one of ours that
// takes precedence.
func (c *crossing) ours(from netip.AddrPort, now time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.sent[from]
	return ok && now-at < crossingWindow
}
