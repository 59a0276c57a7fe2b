package gossip

import "sync"

// Bounds of what waits to be sent over one session. One message of any size
// fits an empty outbox.
const (
	maxWaiting      = 512
	maxWaitingBytes = 2 << 20
)

// An outbox is what waits to be sent over one session. Its messages are shared:
// nobody changes them. Several put, one takes.
type outbox struct {
	news chan struct{} // capacity 1: something to take
	room chan struct{} // capacity 1: something was taken

	mu     sync.Mutex // guards what follows
	wait   [][]byte
	bytes  int  // of wait
	behind bool // something did not fit since the last take of nothing
}

func (o *outbox) init() {
	o.news, o.room = make(chan struct{}, 1), make(chan struct{}, 1)
}

// put has a message sent, if there is room.
func (o *outbox) put(b []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wait) > 0 && (len(o.wait) >= maxWaiting || o.bytes+len(b) > maxWaitingBytes) {
		return false
	}
	o.wait = append(o.wait, b)
	o.bytes += len(b)
	wake(o.news)
	return true
}

// missed takes note that something was not put and has to be found by comparing.
func (o *outbox) missed() {
	o.mu.Lock()
	o.behind = true
	o.mu.Unlock()
	wake(o.news)
}

// putWait is put that waits for room until done is closed.
func (o *outbox) putWait(b []byte, done <-chan struct{}) bool {
	for !o.put(b) {
		select {
		case <-o.room:
		case <-done:
			return false
		}
	}
	return true
}

// take returns the next message. When there is none, behind says, once, that
// some were missed.
func (o *outbox) take() (b []byte, behind bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.wait) == 0 {
		behind, o.behind = o.behind, false
		return nil, behind
	}
	b = o.wait[0]
	o.wait[0] = nil
	o.wait = o.wait[1:]
	o.bytes -= len(b)
	wake(o.room)
	return b, false
}
