package shaper

import (
	"math"
	"time"
)

const (
	// Priorities is how many there are: 0, which goes first, to Priorities-1.
	Priorities = 8
	// leastWeight is what a share without a guarantee gets of the excess, as a
	// part of all guarantees: little, but not nothing.
	leastWeight = 0.01
)

// A Share is one member's part of what all members have together.
type Share struct {
	Guaranteed Rate // what it can always send; 0: nothing
	Ceiling    Rate // what it can send at most, when others leave it; 0: all there is
	Priority   int  // 0 goes first
}

// A share is a Share in force. Its level's user guards it.
type share struct {
	guarantee bucket
	ceiling   bucket
	priority  int
	weight    float64 // of the excess
	eager     bool    // it has something to send
	able      bool    // it was eager and below its ceiling at the last pick
	excess    float64 // bytes of excess that it was given, by weight
}

// A level divides what may be sent between shares, as HTB does:
//
//  1. nothing goes while the level, or the share, is at its ceiling;
//  2. who has not had its guarantee goes first: by priority, then who is most
//     behind;
//  3. what is left goes to the others by priority, and among equals in
//     proportion to their guarantees.
//
// A guarantee is charged only for what was sent under it: to have had some of the
// excess costs nobody its guarantee. It is pure: time is an argument, in batches
// from open to settle, and nothing waits.
type level struct {
	ceiling bucket
	shares  []*share
	excess  [Priorities]float64 // of whom was picked last; a share that was away starts there
}

// set makes what the shares may have what conf says; conf[i] is shares[i]'s.
func (l *level) set(now time.Duration, ceiling Rate, shares []*share, conf []Share) {
	l.ceiling.setCeiling(now, ceiling)
	l.shares = shares
	all := 0.0
	for _, c := range conf {
		all += float64(max(c.Guaranteed, 0))
	}
	for i, c := range conf {
		s := shares[i]
		s.guarantee.setGuarantee(now, c.Guaranteed)
		s.ceiling.setCeiling(now, c.Ceiling)
		if p := min(max(c.Priority, 0), Priorities-1); p != s.priority {
			s.priority, s.excess = p, l.excess[p]
		}
		w := max(float64(c.Guaranteed), all*leastWeight, 1)
		if s.weight > 0 {
			s.excess = l.excess[s.priority] // in units of another weight
		}
		s.weight = w
	}
}

// open begins a batch.
func (l *level) open(now time.Duration) {
	l.ceiling.open(now)
	alone := len(l.shares) == 1
	for _, s := range l.shares {
		if s.eager {
			s.ceiling.open(now)
			if !alone {
				s.guarantee.open(now)
			}
		}
	}
}

// settle ends a batch.
func (l *level) settle(now time.Duration) {
	l.ceiling.settle(now)
	for _, s := range l.shares {
		s.ceiling.settle(now)
		s.guarantee.settle(now)
	}
}

// pick returns the index of the share whose turn it is, and whether it is owed
// that by its guarantee; -1 when none may send.
func (l *level) pick() (which int, owed bool) {
	if l.ceiling.left <= 0 {
		return -1, false
	}
	if len(l.shares) == 1 {
		if s := l.shares[0]; !s.eager || s.ceiling.left <= 0 {
			return -1, false
		}
		return 0, false
	}
	which = -1
	var best *share
	behind := 0.0
	for i, s := range l.shares {
		able := s.eager && s.ceiling.left > 0
		if able && !s.able {
			s.excess = max(s.excess, l.excess[s.priority]) // what it did not want is not kept for it
		}
		s.able = able
		if !able {
			continue
		}
		mine := s.guarantee.left > 0
		late := 0.0
		if mine {
			late = s.guarantee.left / s.guarantee.second
		}
		switch {
		case best == nil || mine && !owed:
		case owed && !mine:
			continue
		case s.priority != best.priority:
			if s.priority > best.priority {
				continue
			}
		case owed:
			if late <= behind {
				continue
			}
		case s.excess >= best.excess:
			continue
		}
		which, best, owed, behind = i, s, mine, late
	}
	return which, owed
}

// charge accounts for n bytes that the picked share was let send.
func (l *level) charge(which int, owed bool, n int) {
	s := l.shares[which]
	l.ceiling.spend(n)
	s.ceiling.spend(n)
	switch {
	case len(l.shares) == 1:
	case owed:
		s.guarantee.spend(n)
	default:
		l.excess[s.priority] = s.excess
		s.excess += float64(n) / s.weight
	}
}

// pause returns when anybody may send again if nobody new comes, and whether
// that holds for whoever comes, too.
func (l *level) pause() (d time.Duration, everybody bool) {
	if l.ceiling.left <= 0 {
		return l.ceiling.pause(), true
	}
	d = math.MaxInt64
	for _, s := range l.shares {
		if s.eager {
			d = min(d, s.ceiling.pause())
		}
	}
	return d, false
}
