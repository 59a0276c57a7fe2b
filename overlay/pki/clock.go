package pki

import (
	"sync"
	"time"
)

// A Clock is a wall clock that is held to what is proven: it is never earlier
// than a time that an issuer has signed for this very node. A machine without a
// clock of its own starts years ago; its certificate tells it better.
//
// While the wall clock is behind the proof, nobody knows by how much, so the
// beginnings of certificates are not held against them (see Verifier.Follow);
// their ends count from the proof on. Else they may lie maxAhead in the future:
// a clock that stood still while its machine was off goes on where it was, which
// may well be after that proof. It may be used concurrently.
type Clock struct {
	wall func() time.Time

	mu    sync.Mutex // guards what follows
	floor time.Time
	at    time.Time // the wall clock when floor was raised, to go on from there
}

// NewClock corrects a wall clock. What wall returns is best with a monotonic
// reading, as time.Now's is: the clock then goes on steadily while the wall
// clock is set.
func NewClock(wall func() time.Time) *Clock { return &Clock{wall: wall} }

// Raise says that it is t at least. Only what was signed for this node proves
// that: were a stranger's certificate enough, one issuer could make everybody
// else's look expired.
func (c *Clock) Raise(t time.Time) {
	now := c.wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.floorAt(now).Before(t) {
		c.floor, c.at = t, now
	}
}

// floorAt is the proven time, moved on by what has passed since.
func (c *Clock) floorAt(now time.Time) time.Time {
	if c.floor.IsZero() {
		return c.floor
	}
	return c.floor.Add(max(0, now.Sub(c.at)))
}

// Now returns the wall clock's time, or the proven one if that is later.
func (c *Clock) Now() time.Time {
	now := c.wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	if floor := c.floorAt(now); now.Before(floor) {
		return floor
	}
	return now
}

// Behind reports whether the wall clock is earlier than what is proven.
func (c *Clock) Behind() bool {
	now := c.wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.floorAt(now))
}

// maxAhead is how much later than a clock that is not known to be behind a
// certificate may begin: a machine that was off for a month.
const maxAhead = 31 * 24 * time.Hour

// excuses reports whether a certificate may begin so much later than the clock.
// A nil Clock excuses nothing.
func (c *Clock) excuses(ahead time.Duration) bool {
	return c != nil && (ahead <= maxAhead || c.Behind())
}

// Follow has the verifier excuse beginnings that c excuses. A certificate that
// begins later than the clock says exists all the same: its time has come, and
// the clock is wrong.
func (v *Verifier) Follow(c *Clock) { v.clock.Store(c) }
