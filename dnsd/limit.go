package dnsd

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
)

const (
	// DefaultRate is how many times a second one network of clients gets the same
	// answer by UDP. No resolver asks so often; a program without a cache that
	// connects for every request stays below it, and a flood far above.
	DefaultRate = 1000

	limitSlots = 1 << 15 // 256 KiB; two answers in one slot share its rate
)

// A limiter bounds how often one network of clients gets the same answer. All
// that do not say what somebody asked for (errors, names that do not exist)
// count as one answer, or a flood of random names would pass. It allocates
// nothing and takes no lock; all methods may be called concurrently.
//
// A slot is a bucket of rate answers: the upper half is when it was last full,
// in 1/rate seconds, the lower its tag, so that who comes to a slot of another
// begins with a full one.
type limiter struct {
	rate  uint64
	seed  uint64
	start time.Time
	slots []atomic.Uint64
	turn  atomic.Uint32
}

func newLimiter(rate int) *limiter {
	l := &limiter{rate: uint64(rate), seed: rand.Uint64(), start: time.Now()}
	if rate > 0 {
		l.slots = make([]atomic.Uint64, limitSlots)
	}
	return l
}

// A fate is what becomes of an answer.
type fate uint8

const (
	fateSend fate = iota
	fateDrop
	fateCut // send it empty and truncated: who is real asks again by TCP
)

// judge says what becomes of a UDP reply to a client.
func (l *limiter) judge(client netip.Addr, reply []byte) fate {
	if l.slots == nil {
		return fateSend
	}
	now := uint64(time.Since(l.start)) / (1e9 / l.rate)
	if l.take(l.key(client, reply), now) {
		return fateSend
	}
	if l.turn.Add(1)%2 == 0 {
		return fateCut
	}
	return fateDrop
}

// key is what the rate is for: the client's network, /24 or /56, and the
// question in lower case, or only the kind of error.
func (l *limiter) key(client netip.Addr, reply []byte) uint64 {
	h := l.seed
	mix := func(v uint64) {
		h ^= v
		h *= 0x9e3779b97f4a7c15
		h ^= h >> 29
	}
	if client = client.Unmap(); client.Is4() {
		a := client.As4()
		mix(uint64(binary.BigEndian.Uint32(a[:]) >> 8))
	} else {
		a := client.As16()
		mix(binary.BigEndian.Uint64(a[:]) >> 8)
	}
	if rcode := reply[3] & 15; rcode != rcodeSuccess || reply[7] == 0 {
		mix(uint64(rcode) + 1)
		return h
	}
	const caseless = 0x2020202020202020
	b := reply[headerBytes:]
	n := 0
	for n < len(b) && b[n] != 0 {
		n += 1 + int(b[n])
	}
	b = b[:min(n+5, len(b))]
	for ; len(b) >= 8; b = b[8:] {
		mix(binary.LittleEndian.Uint64(b) | caseless)
	}
	var last [8]byte
	copy(last[:], b)
	mix(binary.LittleEndian.Uint64(last[:]) | caseless)
	return h
}

// take takes one answer out of a key's bucket, at a time in 1/rate seconds.
func (l *limiter) take(key, now uint64) bool {
	slot, tag := &l.slots[key%limitSlots], uint64(uint32(key>>32))
	now += l.rate // a bucket that was never touched is full
	for {
		old := slot.Load()
		full := old >> 32 // when the bucket would be full if nothing were taken
		if old&0xffffffff != tag || full < now {
			full = now
		}
		if full-now >= l.rate {
			return false
		}
		if slot.CompareAndSwap(old, (full+1)<<32|tag) {
			return true
		}
	}
}
