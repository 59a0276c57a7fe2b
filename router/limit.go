package router

import (
	"hash/maphash"
	"net/netip"
	"time"
)

// Bounds of the errors that a slice's router sends on this node. A source gets a
// hundredth of what all get, and at once enough for three traceroutes.
const (
	// DefaultErrorRate is about a megabyte a second, which no sender's fault turns
	// into a load.
	DefaultErrorRate = 1000
	sourceShare      = 100
	sourceBurst      = 60
	sliceBurst       = 256
	// sourceSlots bounds the memory; sources that share a slot share a bucket.
	sourceSlots = 1024
)

// limiter is a token bucket for the slice and one for each source, as RFC 1812
// and RFC 4443 want it. One goroutine uses it. Times are nanoseconds of one
// clock. A bucket is the time at which it would be full again (GCRA): it holds
// all tokens while that is past.
type limiter struct {
	seed   maphash.Seed
	every  int64 // nanoseconds between tokens of the slice
	slice  int64
	source [sourceSlots]int64
}

func newLimiter(rate int) limiter {
	return limiter{seed: maphash.MakeSeed(), every: int64(time.Second) / int64(rate)}
}

// allow takes a token for an error to src and reports whether there was one.
// The source's own bucket comes first, so that one who asks too much does not
// empty that of all.
func (l *limiter) allow(src netip.Addr, now int64) bool {
	return take(&l.source[maphash.Comparable(l.seed, src)%sourceSlots], now, l.every*sourceShare, sourceBurst) &&
		take(&l.slice, now, l.every, sliceBurst)
}

func take(full *int64, now, every, burst int64) bool {
	at := max(*full, now)
	if at-now > every*(burst-1) {
		return false
	}
	*full = at + every
	return true
}
