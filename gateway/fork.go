package gateway

import (
	"net"
	"sync"
	"sync/atomic"
)

// A fork shares a slice's Link between the devices that the slice has while its
// keys change. Any of them may write; one of them, the sender, reads. Who sends
// is changed between two packets: none is lost, and none is read twice.
type fork struct {
	link    Link
	sender  atomic.Pointer[branch] // nil: nobody reads
	reading sync.Mutex             // held while a branch is in link.Read: the one before may not have left yet

	mu   sync.Mutex
	open int // branches
}

// A branch is the Link as one device sees it. It is a Waker.
type branch struct {
	fork  *fork
	woken chan struct{} // capacity 1: Read should return, or see whether it may read
	done  chan struct{} // closed by Close
	once  sync.Once
}

func (f *fork) branch() *branch {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open++
	return &branch{fork: f, woken: make(chan struct{}, 1), done: make(chan struct{})}
}

// send has b read the Link from now on. What another has read before is that
// one's to send.
func (f *fork) send(b *branch) {
	if f.sender.Swap(b) != b {
		b.Wake() // also whoever read until now
	}
}

func (f *fork) wake() {
	if w, ok := f.link.(Waker); ok {
		w.Wake()
	}
}

// Read waits for packets while the branch sends, and otherwise until it is
// woken.
func (b *branch) Read(bufs [][]byte, sizes []int) (int, error) {
	for {
		if b.fork.sender.Load() == b {
			if n, took, err := b.readLink(bufs, sizes); took {
				return n, err
			}
			continue
		}
		select {
		case <-b.done:
			return 0, net.ErrClosed
		case <-b.woken:
			return 0, nil
		}
	}
}

// readLink reads the Link unless the branch does not send any more.
func (b *branch) readLink(bufs [][]byte, sizes []int) (n int, took bool, err error) {
	f := b.fork
	f.reading.Lock()
	defer f.reading.Unlock()
	select {
	case <-b.done:
		return 0, true, net.ErrClosed
	case <-b.woken: // whoever read before may have had the Link's own wake-up
		return 0, true, nil
	default:
	}
	if f.sender.Load() != b {
		return 0, false, nil
	}
	n, err = f.link.Read(bufs, sizes)
	select {
	case <-b.woken: // Read has returned: that is all it is for
	default:
	}
	return n, true, err
}

func (b *branch) Write(bufs [][]byte) error { return b.fork.link.Write(bufs) }

// Wake has Read return without a packet, now or as soon as it would wait.
func (b *branch) Wake() {
	select {
	case b.woken <- struct{}{}:
	default:
	}
	if b.fork.sender.Load() == b {
		b.fork.wake()
	}
}

// Close ends the branch's Read, and with the last branch the Link.
func (b *branch) Close() (err error) {
	b.once.Do(func() {
		close(b.done)
		f := b.fork
		f.mu.Lock()
		f.open--
		last := f.open == 0
		f.mu.Unlock()
		if last {
			err = f.link.Close()
			return
		}
		f.wake()
	})
	return err
}
