package overlay

import (
	"math"
	"time"
)

// What Health goes by.
const (
	// ProbeInterval is how often a link is probed while its state matters.
	ProbeInterval = 100 * time.Millisecond
	// probeLazy is the interval on a link that carries nothing and that nobody
	// could stand in for.
	probeLazy = time.Second
	// probeLost is the interval on a link that is down: WireGuard keeps every
	// packet for a peer that does not answer. A link that comes back is probed
	// faster as soon as the other end is heard.
	probeLost = 500 * time.Millisecond
	// missesMin unanswered probes in a row take a link down that lost nothing
	// before.
	missesMin = 3
	// missesMax bounds that number for a link that loses a lot anyway.
	missesMax = 20
	// falseAlarm is the probability at which the number of misses is set: that so
	// many are lost in a row on a link that is up, after any one probe.
	falseAlarm = 1e-6
	// outage is the number of probes missed in a row from which on that says
	// nothing about loss: the link was down.
	outage = 8
	// lossWeight is the weight of one probe in the estimate of loss.
	lossWeight = 1.0 / 16
	// answerMax bounds how long an answer may take before it counts as missed.
	answerMax = time.Second
	// lateMin and lateMax: a node that calls Step so much too late has no time to
	// read answers either, and gives them as long again, lateMax at most.
	lateMin = 20 * time.Millisecond
	lateMax = 500 * time.Millisecond
	// holdMin and holdMax bound how long a link that was down has to answer
	// before it is up again. It doubles with every time it goes down, until the
	// link was up for holdForget.
	holdMin    = 500 * time.Millisecond
	holdMax    = time.Minute
	holdForget = time.Minute
	// streakMin is how many answers in a row a link that was down needs.
	streakMin = 3
)

// Health decides from probes and their answers whether a link is up. Times are
// since any fixed point. The zero value is a link that was never up; it is as
// soon as one probe is answered. It is not for concurrent use.
type Health struct {
	up      bool
	was     bool          // ever up
	upAt    time.Duration // when it last went up
	seq     uint32        // of the next probe
	sent    [64]time.Duration
	next    time.Duration // when the next probe is due
	heard   uint32        // one more than the newest answered probe
	missed  int           // of those after it, that are too old
	streak  int           // answers in a row, without a miss between
	since   time.Duration // start of the streak
	hold    time.Duration
	loss    float64
	rtt     time.Duration // smoothed
	rttVar  time.Duration
	awake   time.Duration // probe fast until then although the link is down
	changes int

	promised time.Duration // when Step was to be called at the latest
	excused  time.Duration // if not 0, nothing is missed before: this node was late itself
}

// Up reports whether the link is up.
func (h *Health) Up() bool { return h.up }

// RTT returns the smoothed round trip, 0 if there was none yet.
func (h *Health) RTT() time.Duration { return h.rtt }

// Loss returns the estimated share of probes that get no answer while the link
// is up.
func (h *Health) Loss() float64 { return h.loss }

// Changes returns how often the link went up or down.
func (h *Health) Changes() int { return h.changes }

// timeout is how long after it was sent a probe counts as missed.
func (h *Health) timeout() time.Duration {
	return min(max(ProbeInterval, h.rtt+4*h.rttVar), answerMax)
}

// need is how many misses in a row take the link down.
func (h *Health) need() int {
	if h.loss < 0.001 {
		return missesMin
	}
	n := math.Ceil(math.Log(falseAlarm) / math.Log(h.loss))
	return int(min(max(n, missesMin), missesMax))
}

// Step brings the state up to date. When a probe is due it returns send and the
// probe's number, which counts as sent; busy says that the link is in use or
// that another could take its place. next is when to call again at the latest.
func (h *Health) Step(now time.Duration, busy bool) (seq uint32, send bool, next time.Duration) {
	switch late := now - h.promised; {
	case h.excused > 0 && now >= h.excused:
		h.excused = 0 // late again or not, what was read since counts
	case h.excused == 0 && h.promised > 0 && late > lateMin:
		h.excused = now + min(late, lateMax)
	}
	h.judge(now)
	if now >= h.next {
		seq, send = h.seq, true
		h.sent[seq%uint32(len(h.sent))] = now
		h.seq++
		h.next = now + h.interval(now, busy)
		h.judge(now)
	}
	next = h.next
	if at, ok := h.nextMiss(); ok {
		next = min(next, max(at, h.excused))
	}
	h.promised = next
	return seq, send, next
}

func (h *Health) interval(now time.Duration, busy bool) time.Duration {
	switch {
	case !h.up && h.was && now >= h.awake && h.streak == 0:
		return probeLost
	case !h.up && !h.was && h.seq > 20 && now >= h.awake:
		return probeLost
	case h.up && !busy && h.missed == 0:
		return probeLazy
	case h.up && h.missed > 0:
		// Where more misses are needed they follow faster: what a failure costs does
		// not grow with the loss.
		return ProbeInterval * missesMin / time.Duration(h.need())
	}
	return ProbeInterval
}

// outstanding returns the number of the oldest probe that may still be missed.
func (h *Health) outstanding() uint32 {
	return max(h.heard+uint32(h.missed), h.seq-min(h.seq, uint32(len(h.sent))))
}

func (h *Health) nextMiss() (time.Duration, bool) {
	if i := h.outstanding(); i < h.seq {
		return h.sent[i%uint32(len(h.sent))] + h.timeout(), true
	}
	return 0, false
}

// judge counts misses and takes the link down.
func (h *Health) judge(now time.Duration) {
	if now < h.excused {
		return
	}
	for h.outstanding() < h.seq {
		if at, _ := h.nextMiss(); now < at {
			break
		}
		h.missed++
		h.streak = 0
		if h.missed == 1 {
			h.next = min(h.next, now) // it may be the first of several
		}
	}
	if h.up && h.missed >= h.need() {
		h.up = false
		h.changes++
		if now-h.upAt >= holdForget {
			h.hold = 0
		}
		h.hold = min(max(holdMin, 2*h.hold), holdMax)
	}
}

// Heard notes the answer to a probe. It reports false for one that was not sent
// lately or of which a later one was answered already.
func (h *Health) Heard(now time.Duration, seq uint32) bool {
	if seq >= h.seq || seq < h.heard || h.seq-seq > uint32(len(h.sent)) {
		return false
	}
	if sent := h.sent[seq%uint32(len(h.sent))]; h.up && sent >= h.upAt {
		h.sample(now - sent) // one sent before may have waited for a handshake
	}
	if gap := seq - h.heard; h.was && gap <= outage {
		for range gap {
			h.loss += lossWeight * (1 - h.loss)
		}
	}
	h.loss -= lossWeight * h.loss
	h.heard, h.missed = seq+1, 0
	if h.streak == 0 {
		h.since = now
	}
	h.streak++
	if !h.up && (!h.was || h.streak >= streakMin && now-h.since >= h.hold) {
		h.up, h.was, h.upAt = true, true, now
		h.changes++
	}
	return true
}

// sample is RFC 6298's smoothing of round trips.
func (h *Health) sample(rtt time.Duration) {
	if h.rtt == 0 {
		h.rtt, h.rttVar = rtt, rtt/2
		return
	}
	h.rttVar += (max(h.rtt-rtt, rtt-h.rtt) - h.rttVar) / 4
	h.rtt += (rtt - h.rtt) / 8
}

// Hurry has the next probe sent now: it carries news.
func (h *Health) Hurry(now time.Duration) { h.next = min(h.next, now) }

// Noticed says that the other end was heard by itself: a link that is down is
// worth a probe now.
func (h *Health) Noticed(now time.Duration) {
	if h.up {
		return
	}
	if now >= h.awake {
		h.next = min(h.next, now)
	}
	h.awake = now + time.Second
}
