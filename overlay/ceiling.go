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
	// before: until then the others know that they have less. It is more than twice
	// what news takes within a site, as two may change at once.
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

// A CeilingPart is the part of a ceiling that one node uses: the least that was
// its due within CeilingHold. So it shrinks at once and grows late, and while news
// is on its way the parts of all nodes are never more than the whole. The zero
// value is ready. The first part is used at once: a node that starts where others
// are may pass the ceiling with them until they have heard of it.
type CeilingPart struct {
	due []duePart // rising; each until the next one's time
}

type duePart struct {
	at   time.Time
	part float64
}

// Next returns the part to use at now, when due is what DivideCeiling says. It
// wants to be asked every now and then: growth is not seen before.
func (p *CeilingPart) Next(now time.Time, due float64) float64 {
	since := now
	for n := len(p.due); n > 0 && p.due[n-1].part >= due; n = len(p.due) {
		since = p.due[n-1].at
		p.due = p.due[:n-1]
	}
	p.due = append(p.due, duePart{since, due})
	for len(p.due) > 1 && now.Sub(p.due[1].at) >= CeilingHold {
		p.due = append(p.due[:0], p.due[1:]...)
	}
	return p.due[0].part
}
