package gateway

import (
	"sync"
	"sync/atomic"
)

const (
	// trainBytes holds the longest datagram, or the longest train of datagrams
	// that UDP_GRO joins.
	trainBytes = 64 << 10
	// mediumBytes and smallBytes (one datagram of an ordinary underlay): what
	// fits is copied into a buffer of this size, so that a queue of it does not
	// pin 64 KiB each.
	mediumBytes = 16 << 10
	smallBytes  = 2 << 10
	// What lies unused is bounded: enough for the steady state, the rest goes
	// to the garbage collector.
	trainsKept  = 32
	mediumsKept = 64
	smallsKept  = 512
)

// A buffer holds received datagrams. Whoever got it holds one reference; each
// run that points into it holds another; the last release returns it.
type buffer struct {
	b    []byte
	refs atomic.Int32
	pool *bufferPool
}

func (b *buffer) retain() { b.refs.Add(1) }

func (b *buffer) release() {
	switch n := b.refs.Add(-1); {
	case n == 0:
		b.pool.put(b)
	case n < 0:
		panic("gateway: buffer released twice")
	}
}

// A bufferPool keeps unused buffers of one size, the most recently used on
// top: a small working set stays in the processor's cache.
type bufferPool struct {
	size int
	keep int

	mu   sync.Mutex
	free []*buffer
}

// get returns a buffer with one reference.
func (p *bufferPool) get() *buffer {
	p.mu.Lock()
	var b *buffer
	if n := len(p.free); n > 0 {
		b = p.free[n-1]
		p.free[n-1] = nil
		p.free = p.free[:n-1]
	}
	p.mu.Unlock()
	if b == nil {
		b = &buffer{b: make([]byte, p.size), pool: p}
	}
	b.refs.Store(1)
	return b
}

func (p *bufferPool) put(b *buffer) {
	p.mu.Lock()
	if len(p.free) < p.keep {
		p.free = append(p.free, b)
	}
	p.mu.Unlock()
}
