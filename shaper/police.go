package shaper

import (
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"slicewire/overlay"
)

// A Link moves whole IP packets between two layers, in batches: see the router's.
type Link interface {
	Read(bufs [][]byte, sizes []int) (n int, err error)
	Write(bufs [][]byte) error
	Close() error
	Wake()
}

const (
	// policeFor is how long a sender may be faster than it should: what its own
	// shaper let go at once, and what waited on the way and came together.
	policeFor = 200 * time.Millisecond
	policeMin = 256 << 10 // bytes: some batches
)

// A Policer drops what comes from outside, by Write, above a rate. Senders shape
// what they send; it only keeps one that does not from taking the slice's whole
// way in. All methods may be called concurrently.
type Policer struct {
	Link
	drops   *overlay.Drops
	limiter atomic.Pointer[rate.Limiter] // nil: no limit
}

// NewPolicer wraps link, whose drops it adds to. It has no limit yet.
func NewPolicer(link Link, drops *overlay.Drops) *Policer { return &Policer{Link: link, drops: drops} }

// Set changes the rate; 0 is no limit. What was allowed before stays so.
func (p *Policer) Set(r Rate) {
	if r <= 0 {
		p.limiter.Store(nil)
		return
	}
	second := float64(r) / 8
	burst := max(policeMin, int(second*policeFor.Seconds()))
	if l := p.limiter.Load(); l != nil {
		l.SetLimit(rate.Limit(second))
		l.SetBurst(burst)
		return
	}
	p.limiter.Store(rate.NewLimiter(rate.Limit(second), burst))
}

// Write passes on as many of the first packets as the rate allows.
func (p *Policer) Write(bufs [][]byte) error {
	l := p.limiter.Load()
	if l == nil {
		return p.Link.Write(bufs)
	}
	now := time.Now()
	if l.AllowN(now, size(bufs)) {
		return p.Link.Write(bufs)
	}
	left, n := int(l.TokensAt(now)), 0
	for _, b := range bufs {
		if left -= len(b) - overlay.Headroom + outerBytes; left < 0 {
			break
		}
		n++
	}
	for n > 0 && !l.AllowN(now, size(bufs[:n])) { // others took some meanwhile
		n--
	}
	p.drops.Add(overlay.DropPoliced, len(bufs)-n)
	if n == 0 {
		return nil
	}
	return p.Link.Write(bufs[:n])
}

// size is what the underlay carried for bufs.
func size(bufs [][]byte) (n int) {
	for _, b := range bufs {
		n += len(b) - overlay.Headroom + outerBytes
	}
	return n
}
