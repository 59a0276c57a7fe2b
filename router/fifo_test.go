package router

import (
	"net"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// The bounds of the tests' way outside.
const (
	queueBytes   = 512 << 10
	queuePackets = 1024
)

// queue is the Outlet of the tests: first in, first out, without fairness. Its
// overflow rule is: the newest packet is dropped. Writers copy into pooled
// buffers before they take the lock and Read copies out after it gave it back,
// so that the lock is held for a few pointers only, once a batch.
type queue struct {
	drops *overlay.Drops
	pool  sync.Pool // *[]byte of the slice's MTU, as a packet in here has passed the size check

	mu      sync.Mutex
	ready   sync.Cond // the queue got a packet or was closed
	ring    [queuePackets]*[]byte
	head    int // of the oldest
	n       int // packets
	bytes   int
	room    chan struct{} // nil unless someone waits for room; closed when there is
	readers int           // waiting on ready
	closed  atomic.Bool   // set under mu
}

func newQueue(mtu int) *queue {
	q := &queue{drops: new(overlay.Drops)}
	q.ready.L = &q.mu
	q.pool.New = func() any {
		b := make([]byte, 0, mtu)
		return &b
	}
	return q
}

// Write implements Link.
func (q *queue) Write(bufs [][]byte) error {
	var own [overlay.BatchSize]*[]byte
	for len(bufs) > 0 {
		n := min(len(bufs), len(own))
		for i, b := range bufs[:n] {
			p := q.pool.Get().(*[]byte)
			*p = append((*p)[:0], b[overlay.Headroom:]...)
			own[i] = p
		}
		bufs = bufs[n:]
		kept, err := q.put(own[:n])
		for _, p := range own[kept:n] {
			q.pool.Put(p)
		}
		if err != nil {
			return err
		}
		if kept < n {
			q.drops.Add(overlay.DropQueueFull, n-kept)
		}
	}
	return nil
}

// put takes packets while they fit and returns how many it took.
func (q *queue) put(pkts []*[]byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Load() {
		return 0, net.ErrClosed
	}
	kept := 0
	for _, p := range pkts {
		if q.n == queuePackets || q.bytes+len(*p) > queueBytes {
			break // not a smaller one that would fit: order within a flow
		}
		q.ring[(q.head+q.n)%queuePackets] = p
		q.n++
		q.bytes += len(*p)
		kept++
	}
	if kept > 0 && q.readers > 0 {
		q.ready.Signal()
	}
	return kept, nil
}

// Read implements Link.
func (q *queue) Read(bufs [][]byte, sizes []int) (int, error) {
	var own [overlay.BatchSize]*[]byte
	n := min(len(bufs), len(sizes), len(own))
	q.mu.Lock()
	for q.n == 0 && !q.closed.Load() {
		q.readers++
		q.ready.Wait()
		q.readers--
	}
	if q.closed.Load() {
		q.mu.Unlock()
		return 0, net.ErrClosed
	}
	n = min(n, q.n)
	for i := range n {
		p := q.ring[q.head]
		own[i], q.ring[q.head] = p, nil
		q.head = (q.head + 1) % queuePackets
		q.bytes -= len(*p)
	}
	q.n -= n
	if q.room != nil && q.roomy() {
		close(q.room)
		q.room = nil
	}
	q.mu.Unlock()
	for i, p := range own[:n] {
		sizes[i] = copy(bufs[i][overlay.Headroom:], *p)
		q.pool.Put(p)
	}
	return n, nil
}

// roomy reports whether the queue is at most half full. q.mu is held.
func (q *queue) roomy() bool {
	return q.n <= queuePackets/2 && q.bytes <= queueBytes/2
}

// Wake does nothing: no test's Read waits for probes.
func (q *queue) Wake() {}

// WaitRoom waits until the queue is at most half full or was closed, but no
// longer than d, and reports whether it is so. timer is the caller's, stopped,
// and is stopped again on return.
func (q *queue) WaitRoom(timer *time.Timer, d time.Duration, paced bool) bool {
	if !paced {
		return true
	}
	q.mu.Lock()
	if q.closed.Load() || q.roomy() {
		q.mu.Unlock()
		return true
	}
	if d == 0 {
		q.mu.Unlock()
		return false
	}
	if q.room == nil {
		q.room = make(chan struct{})
	}
	room := q.room
	q.mu.Unlock()
	timer.Reset(d)
	select {
	case <-room:
		timer.Stop()
		return true
	case <-timer.C:
		return false
	}
}

// Close implements Link. What is queued is dropped.
func (q *queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Load() {
		return nil
	}
	q.closed.Store(true)
	q.drops.Add(overlay.DropClosed, q.n)
	for ; q.n > 0; q.n-- {
		q.ring[q.head] = nil
		q.head = (q.head + 1) % queuePackets
	}
	q.bytes = 0
	if q.room != nil {
		close(q.room)
		q.room = nil
	}
	q.ready.Broadcast()
	return nil
}
