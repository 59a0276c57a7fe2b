package lab

import (
	"math/rand/v2"
	"net/netip"
	"time"
)

// A Link says what happens to what one host sends to another. The zero Link
// delivers everything at once.
//
// Shares are between 0 and 1. Streams are as TCP makes them: what is lost or
// damaged on the way is sent again and comes later, nothing comes twice, and
// while the link is cut they wait.
type Link struct {
	Cut       bool
	Delay     time.Duration // one way
	Jitter    time.Duration // up to so much more, evenly; packets overtake each other
	Loss      float64
	Duplicate float64 // comes a second time, within reorderBy
	Reorder   float64 // comes later than what follows, within reorderBy
	Corrupt   float64 // bits flipped, cut short or lengthened
}

// reorderBy is how much later a packet comes that is reordered or comes twice:
// long enough for others to overtake it on any link.
const reorderBy = 50 * time.Millisecond

// A Policy says what the links are like. It must be pure: it is asked for every
// packet, by many goroutines.
type Policy func(from, to netip.Addr) Link

// Everywhere is the policy of one link for all.
func Everywhere(l Link) Policy { return func(_, _ netip.Addr) Link { return l } }

// Partition is p with the links cut, both ways, between the hosts of side and
// all others.
func (p Policy) Partition(side ...netip.Addr) Policy {
	in := make(map[netip.Addr]bool, len(side))
	for _, a := range side {
		in[a] = true
	}
	return func(from, to netip.Addr) Link {
		l := p(from, to)
		l.Cut = l.Cut || in[from] != in[to]
		return l
	}
}

// Mute is p with the links cut from the hosts of side to all others: they hear,
// and nobody hears them.
func (p Policy) Mute(side ...netip.Addr) Policy {
	cut := p.Partition(side...)
	in := make(map[netip.Addr]bool, len(side))
	for _, a := range side {
		in[a] = true
	}
	return func(from, to netip.Addr) Link {
		if in[from] {
			return cut(from, to)
		}
		return p(from, to)
	}
}

// An arrival is one copy of a packet on its way.
type arrival struct {
	after time.Duration
	bytes []byte // may be the packet itself
}

// carry decides what comes of a packet: nothing, itself, or more.
func (l Link) carry(rng *rand.Rand, p []byte) []arrival {
	if l.Cut || rng.Float64() < l.Loss {
		return nil
	}
	copies := 1
	if rng.Float64() < l.Duplicate {
		copies = 2
	}
	out := make([]arrival, 0, 2)
	for i := range copies {
		a := arrival{l.delay(rng), p}
		if i > 0 || rng.Float64() < l.Reorder {
			a.after += time.Duration(rng.Int64N(int64(reorderBy)))
		}
		if rng.Float64() < l.Corrupt {
			a.bytes = corrupt(rng, p)
		}
		out = append(out, a)
	}
	return out
}

func (l Link) delay(rng *rand.Rand) time.Duration {
	if l.Jitter <= 0 {
		return l.Delay
	}
	return l.Delay + time.Duration(rng.Int64N(int64(l.Jitter)+1))
}

// corrupt damages a copy of a packet.
func corrupt(rng *rand.Rand, p []byte) []byte {
	out := append(make([]byte, 0, len(p)+16), p...)
	switch rng.IntN(4) {
	case 0:
		return out[:rng.IntN(len(out)+1)]
	case 1:
		for range 1 + rng.IntN(16) {
			out = append(out, byte(rng.Uint32()))
		}
		return out
	}
	for range 1 + rng.IntN(4) {
		if len(out) > 0 {
			out[rng.IntN(len(out))] ^= 1 << rng.IntN(8)
		}
	}
	return out
}

// The retransmission timeouts of streams. rtoMax is far below TCP's two
// minutes: gossip gives a stream up after seconds.
const (
	rtoFirst     = 200 * time.Millisecond
	rtoMax       = 5 * time.Second
	segmentBytes = 1220
)

// resend returns how much later so many bytes of a stream come because parts of
// them, or of what was sent in their stead, were lost.
func (l Link) resend(rng *rand.Rand, size int) time.Duration {
	missing, late, rto := 1+size/segmentBytes, time.Duration(0), rtoFirst
	share := min(l.Loss+l.Corrupt-l.Loss*l.Corrupt, 0.99)
	for {
		again := 0
		for range missing {
			if rng.Float64() < share {
				again++
			}
		}
		if missing = again; missing == 0 {
			return late
		}
		late += rto
		rto = min(2*rto, rtoMax)
	}
}

// Arrivals decides what comes of one packet: after how long each of its copies
// that arrive whole does. None if it is lost.
func (l Link) Arrivals(rng *rand.Rand) []time.Duration {
	whole := l
	whole.Corrupt = 0
	whole.Loss = l.Loss + l.Corrupt - l.Loss*l.Corrupt // a damaged packet is as good as lost
	var out []time.Duration
	for _, a := range whole.carry(rng, nil) {
		out = append(out, a.after)
	}
	return out
}
