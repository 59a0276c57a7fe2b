package lab

import (
	"math/rand/v2"
	"net/netip"
	"sync"
)

// chances are those of every flow, by one seed.
type chances struct {
	seed uint64

	mu    sync.RWMutex // guards flows
	flows map[flow]*source
}

// flow is a way between two hosts, for packets or for streams.
type flow struct {
	from, to netip.Addr
	stream   bool
}

// A source is the chance of one flow. Each has its own, so that a flow's fate
// does not depend on what others send meanwhile.
type source struct {
	mu  sync.Mutex // guards rng
	rng *rand.Rand
}

// roll calls f with the chance of a flow, which nobody else uses meanwhile.
func (c *chances) roll(way flow, f func(*rand.Rand)) {
	c.mu.RLock()
	s := c.flows[way]
	c.mu.RUnlock()
	if s == nil {
		c.mu.Lock()
		if s = c.flows[way]; s == nil {
			s = &source{rng: rand.New(rand.NewPCG(c.seed, way.hash()))}
			if c.flows == nil {
				c.flows = make(map[flow]*source)
			}
			c.flows[way] = s
		}
		c.mu.Unlock()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.rng)
}

// hash is FNV-1a of both addresses and the kind.
func (f flow) hash() uint64 {
	h := uint64(14695981039346656037)
	mix := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for _, a := range []netip.Addr{f.from, f.to} {
		for _, b := range a.As16() {
			mix(b)
		}
	}
	if f.stream {
		mix(1)
	}
	return h
}
