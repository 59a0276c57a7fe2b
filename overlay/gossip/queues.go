package gossip

import "sync"

// Bounds of what waits to be worked on. What does not fit is dropped and
// counted: summaries find later what was missed.
const (
	maxInbox      = 1024
	maxInboxBytes = 8 << 20
	maxOutbox     = 1024
	maxOutboxCost = 8 << 20
)

// A job is something to send. The messages are made when it is its
// turn, so that they say what holds then.
type job struct {
	to     string // a member's name
	make   func() [][]byte
	packet bool // by packet, which may be lost
	fit    bool // by packet those that fit
	cost   int  // bytes from outside that make holds on to
}

// queues stand between memberlist's callbacks, which must not wait, and the
// goroutines that work.
type queues struct {
	in   chan []byte
	out  chan job
	join chan struct{} // capacity 1: somebody to look for
	tend chan struct{} // capacity 1: something to sign

	mu    sync.Mutex
	bytes int // in the channel in; 0 <= bytes <= maxInboxBytes
	costs int // of the jobs in out and at work; 0 <= costs <= maxOutboxCost
}

func (q *queues) init() {
	q.in = make(chan []byte, maxInbox)
	q.out = make(chan job, maxOutbox)
	q.join = make(chan struct{}, 1)
	q.tend = make(chan struct{}, 1)
}

// receive takes a copy of a message, if there is room.
func (q *queues) receive(b []byte) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+len(b) > maxInboxBytes {
		return false
	}
	select {
	case q.in <- append([]byte(nil), b...):
		q.bytes += len(b)
		return true
	default:
		return false
	}
}

// taken makes room for as many bytes as were taken out.
func (q *queues) taken(n int) {
	q.mu.Lock()
	q.bytes -= n
	q.mu.Unlock()
}

func (q *queues) send(j job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.costs+j.cost > maxOutboxCost {
		return false
	}
	select {
	case q.out <- j:
		q.costs += j.cost
		return true
	default:
		return false
	}
}

// done makes room for the cost of a job that was worked on.
func (q *queues) done(j job) {
	q.mu.Lock()
	q.costs -= j.cost
	q.mu.Unlock()
}

func (q *queues) wakeJoiner()     { wake(q.join) }
func (q *queues) wakeMaintainer() { wake(q.tend) }

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
