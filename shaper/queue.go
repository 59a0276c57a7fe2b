package shaper

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
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
	drops  overlay.Drops
	seed   uint64
	start  time.Time
	plan   atomic.Pointer[plan]
	ready  chan struct{} // capacity 1: Read should look again
	uplink *member       // nil: the node's uplink has no rate

	mu      sync.Mutex
	tree    tree
	pool    pool
	paced   int           // bytes of paced packets
	room    chan struct{} // nil unless somebody waits for paced to fall; closed when it has
	drained chan struct{} // nil unless somebody waits for memory; closed when there is
	waiting bool          // Read waits for a packet
	woken   bool          // Wake was called and Read has not returned since
	closed  bool

	// The reader's own.
	timer   *time.Timer // of a pause
	cutting *packet     // of which cut has the rest
	cut     segment.Cutter
	spent   *packet // read, to be put back
	took    [overlay.BatchSize]*packet
}

// plan is a Plan as writers see it.
type plan struct {
	classify func(pkt []byte) int
	classes  []planClass
	shaped   bool // what is in the queue waits for its class's rate
}

type planClass struct {
	class *class
	cut   bool
	mark  bool
	dscp  uint8
}

// New makes an empty Queue with the zero Plan. Its packets share uplink's rate
// with those of its other Queues; nil is none.
func New(uplink *Uplink) *Queue {
	q := &Queue{seed: rand.Uint64(), start: time.Now(), ready: make(chan struct{}, 1), timer: time.NewTimer(time.Hour)}
	q.timer.Stop()
	if uplink != nil {
		q.uplink = uplink.join(q.signal)
		q.start = uplink.start
	}
	q.Set(Plan{})
	return q
}

func (q *Queue) now() time.Duration { return time.Since(q.start) }

// Drops returns the counts of packets that went no further.
func (q *Queue) Drops() *overlay.Drops { return &q.drops }

// Set has p in force from now on. What is queued stays: packets of a class that p
// does not have go to its first. The Plan's slices are the Queue's afterwards.
func (q *Queue) Set(p Plan) {
	if len(p.Classes) == 0 {
		p.Classes = []Class{{}}
	}
	p.Classes = p.Classes[:min(len(p.Classes), ClassesMax)]
	now := q.now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	old := make(map[string]*class)
	for _, c := range q.tree.classes {
		old[c.name] = c
	}
	next := &plan{classify: p.Classify, shaped: p.Ceiling > 0 && p.Ceiling < cutBelow}
	var classes []*class
	var shares []*share
	var conf []Share
	for _, c := range p.Classes {
		x := old[c.Name]
		if x == nil {
			x = newClass(c.Name, q.dropLocked)
		}
		delete(old, c.Name)
		most := least(p.Ceiling, c.Ceiling)
		x.limits(most)
		slow := most > 0 && most < cutBelow
		next.shaped = next.shaped || slow
		classes, shares, conf = append(classes, x), append(shares, &x.share), append(conf, c.Share)
		next.classes = append(next.classes, planClass{x, slow, c.Mark, c.DSCP & 63})
	}
	q.tree.set(now, p.Ceiling, shares, conf)
	q.tree.classes = classes
	for _, c := range old {
		c.gone = true
		q.moveLocked(c, classes[0])
	}
	if q.uplink != nil {
		q.uplink.set(now, p.Share)
	}
	q.plan.Store(next)
	q.signal()
}

// moveLocked queues what waits in a class that is gone in another.
func (q *Queue) moveLocked(from, to *class) {
	for i := range from.all {
		for f := &from.all[i]; f.head != nil; {
			p := from.pop(f)
			p.class = to
			to.put(p, p.hash)
		}
	}
	to.eager = to.flows.packets > 0
}

// dropLocked accounts for a packet that the scheduler gave up.
func (q *Queue) dropLocked(p *packet, full bool) {
	reason := overlay.DropDelay
	if full {
		reason = overlay.DropQueueFull
	}
	q.drops.Add(reason, p.count)
	p.class.lost += uint64(p.count)
	q.leftLocked(p)
	q.pool.put(p)
}

// Write takes packets: bufs[i] is Headroom bytes, whose Meta says what it is,
// and then the packet. It keeps no buffer and never waits; when memory is full,
// the longest queue loses.
func (q *Queue) Write(bufs [][]byte) error {
	var own [overlay.BatchSize]*packet
	pl := q.plan.Load()
	c := &pl.classes[0]
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
		toCut := false
		for i, b := range bufs[:n] {
			p := own[i]
			p.meta, p.came = overlay.MetaOf(b), now
			p.buf = p.mem[:copy(p.mem, b[overlay.Headroom:])]
			if pl.classify != nil {
				c = pl.of(p.buf)
			}
			p.class = c.class
			p.count = p.meta.Packets(len(p.buf), ipv4Header) // one more at most, where headers count for data
			p.cost = len(p.buf) + p.count*outerBytes
			p.hash = flowHash(p.buf, q.seed)
			if c.mark {
				setDSCP(p.buf, c.dscp)
			}
			if c.cut {
				if p.meta.Piece != 0 {
					toCut = true
				} else {
					p.meta.Paced = false
				}
			}
		}
		bufs = bufs[n:]
		if toCut {
			q.putCut(pl, own[:n])
		} else {
			q.put(own[:n])
		}
	}
	return nil
}

// of returns the class of a packet, by classify, which is there.
func (pl *plan) of(pkt []byte) *planClass {
	if i := pl.classify(pkt); i >= 0 && i < len(pl.classes) {
		return &pl.classes[i]
	}
	return &pl.classes[0]
}

// cuts reports whether packets of a class are cut when they come.
func (pl *plan) cuts(c *class) bool {
	for i := range pl.classes {
		if pl.classes[i].class == c {
			return pl.classes[i].cut
		}
	}
	return false
}

// putCut queues packets, those of slow classes that stand for several as what
// they stand for.
func (q *Queue) putCut(pl *plan, own []*packet) {
	var cut segment.Cutter
	for _, p := range own {
		if p.meta.Piece == 0 || !pl.cuts(p.class) {
			q.put([]*packet{p})
			continue
		}
		if !cut.Start(p.buf, segment.IsTCP(p.buf), int(p.meta.Piece)) {
			q.drops.Add(overlay.DropMalformed, p.count)
		}
		for cut.Busy() {
			q.putPieces(&cut, p)
		}
		q.mu.Lock()
		q.pool.put(p)
		q.mu.Unlock()
	}
}

// putPieces queues a batch of what whole stands for.
func (q *Queue) putPieces(cut *segment.Cutter, whole *packet) {
	var own [overlay.BatchSize]*packet
	n, size := min(cut.Pieces(), len(own)), cut.PieceSize()
	q.mu.Lock()
	for i := range n {
		own[i] = q.pool.get(size)
	}
	q.mu.Unlock()
	for _, p := range own[:n] {
		p.meta, p.came, p.class, p.count, p.hash = overlay.Meta{}, whole.came, whole.class, 1, whole.hash
		p.buf = p.mem[:cut.Next(p.mem)]
		p.cost = len(p.buf) + outerBytes
	}
	q.put(own[:n])
}

func (q *Queue) put(own []*packet) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		for _, p := range own {
			q.drops.Add(overlay.DropClosed, p.count)
		}
		return
	}
	for _, p := range own {
		c := p.class
		if c.gone {
			c = q.tree.classes[0]
			p.class = c
		}
		if p.meta.Paced {
			q.paced += len(p.buf)
		}
		c.put(p, p.hash)
		if c.eager = true; c.mem > c.memMax {
			c.shed()
		}
	}
	for len(q.tree.classes) > 1 && q.tree.mem() > memoryMax {
		q.tree.largest().shed()
	}
	if q.waiting {
		q.waiting = false
		q.signal()
	}
}

// leftLocked accounts for a packet that is no longer queued.
func (q *Queue) leftLocked(p *packet) {
	if q.drained != nil && q.tree.mem() <= drainedTo {
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

// WaitRoom waits until there is room for more, or the queue is closed, but no
// longer than d, and reports whether it is so. For a paced writer there is room
// while little of what is paced waits; for another, while a quarter of the memory
// is free, or always where a rate decides what is lost: to hold one class back
// would hold back the others behind it. timer is the caller's, stopped on entry and on return.
func (q *Queue) WaitRoom(timer *time.Timer, d time.Duration, paced bool) bool {
	q.mu.Lock()
	room, c := q.tree.mem() <= drainedTo || q.plan.Load().shaped, &q.drained
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
	for _, c := range q.tree.classes {
		for i := range c.all {
			for f := &c.all[i]; f.head != nil; {
				p := c.pop(f)
				q.drops.Add(overlay.DropClosed, p.count)
			}
		}
	}
	q.paced, q.pool = 0, pool{}
	for _, c := range []*chan struct{}{&q.room, &q.drained} {
		if *c != nil {
			close(*c)
			*c = nil
		}
	}
	if q.uplink != nil {
		q.uplink.leave()
	}
	q.signal()
	return nil
}
