package shaper

import "math"

// want is one member of the naive reference: HTB as a fluid, of which everybody
// is given a share at once.
type want struct {
	Share
	demand float64 // bits a second; infinite for who always has something to send
}

// most is what it takes at most.
func (w want) most() float64 {
	if w.Ceiling > 0 {
		return min(w.demand, float64(w.Ceiling))
	}
	return w.demand
}

// fluid divides all: guarantees by priority, then the excess by priority, among
// equals by guarantee.
func fluid(all float64, wants []want) []float64 {
	got := make([]float64, len(wants))
	sum := 0.0
	for _, w := range wants {
		sum += float64(w.Guaranteed)
	}
	round := func(limit func(w want) float64) {
		for p := range Priorities {
			var who []int
			for i, w := range wants {
				if w.Priority == p {
					who = append(who, i)
				}
			}
			for len(who) > 0 && all > 1e-6 { // until nobody is full before the others
				weights, least := 0.0, math.Inf(1)
				weight := func(i int) float64 { return max(float64(wants[i].Guaranteed), sum*leastWeight, 1) }
				for _, i := range who {
					weights += weight(i)
				}
				for _, i := range who {
					least = min(least, (limit(wants[i])-got[i])/weight(i))
				}
				least = min(least, all/weights)
				var left []int
				for _, i := range who {
					got[i] += least * weight(i)
					all -= least * weight(i)
					if limit(wants[i])-got[i] > 1e-6 {
						left = append(left, i)
					}
				}
				who = left
			}
		}
	}
	round(func(w want) float64 { return min(w.most(), float64(w.Guaranteed)) })
	round(want.most)
	return got
}
