package shaper

import (
	"math"
	"time"

	"golang.org/x/time/rate"
)

// A Rate is in bits of the underlay a second: a packet is charged with what
// surrounds it on its way.
type Rate int64

// Units of Rate.
const (
	Kbps Rate = 1000
	Mbps      = 1000 * Kbps
	Gbps      = 1000 * Mbps
)

const (
	// depth is how long a bucket's rate may be made up for: what a reader that
	// comes late has not sent yet. Timers of an idle process are up to 1 ms late,
	// a busy machine's scheduler some more. Together with a packet it is less than
	// 1 % of a second, by which a ceiling may be passed in one.
	depth = 8 * time.Millisecond
	// onePacket is about what the largest of ordinary packets is charged with.
	onePacket = 1600
	// depthMin is the least depth in bytes. With less, a slow share whose turn
	// comes late would lose what it cannot save up.
	depthMin = 2 * onePacket
	// deeper is how much deeper a guarantee's bucket is. It passes no ceiling; it
	// remembers what is owed to who is let send in rare turns of many bytes.
	deeper = 5
)

// A bucket holds the bytes that may be sent: they come in at its rate, up to its
// depth. Who finds it above zero may take a packet, whatever its size: the debt
// is waited for afterwards, so that the rate is exact for packets of any size.
//
// It asks the limiter what is there once at the start of a batch, and tells it
// once at the end what was taken.
type bucket struct {
	limiter *rate.Limiter // nil: left stays as it is, for ever
	second  float64       // bytes
	depth   int           // bytes, the limiter's burst
	left    float64       // what may be sent, as of the batch's start
	spent   int           // since then
}

// at is the limiter's clock. Its zero time is long before any.
func at(now time.Duration) time.Time { return time.Unix(0, int64(now)) }

// setCeiling makes it a bucket of r, or of anything for 0.
func (b *bucket) setCeiling(now time.Duration, r Rate) { b.set(now, r, 1, math.Inf(1)) }

// setGuarantee makes it a bucket of r, which is never above zero for 0.
func (b *bucket) setGuarantee(now time.Duration, r Rate) { b.set(now, r, deeper, 0) }

// set changes the rate from now on. What is there stays, as do debts.
func (b *bucket) set(now time.Duration, r Rate, times int, left float64) {
	if r <= 0 {
		*b = bucket{left: left}
		return
	}
	b.second = float64(r) / 8
	b.depth = max(depthMin, int(b.second*depth.Seconds())*times)
	if b.limiter == nil {
		b.limiter = rate.NewLimiter(rate.Limit(b.second), b.depth)
		b.left = float64(b.depth)
		return
	}
	b.limiter.SetLimitAt(at(now), rate.Limit(b.second))
	b.limiter.SetBurstAt(at(now), b.depth)
	b.left = b.limiter.TokensAt(at(now))
}

// open looks what is there at now.
func (b *bucket) open(now time.Duration) {
	if b.limiter != nil {
		b.left = b.limiter.TokensAt(at(now))
	}
}

// spend takes n bytes, which need not be there.
func (b *bucket) spend(n int) {
	if b.limiter != nil {
		b.left -= float64(n)
		b.spent += n
	}
}

// settle tells the limiter what was spent.
func (b *bucket) settle(now time.Duration) {
	for b.spent > 0 {
		n := min(b.spent, b.depth) // it refuses more at once
		b.limiter.ReserveN(at(now), n)
		b.spent -= n
	}
}

// pause returns how long it takes until there is something in the bucket.
func (b *bucket) pause() time.Duration {
	if b.left > 0 {
		return 0
	}
	if b.limiter == nil {
		return math.MaxInt64
	}
	return time.Duration(-b.left/b.second*1e9) + 1
}
