package shaper

import (
	"math"
	"time"
)

// CoDel's two parameters as RFC 8289 section 4.2 and 4.3 recommend them: the
// interval is the longest round trip of the Internet that is common, the target
// 5 % of it.
const (
	codelTarget   = 5 * time.Millisecond
	codelInterval = 100 * time.Millisecond
)

// A control is CoDel's two parameters.
type control struct{ target, interval time.Duration }

// fewest is how many packets a sender should be able to have on their way: one
// with fewer that loses one hears of it by its timer only, and stands still.
const fewest = 6

// controlAt returns the parameters for a rate; 0 is a high one. The target is at
// least what the fewest packets take.
func controlAt(r Rate) control {
	c := control{codelTarget, codelInterval}
	if r > 0 {
		if slow := time.Duration(fewest * 8 * onePacket / float64(r) * 1e9); slow > c.target {
			c.target, c.interval = slow, codelInterval-codelTarget+slow
		}
	}
	return c
}

// codel is the state of one queue's controlled delay. Times are the caller's
// clock; the zero value is a queue without delay.
type codel struct {
	firstAbove time.Duration // when the delay will have been too long for an interval; 0: it is not
	dropNext   time.Duration
	count      int // drops since dropping began
	lastCount  int // count when dropping began last
	dropping   bool
}

// tooLong judges the packet at the head of the queue, which came at came; more
// says that the queue holds more than one packet of the largest size.
func (c *codel) tooLong(k control, now, came time.Duration, more bool) bool {
	if now-came < k.target || !more {
		c.firstAbove = 0
		return false
	}
	if c.firstAbove == 0 {
		c.firstAbove = now + k.interval
		return false
	}
	return now >= c.firstAbove
}

// next is called with each packet that is about to leave, and says whether to
// drop it (or mark it) instead. When it was dropped, next is called with the one
// after it: RFC 8289 section 5.5.
func (c *codel) next(k control, now, came time.Duration, more bool) (drop bool) {
	long := c.tooLong(k, now, came, more)
	if c.dropping {
		if !long {
			c.dropping = false
			return false
		}
		if now < c.dropNext {
			return false
		}
		c.count++
		c.dropNext = c.after(k, c.dropNext)
		return true
	}
	if !long {
		return false
	}
	c.dropping = true
	// Soon after the last time, the rate that helped then is a better start.
	if fell := c.count - c.lastCount; fell > 1 && now-c.dropNext < 16*k.interval {
		c.count = fell
	} else {
		c.count = 1
	}
	c.lastCount = c.count
	c.dropNext = c.after(k, now)
	return true
}

// after is the control law: the rate of drops rises with the square root of
// their number, which makes TCP's rate fall linearly.
func (c *codel) after(k control, t time.Duration) time.Duration {
	return t + time.Duration(float64(k.interval)/math.Sqrt(float64(c.count)))
}
