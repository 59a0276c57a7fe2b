package gateway

import (
	"runtime"
	"sync"
	"time"

	"slicewire/overlay"
)

// WireGuard's own queues are unbounded in packets: without a bound from
// outside, the queue forms behind the shaper, where nothing manages it, and
// every packet is touched cold. A governor bounds what is between two points of
// the device: credits are taken where packets enter and given back where they
// leave. Packets that the device drops in between never leave; their credits
// come back by two rules that need no knowledge of the device:
//
//   - quiet: somebody waits, and for quietAfter not one packet has left,
//     although our own timers fire on time. The device is work-conserving, so
//     there is nothing left in it.
//   - age: packets leave in the order in which they entered, more or less, so
//     what entered lostAfter ago will not leave any more.
const (
	quietPoll  = time.Millisecond
	quietAfter = 4 * time.Millisecond
	lostAfter  = time.Second
	markEvery  = lostAfter / 4
)

// defaultLimit is how many packets may be in flight each way: a batch for every
// processor that can encrypt it, and two at least, so that one is made ready
// while the other is worked on. Each packet has a buffer of 64 KiB of which the
// first page is used: with more, what is touched next is never in the cache, and
// CPU per byte rises (docs/performance.md).
func defaultLimit() int { return overlay.BatchSize * max(2, runtime.GOMAXPROCS(0)) }

// credits is the decision: who may enter, and what is lost. Time is an
// argument, monotonic since any fixed point.
type credits struct {
	limit int
	taken uint64 // packets that ever entered
	done  uint64 // of those, left or lost; done <= taken
	lost  uint64 // of those, lost
	peak  int    // the most that was ever in flight

	marks    [8]mark // ring of samples of taken
	firstAt  int
	nmarks   int
	lastMark time.Duration

	polledAt time.Duration
	gave     bool // something left since the last poll
	onTime   time.Duration
}

type mark struct {
	at    time.Duration
	taken uint64
}

func (c *credits) inFlight() int { return int(c.taken - c.done) }

// low is where waiting ends: a quarter of the limit at once makes larger
// batches and fewer hand-overs than one by one.
func (c *credits) low() int { return c.limit - c.limit/4 }

func (c *credits) take(now time.Duration, n int) {
	c.taken += uint64(n)
	c.age(now)
	c.peak = max(c.peak, c.inFlight())
}

func (c *credits) give(n int) {
	c.done = min(c.done+uint64(n), c.taken)
	c.gave = true
}

// age writes off what entered too long ago, and notes what has entered so far.
func (c *credits) age(now time.Duration) {
	if (c.nmarks == 0 || now-c.lastMark >= markEvery) && c.nmarks < len(c.marks) {
		c.marks[(c.firstAt+c.nmarks)%len(c.marks)] = mark{now, c.taken}
		c.nmarks++
		c.lastMark = now
	}
	for c.nmarks > 0 {
		m := c.marks[c.firstAt]
		if now-m.at < lostAfter {
			return
		}
		if c.done < m.taken {
			c.lost += m.taken - c.done
			c.done = m.taken
		}
		c.firstAt = (c.firstAt + 1) % len(c.marks)
		c.nmarks--
	}
}

// startPoll begins a wait.
func (c *credits) startPoll(now time.Duration) {
	c.polledAt, c.onTime, c.gave = now, 0, false
}

// poll is called every quietPoll of a wait and applies both rules.
func (c *credits) poll(now time.Duration) {
	c.age(now)
	step := now - c.polledAt
	c.polledAt = now
	if c.gave {
		c.gave, c.onTime = false, 0
		return
	}
	if step > 2*quietPoll {
		return // this machine is too busy to conclude anything from silence
	}
	c.onTime += step
	if c.onTime >= quietAfter {
		c.lost += c.taken - c.done
		c.done = c.taken
		c.onTime = 0
	}
}

// A governor applies credits between goroutines: one takes and waits, any
// number give.
type governor struct {
	start time.Time
	wake  chan struct{} // capacity 1
	timer *time.Timer   // the waiter's

	mu      sync.Mutex
	c       credits
	waiting bool
}

func newGovernor(limit int) *governor {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &governor{start: time.Now(), wake: make(chan struct{}, 1), timer: t, c: credits{limit: limit}}
}

// room reports whether wait would return at once.
func (g *governor) room() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.c.inFlight() < g.c.limit
}

// wait returns true when there is room, false when stop is closed.
func (g *governor) wait(stop <-chan struct{}) bool {
	g.mu.Lock()
	if g.c.inFlight() < g.c.limit {
		g.mu.Unlock()
		return true
	}
	g.waiting = true
	g.c.startPoll(time.Since(g.start))
	g.mu.Unlock()
	g.timer.Reset(quietPoll)
	defer g.timer.Stop()
	for {
		polled := false
		select {
		case <-stop:
			g.mu.Lock()
			g.waiting = false
			g.mu.Unlock()
			return false
		case <-g.wake:
		case <-g.timer.C:
			polled = true
			g.timer.Reset(quietPoll)
		}
		g.mu.Lock()
		if polled {
			g.c.poll(time.Since(g.start))
		}
		room := g.c.inFlight() <= g.c.low()
		g.waiting = !room
		g.mu.Unlock()
		if room {
			return true
		}
	}
}

func (g *governor) take(n int) {
	if n == 0 {
		return
	}
	now := time.Since(g.start)
	g.mu.Lock()
	g.c.take(now, n)
	g.mu.Unlock()
}

func (g *governor) give(n int) {
	if n == 0 {
		return
	}
	g.mu.Lock()
	g.c.give(n)
	wake := g.waiting && g.c.inFlight() <= g.c.low()
	if wake {
		g.waiting = false
	}
	g.mu.Unlock()
	if wake {
		select {
		case g.wake <- struct{}{}:
		default:
		}
	}
}

// load returns the packets in flight, now and at most so far.
func (g *governor) load() (now, peak int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.c.inFlight(), g.c.peak
}
