package socks

import (
	"sync"
	"sync/atomic"

	"slicewire/netstack/pump"
	"slicewire/overlay"
)

// Stats are totals since New, and what is open now.
type Stats struct {
	Conns        int               // clients connected
	Associations int               // UDP associations open
	Accepted     uint64            // clients taken
	Refused      uint64            // clients reset because there were too many
	Failed       map[string]uint64 // requests that failed, by reason
	BytesUp      uint64            // TCP payload from clients to the slice
	BytesDown    uint64            // TCP payload from the slice to clients
	DatagramsUp  uint64            // UDP, clients to slice
	DatagramsDn  uint64            // UDP, slice to clients
	Dropped      map[string]uint64 // datagrams lost, by overlay.Drop
}

type counters struct {
	conns, associations atomic.Int64
	accepted, refused   atomic.Uint64
	up, down            atomic.Uint64 // datagrams
	bytes               pump.Bytes
	drops               overlay.Drops
	mu                  sync.Mutex
	failed              map[string]uint64
}

// fail counts a failed request. Reasons are ours, never a client's words.
func (c *counters) fail(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = make(map[string]uint64)
	}
	c.failed[reason]++
}

// Stats returns the counts. A connection's bytes are in them while it lasts.
func (s *Server) Stats() Stats {
	c := &s.stats
	st := Stats{
		Conns:        int(c.conns.Load()),
		Associations: int(c.associations.Load()),
		Accepted:     c.accepted.Load(),
		Refused:      c.refused.Load(),
		Failed:       make(map[string]uint64),
		BytesUp:      c.bytes.Up.Load(),
		BytesDown:    c.bytes.Down.Load(),
		DatagramsUp:  c.up.Load(),
		DatagramsDn:  c.down.Load(),
		Dropped:      c.drops.Snapshot(),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range c.failed {
		st.Failed[k] = v
	}
	return st
}
