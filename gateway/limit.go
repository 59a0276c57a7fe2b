package gateway

import (
	"net/netip"
	"time"
)

// Handshake initiations are the only outer packets that cost before they are
// known to be for this node: one BLAKE2s (0.5 µs) for each slice, then a
// Curve25519 operation. Sources are told apart by address, IPv6 by /64.
const (
	// A source that no peer is configured to use: a roaming peer or a stranger.
	strangerRate  = 10.0 // initiations per second
	strangerBurst = 20.0
	// All strangers together; spoofed source addresses end here.
	strangersRate  = 1000.0
	strangersBurst = 1000.0
	// A configured endpoint: a node that restarts sends one for each slice.
	knownRate  = 100.0
	knownBurst = 500.0
	// sourcesMax bounds the table of sources.
	sourcesMax = 4096
)

// tokens is a token bucket. The zero value is full.
type tokens struct {
	spent float64 // 0 <= spent <= burst
	at    time.Duration
}

func (t *tokens) take(now time.Duration, rate, burst float64) bool {
	t.spent = max(0, t.spent-rate*(now-t.at).Seconds())
	t.at = now
	if t.spent+1 > burst {
		return false
	}
	t.spent++
	return true
}

// An initiationLimit decides whether an initiation is worth looking at. One
// goroutine uses it.
type initiationLimit struct {
	strangers tokens
	sources   map[netip.Addr]*tokens
	cleaned   time.Duration // when sources was last cleaned: a flood must not do it each time
}

// allow reports whether an initiation from addr may be looked at now.
func (l *initiationLimit) allow(addr netip.Addr, known bool, now time.Duration) bool {
	if addr.Is6() {
		p, err := addr.WithZone("").Prefix(64)
		if err == nil {
			addr = p.Addr()
		}
	}
	rate, burst := strangerRate, strangerBurst
	if known {
		rate, burst = knownRate, knownBurst
	}
	t := l.sources[addr]
	if t == nil {
		if len(l.sources) >= sourcesMax && now-l.cleaned >= time.Second {
			l.cleaned = now
			l.clean(now)
		}
		if len(l.sources) >= sourcesMax && !known {
			return l.strangers.take(now, strangersRate, strangersBurst)
		}
		if l.sources == nil {
			l.sources = make(map[netip.Addr]*tokens)
		}
		t = new(tokens)
		l.sources[addr] = t
	}
	return t.take(now, rate, burst) && (known || l.strangers.take(now, strangersRate, strangersBurst))
}

// clean forgets sources whose bucket is full again.
func (l *initiationLimit) clean(now time.Duration) {
	for a, t := range l.sources {
		if t.spent <= strangerRate*(now-t.at).Seconds() {
			delete(l.sources, a)
		}
	}
}
