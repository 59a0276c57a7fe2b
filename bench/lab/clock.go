package lab

import (
	"sync/atomic"
	"time"
)

// A Clock is a wall clock that can be wrong. The zero Clock is right.
type Clock struct{ off atomic.Int64 }

// Set makes the clock go so much fast, or slow, from now on.
func (c *Clock) Set(off time.Duration) { c.off.Store(int64(off)) }

// Now returns the clock's time.
func (c *Clock) Now() time.Time { return time.Now().Add(time.Duration(c.off.Load())) }
