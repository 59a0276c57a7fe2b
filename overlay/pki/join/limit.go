package join

import (
	"net/netip"
	"time"
)

// How fast connections are taken, from everybody and from each source, and how
// many at once. A handshake costs a millisecond of one processor.
const (
	maxConns       = 128
	maxSourceConns = 32
	allBurst       = 256
	allPerSecond   = 50
	sourceBurst    = 64
	sourcePerSec   = 2
	maxSources     = 4096
)

// limiter decides which connections are taken. The zero limiter is ready; one
// goroutine at a time uses it.
type limiter struct {
	all     bucket
	sources map[netip.Prefix]*source
	conns   int
}

type source struct {
	bucket
	conns int
}

// bucket is a token bucket: 0 <= tokens <= its burst.
type bucket struct {
	tokens float64
	at     time.Time // zero: full
}

func (b *bucket) fill(now time.Time, burst, perSecond float64) {
	if b.at.IsZero() {
		b.tokens = burst
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(burst, b.tokens+d.Seconds()*perSecond)
	}
	b.at = now
}

// take reports whether a connection from addr is taken. It counts
// until done.
func (l *limiter) take(addr netip.Addr, now time.Time) bool {
	l.all.fill(now, allBurst, allPerSecond)
	if l.conns >= maxConns || l.all.tokens < 1 {
		return false
	}
	s := l.source(addr, now)
	if s == nil {
		return false
	}
	s.fill(now, sourceBurst, sourcePerSec)
	if s.conns >= maxSourceConns || s.tokens < 1 {
		return false
	}
	l.all.tokens--
	s.tokens--
	l.conns++
	s.conns++
	return true
}

// done ends a connection that was taken.
func (l *limiter) done(addr netip.Addr) {
	l.conns--
	if s := l.sources[sourceOf(addr)]; s != nil {
		s.conns--
	}
}

// source returns what is known of an address' source. When there are too many,
// those that have been quiet are forgotten; if none was, newcomers wait.
func (l *limiter) source(addr netip.Addr, now time.Time) *source {
	key := sourceOf(addr)
	if s := l.sources[key]; s != nil {
		return s
	}
	if len(l.sources) >= maxSources {
		for k, s := range l.sources {
			if s.fill(now, sourceBurst, sourcePerSec); s.conns == 0 && s.tokens >= sourceBurst {
				delete(l.sources, k)
			}
		}
		if len(l.sources) >= maxSources {
			return nil
		}
	}
	if l.sources == nil {
		l.sources = make(map[netip.Prefix]*source)
	}
	s := &source{}
	l.sources[key] = s
	return s
}

// sourceOf is what one host can send from: an IPv4 address, an IPv6 /64.
func sourceOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 32
	}
	p, _ := addr.Prefix(bits) // an invalid address has the zero prefix, as all its kind
	return p
}
