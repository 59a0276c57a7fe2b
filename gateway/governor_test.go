package gateway

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestCredits(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name string
		do   func(c *credits)
		want int // in flight
	}{
		{"what leaves is given back", func(c *credits) { c.take(0, 5); c.give(3) }, 2},
		{"more than entered cannot leave", func(c *credits) { c.take(0, 5); c.give(9); c.take(0, 1) }, 1},
		{"silence on time means that nothing is left", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i <= quietAfter/quietPoll; i++ {
				c.poll(i * quietPoll)
			}
		}, 0},
		{"a shorter silence means nothing", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i < quietAfter/quietPoll; i++ {
				c.poll(i * quietPoll)
			}
		}, 7},
		{"silence of a machine that is late means nothing", func(c *credits) {
			c.take(0, 7)
			c.startPoll(0)
			for i := time.Duration(1); i < 50; i++ {
				c.poll(i * 5 * quietPoll)
			}
		}, 7},
		{"what leaves during the silence begins it anew", func(c *credits) {
			c.take(0, 100)
			c.startPoll(0)
			for i := time.Duration(1); i < 50; i++ {
				if i%3 == 0 {
					c.give(1)
				}
				c.poll(i * quietPoll)
			}
		}, 84},
		{"what entered long ago is lost, the rest is not", func(c *credits) {
			c.take(0, 10)
			c.take(lostAfter/2, 10)
			c.take(lostAfter, 10)
		}, 20},
		{"what left meanwhile counts as the oldest", func(c *credits) {
			c.take(0, 10)
			c.give(8)
			c.take(lostAfter/2, 10)
			c.take(lostAfter, 10)
		}, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := credits{limit: 100}
			tt.do(&c)
			if got := c.inFlight(); got != tt.want {
				t.Errorf("%d in flight, want %d", got, tt.want)
			}
		})
	}
	t.Run("a leak of any rate never closes it for longer than lostAfter", func(t *testing.T) {
		c := credits{limit: 64}
		rnd := rand.New(rand.NewPCG(1, 1))
		var now, open time.Duration
		for ; now < 20*time.Second; now += ms / 2 {
			if c.inFlight() < c.limit {
				open = now
				n := 1 + rnd.IntN(32)
				c.take(now, n)
				c.give(rnd.IntN(n + 1)) // the others are swallowed
				continue
			}
			c.age(now)
			if now-open > lostAfter+markEvery {
				t.Fatalf("closed since %v at %v", open, now)
			}
		}
		if c.peak > 64+32 {
			t.Errorf("%d in flight", c.peak)
		}
	})
}
