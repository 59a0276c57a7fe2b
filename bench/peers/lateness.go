package main

import (
	"fmt"
	"slices"
	"time"
)

// lateEvery is how often it is looked how late a timer is.
const lateEvery = 2 * time.Millisecond

// A lateness watches how late this machine's timers are: what a program that is
// to send at a time cannot be better than. One goroutine, until end.
type lateness struct {
	stop chan struct{}
	done chan []time.Duration
}

func watchLateness() *lateness {
	l := &lateness{stop: make(chan struct{}), done: make(chan []time.Duration, 1)}
	go func() {
		var late []time.Duration
		timer := time.NewTimer(lateEvery)
		defer timer.Stop()
		for {
			due := time.Now().Add(lateEvery)
			timer.Reset(lateEvery)
			select {
			case <-l.stop:
				l.done <- late
				return
			case <-timer.C:
				late = append(late, time.Since(due))
			}
		}
	}()
	return l
}

// end returns how late one of a hundred timers was at least, and the latest.
func (l *lateness) end() (p99, longest time.Duration) {
	close(l.stop)
	late := <-l.done
	if len(late) == 0 {
		return 0, 0
	}
	slices.Sort(late)
	return late[len(late)*99/100], late[len(late)-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// describeSpent says how many CPUs were busy, and how many of them with what is
// not the benchmark's.
func describeSpent(s spent) string {
	return fmt.Sprintf("%.2f, %.2f", s.machine.Seconds()/s.wall.Seconds(), s.foreign)
}
