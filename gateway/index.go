package gateway

import (
	"sync"
	"sync/atomic"
)

const (
	// indexShards divides the table so that learning an index copies little.
	indexShards = 256
	// indexMax bounds the table: some 30 indices for each of 2,000 peers.
	indexMax = 1 << 16

	// Lifetimes in seconds. An initiation is answered within seconds or made
	// again; a session that was agreed is dead after 180 s (whitepaper 6.1); one
	// in use is renewed long before ten idle minutes are over.
	awaitedSeconds = 30
	agreedSeconds  = 240
	usedSeconds    = 600
)

// A session says which slice a receiver index belongs to.
type session struct {
	to   *bind
	seen atomic.Int64 // seconds; when it was learnt or last looked up
	life atomic.Int64 // seconds that it stays without being looked up
}

// An index finds sessions by receiver index. Looking up takes no lock; each
// shard is an immutable map that learning replaces.
type index struct {
	shards [indexShards]atomic.Pointer[map[uint32]*session]

	mu sync.Mutex // one writer at a time
	n  int        // entries
}

// find returns the slice of a receiver index, or nil. now is in seconds.
func (x *index) find(id uint32, now int64) *bind {
	m := x.shards[id%indexShards].Load()
	if m == nil {
		return nil
	}
	s := (*m)[id]
	if s == nil {
		return nil
	}
	if s.seen.Load() != now {
		s.seen.Store(now)
	}
	if s.life.Load() != usedSeconds {
		s.life.Store(usedSeconds)
	}
	return s.to
}

// learn notes that messages with this receiver index are for to. Should two
// slices have drawn the same number, the later one has it and the other's
// handshake is repeated.
func (x *index) learn(id uint32, to *bind, now, life int64) {
	s := &session{to: to}
	s.seen.Store(now)
	s.life.Store(life)
	x.mu.Lock()
	defer x.mu.Unlock()
	shard := &x.shards[id%indexShards]
	m := copyMap(shard.Load())
	if m[id] == nil && x.n >= indexMax {
		if !x.evictLocked(m, now) {
			return // nothing else in this shard; the peer tries again with another number
		}
	}
	if m[id] == nil {
		x.n++
	}
	m[id] = s
	shard.Store(&m)
}

// evictLocked makes room for one in a full table: what has expired, or else any
// one, as map order is random.
func (x *index) evictLocked(m map[uint32]*session, now int64) bool {
	for id, s := range m {
		if s.expired(now) {
			delete(m, id)
			x.n--
		}
	}
	if x.n < indexMax {
		return true
	}
	for id := range m {
		delete(m, id)
		x.n--
		return true
	}
	return false
}

func copyMap(old *map[uint32]*session) map[uint32]*session {
	if old == nil {
		return make(map[uint32]*session, 1)
	}
	m := make(map[uint32]*session, len(*old)+1)
	for k, v := range *old {
		m[k] = v
	}
	return m
}

func (s *session) expired(now int64) bool { return now-s.seen.Load() > s.life.Load() }

// sweep forgets what has not been used for its lifetime.
func (x *index) sweep(now int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropLocked(func(s *session) bool { return s.expired(now) })
}

// forget removes every index of a slice.
func (x *index) forget(to *bind) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.dropLocked(func(s *session) bool { return s.to == to })
}

func (x *index) dropLocked(gone func(*session) bool) {
	for i := range x.shards {
		old := x.shards[i].Load()
		if old == nil {
			continue
		}
		left := make(map[uint32]*session, len(*old))
		for id, s := range *old {
			if !gone(s) {
				left[id] = s
			}
		}
		if len(left) == len(*old) {
			continue
		}
		x.n -= len(*old) - len(left)
		x.shards[i].Store(&left)
	}
}

// len returns how many indices are known.
func (x *index) len() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.n
}
