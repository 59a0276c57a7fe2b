package shaper

import (
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
)

const (
	// memoryMax bounds the buffers of what waits in one slice. At 2 Gbit/s it
	// holds 16 ms of full buffers: CoDel acts long before.
	memoryMax = 4 << 20
	// pacedMax is how many bytes may wait of those whose writer can be held
	// back: enough to keep the tunnel busy while the writer is woken.
	pacedMax = 256 << 10
	// drainedTo is how much memory may be in use while more is read from writers
	// that cannot be held back: what they send beyond that is lost where it costs
	// least, in their own kernel.
	drainedTo = memoryMax / 4 * 3
	// outerBytes is what a packet costs on the underlay beside its own bytes: 32
	// of WireGuard, 8 of UDP, 20 of IPv4. Without them small packets would be
	// cheaper than they are.
	outerBytes = 60
)

// A Queue is the way of a slice's packets to its tunnel. Write takes what the
// router sends outside; Read is what the tunnel pulls.
type Queue struct {
	drops overlay.Drops
	seed  uint64
	start time.Time

	mu      sync.Mutex
	ready   sync.Cond // the queue got a packet or was closed
	flows   flows
	pool    pool
	paced   int           // bytes of paced packets
	room    chan struct{} // nil unless somebody waits for paced to fall; closed when it has
	drained chan struct{} // nil unless somebody waits for memory; closed when there is
	waiting bool          // Read waits on ready
	woken   bool          // Wake was called and Read has not returned since
	closed  bool

	// The reader's own.
	cutting *packet // of which cut has the rest
	cut     segment.Cutter
	spent   *packet // read, to be put back
	took    [overlay.BatchSize]*packet
}

// New makes an empty Queue.
func New() *Queue {
	q := &Queue{seed: rand.Uint64(), start: time.Now()}
	q.ready.L = &q.mu
	q.flows.dropped = q.dropLocked
	return q
}

func (q *Queue) now() time.Duration { return time.Since(q.start) }

// Drops returns the counts of packets that went no further.
func (q *Queue) Drops() *overlay.Drops { return &q.drops }

// dropLocked accounts for a packet that the scheduler gave up.
func (q *Queue) dropLocked(p *packet, full bool) {
	reason := overlay.DropDelay
	if full {
		reason = overlay.DropQueueFull
	}
	q.drops.Add(reason, p.count)
	q.leftLocked(p)
	q.pool.put(p)
}

// Write takes packets: bufs[i] is Headroom bytes, whose Meta says what it is,
// and then the packet. It keeps no buffer and never waits; when memory is full,
// the longest queue loses.
func (q *Queue) Write(bufs [][]byte) error {
	var own [overlay.BatchSize]*packet
	var hash [overlay.BatchSize]uint32
	for len(bufs) > 0 {
		n := min(len(bufs), len(own))
		now := q.now()
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return net.ErrClosed
		}
		for i, b := range bufs[:n] {
			own[i] = q.pool.get(len(b) - overlay.Headroom)
		}
		q.mu.Unlock()
		for i, b := range bufs[:n] {
			p, meta := own[i], overlay.MetaOf(b)
			p.buf = p.mem[:copy(p.mem, b[overlay.Headroom:])]
			p.meta, p.came = meta, now
			p.count = meta.Packets(len(p.buf), ipv4Header) // one more at most, where headers count for data
			p.cost = len(p.buf) + p.count*outerBytes
			hash[i] = flowHash(p.buf, q.seed)
		}
		bufs = bufs[n:]
		q.put(own[:n], hash[:n])
	}
	return nil
}

func (q *Queue) put(own []*packet, hash []uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		for _, p := range own {
			q.drops.Add(overlay.DropClosed, p.count)
		}
		return
	}
	for i, p := range own {
		if p.meta.Paced {
			q.paced += len(p.buf)
		}
		q.flows.put(p, hash[i])
	}
	for q.flows.mem > memoryMax {
		q.flows.shed()
	}
	if q.waiting {
		q.waiting = false
		q.ready.Signal()
	}
}

// leftLocked accounts for a packet that is no longer queued.
func (q *Queue) leftLocked(p *packet) {
	if q.drained != nil && q.flows.mem <= drainedTo {
		close(q.drained)
		q.drained = nil
	}
	if !p.meta.Paced {
		return
	}
	q.paced -= len(p.buf)
	if q.room != nil && q.paced <= pacedMax/2 {
		close(q.room)
		q.room = nil
	}
}

// Read fills bufs with packets that may go now, cut to their size and with
// whole checksums; it waits for the first. Each buffer has room for any packet.
func (q *Queue) Read(bufs [][]byte, sizes []int) (int, error) {
	most := min(len(bufs), len(sizes), len(q.took))
	n := q.cutInto(bufs, sizes, 0, most)
	for n < most {
		k, err := q.takeSome(most-n, n == 0)
		if err != nil && n == 0 {
			return 0, err
		}
		if k == 0 {
			break
		}
		for i, p := range q.took[:k] {
			q.took[i] = nil
			n = q.unpack(p, bufs, sizes, n, most)
		}
	}
	return n, nil
}

// Wake has a Read that waits, or else the next one that would, return without a
// packet.
func (q *Queue) Wake() {
	q.mu.Lock()
	q.woken = true
	q.ready.Signal()
	q.mu.Unlock()
}

// takeSome moves packets that stand for about room packets to took and returns
// how many. It puts back what was read before.
func (q *Queue) takeSome(room int, wait bool) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := q.spent; p != nil; {
		next := p.next
		q.pool.put(p)
		p = next
	}
	q.spent = nil
	for wait && q.flows.packets == 0 && !q.closed && !q.woken {
		q.waiting = true
		q.ready.Wait()
	}
	q.woken = false
	if q.closed {
		return 0, net.ErrClosed
	}
	now := q.now()
	k := 0
	for room > 0 && k < len(q.took) {
		p := q.flows.take(now)
		if p == nil {
			break
		}
		q.leftLocked(p)
		q.took[k] = p
		k++
		room -= p.count
	}
	return k, nil
}

// unpack writes a packet, or as many of those that it stands for as there is
// room for, and returns the new number of packets in bufs.
func (q *Queue) unpack(p *packet, bufs [][]byte, sizes []int, n, most int) int {
	switch {
	case p.meta.Piece == 0:
		sizes[n] = copy(bufs[n][overlay.Headroom:], p.buf)
		q.spend(p)
		return n + 1
	case !q.cut.Start(p.buf, segment.IsTCP(p.buf), int(p.meta.Piece)):
		q.drops.Add(overlay.DropMalformed, p.count)
		q.spend(p)
		return n
	}
	q.cutting = p
	return q.cutInto(bufs, sizes, n, most)
}

// cutInto goes on cutting until bufs are full or nothing is left.
func (q *Queue) cutInto(bufs [][]byte, sizes []int, n, most int) int {
	if q.cutting == nil {
		return n
	}
	for n < most && q.cut.Busy() {
		size := q.cut.Next(bufs[n][overlay.Headroom:])
		if size == 0 {
			q.drops.Add(overlay.DropTooBig, 1)
			break
		}
		sizes[n] = size
		n++
	}
	if !q.cut.Busy() {
		q.spend(q.cutting)
		q.cutting = nil
	}
	return n
}

func (q *Queue) spend(p *packet) {
	p.next = q.spent
	q.spent = p
}

// WaitRoom waits until there is room for more, or the queue is closed, but no
// longer than d, and reports whether it is so. For a paced writer there is room
// while little of what is paced waits; for another, while a quarter of the memory
// is free. timer is the caller's, stopped on entry and on return.
func (q *Queue) WaitRoom(timer *time.Timer, d time.Duration, paced bool) bool {
	q.mu.Lock()
	room, c := q.flows.mem <= drainedTo, &q.drained
	if paced {
		room, c = q.paced <= pacedMax, &q.room
	}
	if q.closed || room || d == 0 {
		closed := q.closed
		q.mu.Unlock()
		return closed || room
	}
	if *c == nil {
		*c = make(chan struct{})
	}
	there := *c
	q.mu.Unlock()
	timer.Reset(d)
	defer timer.Stop()
	select {
	case <-there:
		return true
	case <-timer.C:
		return false
	}
}

// Close ends Read and Write with net.ErrClosed; what waits is dropped. Again
// does nothing.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	for i := range q.flows.all {
		for f := &q.flows.all[i]; f.head != nil; {
			p := q.flows.pop(f)
			q.drops.Add(overlay.DropClosed, p.count)
		}
	}
	q.paced, q.pool = 0, pool{}
	for _, c := range []*chan struct{}{&q.room, &q.drained} {
		if *c != nil {
			close(*c)
			*c = nil
		}
	}
	q.ready.Broadcast()
	return nil
}
