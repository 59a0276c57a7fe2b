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
// their ends count from the proof on. It may be used concurrently.
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

// Follow has the verifier ask c, while judging a time, whether the clock is
// known to be behind. Certificates that begin later are then valid all the same:
// they exist, so their time has come.
func (v *Verifier) Follow(c *Clock) { v.clock.Store(c) }
