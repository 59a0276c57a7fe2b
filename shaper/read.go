package shaper

import (
	"math"
	"net"
	"time"

	"slicewire/netstack/segment"
	"slicewire/overlay"
)

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
	q.mu.Unlock()
	q.signal()
}

// signal has Read look again.
func (q *Queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// takeSome moves packets that may go and stand for about room packets to took
// and returns how many. It puts back what was read before.
func (q *Queue) takeSome(room int, wait bool) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for p := q.spent; p != nil; {
		next := p.next
		q.pool.put(p)
		p = next
	}
	q.spent = nil
	for {
		if q.closed {
			return 0, net.ErrClosed
		}
		k, pause, everybody := q.takeLocked(room, q.now())
		if k > 0 || !wait || q.woken {
			q.woken = false
			return k, nil
		}
		q.waiting = !everybody
		q.mu.Unlock()
		q.sleep(pause)
		q.mu.Lock()
		q.waiting = false
	}
}

// nap is the least pause for a rate: what may go in the meantime goes at once
// afterwards. With less, a fast rate would have the process wake up for each
// packet.
const nap = 500 * time.Microsecond

// sleep waits for a signal, but no longer than pause.
func (q *Queue) sleep(pause time.Duration) {
	if pause == math.MaxInt64 {
		<-q.ready
		return
	}
	q.timer.Reset(max(pause, nap))
	select {
	case <-q.ready:
		q.timer.Stop()
	case <-q.timer.C:
	}
}

// takeLocked moves packets that may go at now to took. When there are none, it
// says for how long, and whether packets that come meanwhile change that.
func (q *Queue) takeLocked(room int, now time.Duration) (k int, pause time.Duration, everybody bool) {
	t := &q.tree
	shared := q.uplink != nil && q.uplink.uplink.limited.Load()
	if shared {
		q.uplink.quiet(now)
	}
	t.open(now)
	if len(t.classes) == 1 && !shared {
		k = q.takeOnly(t.classes[0], room, now)
	} else {
		k, pause = q.takeTurns(room, now, shared)
	}
	switch {
	case k > 0:
	case pause > 0:
		everybody = true
	default:
		pause, everybody = t.pause()
	}
	t.settle(now)
	return k, pause, everybody
}

// takeOnly is takeTurns for a slice with one class and its rate to itself: there is
// nobody to choose.
func (q *Queue) takeOnly(c *class, room int, now time.Duration) (k int) {
	t, sent, packets := &q.tree, 0, room
	for room > 0 && k < len(q.took) && t.ceiling.left > 0 && c.ceiling.left > 0 {
		p := c.take(now)
		if p == nil {
			break
		}
		t.ceiling.spend(p.cost)
		c.ceiling.spend(p.cost)
		sent += p.cost
		q.leftLocked(p)
		q.took[k] = p
		k++
		room -= p.count
	}
	c.eager = c.flows.packets > 0
	c.sent += uint64(sent)
	c.packets += uint64(packets - room)
	return k
}

// takeTurns takes packets of the classes whose turn it is. A pause above 0 is the
// Uplink's.
func (q *Queue) takeTurns(room int, now time.Duration, shared bool) (k int, pause time.Duration) {
	t := &q.tree
	for room > 0 && k < len(q.took) {
		which, owed := t.pick()
		if which < 0 {
			break
		}
		if shared && q.uplink.credit <= 0 {
			if pause = q.uplink.ask(now, t.wants()); pause > 0 {
				break
			}
		}
		p := t.take(which, owed, now)
		if p == nil {
			continue
		}
		if shared {
			q.uplink.credit -= p.cost
		}
		q.leftLocked(p)
		q.took[k] = p
		k++
		room -= p.count
	}
	return k, pause
}

// wants returns the bytes that would go now if nothing but the tree held them.
func (t *tree) wants() (n int) {
	for _, c := range t.classes {
		n += c.bytes
	}
	return int(max(1, min(float64(n), t.ceiling.left)))
}

// take removes the next packet of the picked class, or returns nil when CoDel
// left it none.
func (t *tree) take(which int, owed bool, now time.Duration) *packet {
	c := t.classes[which]
	p := c.take(now)
	c.eager = c.flows.packets > 0
	if p == nil {
		return nil
	}
	t.charge(which, owed, p.cost)
	c.packets += uint64(p.count)
	c.sent += uint64(p.cost)
	return p
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
