package lab

import (
	"sync/atomic"
	"time"
)

// A Clock is a wall clock that can be wrong. The zero Clock is right. Whoever
// takes differences of its times sees one that is set as one that ran fast, even
// where the machine's own clock would give him the time that really passed.
type Clock struct{ off atomic.Int64 }

// Set makes the clock go so much fast, or slow, from now on.
func (c *Clock) Set(off time.Duration) { c.off.Store(int64(off)) }

// Now returns the clock's time.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.off.Load())) }
