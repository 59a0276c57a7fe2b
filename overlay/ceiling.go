package overlay

import "time"

const (
	// ceilingFloor is the part of an equal share that nobody goes below: who has
	// sent nothing can begin at once, and be seen to want more.
	ceilingFloor = 0.05
	// ceilingSpare is how much more than it used a node is given, so that its use
	// can grow.
	ceilingSpare = 1.25
	// CeilingHold is how long a node waits before it uses more of a ceiling than
	// before: until then the others know that they have less. It is longer than
	// news takes within a site.
	CeilingHold = time.Second
)

// DivideCeiling divides a slice's ceiling between the nodes of a site that send:
// used[i] is what node i has lately sent, in the same unit, or negative if nobody
// knows. Every node computes the same from the same: an equal share where uses
// are unknown, else to each what it uses and some more, and what is left equally.
// The parts add up to the ceiling.
func DivideCeiling(ceiling float64, used []float64) []float64 {
	n := float64(len(used))
	parts := make([]float64, len(used))
	if n == 0 {
		return parts
	}
	wants := make([]float64, len(used))
	for i, u := range used {
		if u < 0 {
			for j := range parts {
				parts[j] = ceiling / n
			}
			return parts
		}
		parts[i] = ceilingFloor * ceiling / n
		wants[i] = max(0, u*ceilingSpare-parts[i])
	}
	left := ceiling * (1 - ceilingFloor)
	for left > ceiling*1e-9 { // until nobody wants more: each round serves one at least
		hungry, least := 0.0, left
		for _, w := range wants {
			if w > 0 {
				hungry++
				least = min(least, w)
			}
		}
		if hungry == 0 {
			break
		}
		least = min(least, left/hungry)
		for i, w := range wants {
			if w > 0 {
				parts[i] += least
				wants[i] -= least
				left -= least
				if wants[i] < ceiling*1e-9 {
					wants[i] = 0
				}
			}
		}
	}
	for i := range parts {
		parts[i] += left / n
	}
	return parts
}

// A CeilingPart is the part of a ceiling that one node uses. It shrinks at once
// and grows after CeilingHold, so that while news is on its way the parts of all
// nodes are never more than the whole. The zero value is ready.
type CeilingPart struct {
	now     float64
	known   bool
	wanted  float64
	since   time.Time
	waiting bool
}

// Next returns the part to use at now, given what it should be, and when to ask
// again: zero if nothing will change by itself. The first part is used at once: a
// node that starts where others are may pass the ceiling with them until they have
// heard of it.
func (p *CeilingPart) Next(now time.Time, want float64) (part float64, again time.Time) {
	switch {
	case !p.known || want <= p.now:
		p.now, p.known, p.waiting = want, true, false
	case !p.waiting || want < p.wanted:
		p.wanted, p.since, p.waiting = want, now, true
	case now.Sub(p.since) >= CeilingHold:
		p.now, p.waiting = p.wanted, false
		if want > p.wanted {
			p.wanted, p.since, p.waiting = want, now, true
		}
	}
	if p.waiting {
		again = p.since.Add(CeilingHold)
	}
	return p.now, again
}
