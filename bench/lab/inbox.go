package lab

import (
	"container/heap"
	"net"
	"sync"
	"time"
)

// An inbox holds what is on its way to one reader, in the order in which it
// arrives. The reader waits for it itself: nothing else runs per packet.
type inbox[T any] struct {
	news chan struct{} // capacity 1: something for the reader to look at
	room chan struct{} // capacity 1: something was taken
	done chan struct{} // closed by close

	mu       sync.Mutex // guards what follows
	items    items[T]
	number   uint64
	cost     int
	isClosed bool
	deadline time.Time
}

type item[T any] struct {
	at     time.Time
	number uint64 // in the order of put, for what arrives at once
	value  T
	cost   int
}

type items[T any] []item[T]

func (x items[T]) Len() int { return len(x) }
func (x items[T]) Less(i, j int) bool {
	if x[i].at.Equal(x[j].at) {
		return x[i].number < x[j].number
	}
	return x[i].at.Before(x[j].at)
}
func (x items[T]) Swap(i, j int) { x[i], x[j] = x[j], x[i] }
func (x *items[T]) Push(v any)   { *x = append(*x, v.(item[T])) }
func (x *items[T]) Pop() any {
	old := *x
	v := old[len(old)-1]
	old[len(old)-1] = item[T]{}
	*x = old[:len(old)-1]
	return v
}

func (b *inbox[T]) init() {
	b.news = make(chan struct{}, 1)
	b.room = make(chan struct{}, 1)
	b.done = make(chan struct{})
}

// put has v arrive at a time. It reports false if there is no room: limit is
// for the sum of costs, none if it is 0.
func (b *inbox[T]) put(at time.Time, v T, cost, limit int) bool {
	b.mu.Lock()
	if b.isClosed || limit > 0 && b.cost+cost > limit {
		b.mu.Unlock()
		return false
	}
	heap.Push(&b.items, item[T]{at, b.number, v, cost})
	b.number++
	b.cost += cost
	first := b.items[0].number == b.number-1
	b.mu.Unlock()
	if first {
		wake(b.news)
	}
	return true
}

// wake tells who waits on c to look; if told already, it will.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// take waits for the first to arrive. hold says, of what is due since a time,
// until when it is held up; that is now if it is not.
func (b *inbox[T]) take(hold func(now, due time.Time) time.Time) (T, error) {
	var none T
	for {
		b.mu.Lock()
		if b.isClosed {
			b.mu.Unlock()
			return none, net.ErrClosed
		}
		now := time.Now()
		wait := time.Hour
		if !b.deadline.IsZero() {
			if wait = b.deadline.Sub(now); wait <= 0 {
				b.mu.Unlock()
				return none, errDeadline
			}
		}
		if len(b.items) > 0 {
			due := b.items[0].at
			if !due.After(now) {
				due = hold(now, due)
			}
			if !due.After(now) {
				v := heap.Pop(&b.items).(item[T])
				b.cost -= v.cost
				b.mu.Unlock()
				wake(b.room)
				return v.value, nil
			}
			wait = min(wait, due.Sub(now))
		}
		b.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-b.news:
		case <-b.done:
		}
		timer.Stop()
	}
}

func (b *inbox[T]) setDeadline(t time.Time) {
	b.mu.Lock()
	b.deadline = t
	b.mu.Unlock()
	wake(b.news)
}

func (b *inbox[T]) closed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.isClosed
}

// close ends take. Again does nothing.
func (b *inbox[T]) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isClosed {
		b.isClosed = true
		close(b.done)
		b.items = nil
	}
}
