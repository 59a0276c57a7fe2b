package shaper

import "time"

// ClassStats is what has become of a class's packets since it is there. What was
// dropped, too, was once queued.
type ClassStats struct {
	Name           string
	Packets, Bytes uint64 // that left; bytes as charged
	Drops, Marks   uint64 // packets that were given up, and that were marked as having met congestion
	Waiting        int    // packets that wait
	WaitingBytes   int    // charged for those
}

// Stats returns the counts of the classes of the Plan in force, in its order. It
// may be called at any time.
func (q *Queue) Stats() []ClassStats {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]ClassStats, 0, len(q.tree.classes))
	for _, c := range q.tree.classes {
		waiting := 0
		for i := range c.all {
			for p := c.all[i].head; p != nil; p = p.next {
				waiting += p.count
			}
		}
		out = append(out, ClassStats{
			Name: c.name, Packets: c.packets, Bytes: c.sent, Drops: c.lost, Marks: c.markings,
			Waiting: waiting, WaitingBytes: c.bytes,
		})
	}
	return out
}

// Use returns the bytes that left, as charged, and for how long packets have waited
// for nothing but the Plan's ceiling, both since the Queue is there.
func (q *Queue) Use() (sent uint64, held time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.sent, q.held
}

// hold notes at now, after what may go has gone, whether the ceiling alone holds
// back the rest.
func (q *Queue) hold(now time.Duration) {
	q.holding = q.tree.ceiling.left <= 0 && q.tree.waits()
	q.heldAt = now
}

// release adds up the time since the last hold.
func (q *Queue) release(now time.Duration) {
	if q.holding {
		q.held += now - q.heldAt
		q.holding = false
	}
}

// waits reports whether anything waits.
func (t *tree) waits() bool {
	for _, c := range t.classes {
		if c.eager {
			return true
		}
	}
	return false
}
