package router

import (
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// What a batch does with flows beside finding them one by one: it asks the
// memory for many of them at once, remembers their ways out, and accounts for
// them when it is done.

// begin prepares a batch from a port that will ask a policy.
func (b *batch) begin(t *table, in *port, now time.Duration) {
	b.now, b.table = ticks(now), t.flows
	b.from = uint64(uint32(t.version))<<16 | uint64(t.numbers[in])
}

// warmFrom is from how many flows on a batch asks for its flows beforehand:
// fewer are in the processor's nearest cache anyway.
const warmFrom = 256

// hashed is set in each hash of a flow, so that 0 is none.
const hashed = 1 << 63

// warm reads the flows of a batch, those that are first in their buckets, so
// that the processor waits for all of them at once and not for one after the
// other. It only guesses at what the packets are.
func (t *flowTable) warm(b *batch, bufs [][]byte) {
	for i, buf := range bufs {
		b.first[i], b.hashes[i] = 0, 0
		pkt := buf[overlay.Headroom:]
		var p info
		switch {
		case len(pkt) >= ipv4Header+icmpHeader && pkt[0] == 0x45:
			p.l4, p.proto = ipv4Header, pkt[9]
		case len(pkt) >= ipv6Header+icmpHeader && pkt[0]>>4 == 6:
			p.l4, p.proto, p.v6 = ipv6Header, pkt[6], true
		default:
			continue
		}
		k := keyOf(pkt, &p)
		b.hashes[i] = t.hash(&k) | hashed
		b.first[i] = t.head(b.hashes[i]).Load()
	}
	for _, n := range b.first[:len(bufs)] {
		if n != 0 {
			e := t.at(n)
			b.warmed += e.seq.Load() + e.marks.Load() // both lines
		}
	}
}

// wayOf is how a flow's entry has a way out: under which version of the table,
// from which port and to which, by number. 0 is none.
func (t *table) wayOf(in, out *port) uint64 {
	from, to := t.numbers[in], t.numbers[out]
	if from == 0 || to == 0 {
		return 0
	}
	return t.version<<32 | uint64(from)<<16 | uint64(to)
}

// recall returns the way out of a packet of a remembered flow: the one that its
// addresses had under this version of the table, from this port. Whoever has the
// addresses of somebody's flow and another port gets no answer here.
func (t *table) recall(b *batch, pkt []byte, p *info) *port {
	b.key.read(pkt, p)
	if !b.warm || p.l4 != ipv4Header && p.l4 != ipv6Header { // else warm guessed right
		b.hash = t.flows.hash(&b.key) | hashed
	}
	b.found = t.flows.findIn(t.flows.head(b.hash), &b.key)
	if w := b.found.way; w != 0 && w>>16 == b.from {
		return t.ports[uint16(w)]
	}
	return nil
}

// learn keeps the way out of the packet at hand with its flow. It is the lock
// that says the flow is still the same; when it is taken, the next packet learns.
func (t *table) learn(b *batch, in, out *port) {
	f := t.flows
	if !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if e := b.entry; e.seq.Load() == b.seq {
		dir := 0
		if b.back {
			dir = 1
		}
		e.ways[dir].Store(t.wayOf(in, out))
	}
}

// A charge is what a batch owes a flow's counters.
type charge struct {
	entry          *flowEntry
	packets, bytes uint64
	seq            uint32
	back           bool
}

// charge notes that a packet of b.entry, or one that stands for n, went on.
func (b *batch) charge(n, size int) {
	if b.charged > 0 {
		if c := &b.charges[b.charged-1]; c.entry == b.entry && c.back == b.back && c.seq == b.seq {
			c.packets += uint64(n)
			c.bytes += uint64(size)
			return
		}
	}
	b.charges[b.charged] = charge{b.entry, uint64(n), uint64(size), b.seq, b.back}
	b.charged++
}

// settle pays what is owed. It is called before the batch changes the table, so
// that no flow is paid for the one that had its place.
func (b *batch) settle() {
	for i := range b.charges[:b.charged] {
		c := &b.charges[i]
		if e := c.entry; e.seq.Load() == c.seq {
			dir := 0
			if c.back {
				dir = 1
			}
			if e.count[dir].add(c.packets, c.bytes) {
				b.table.fold(e, dir)
			}
		}
		c.entry = nil
	}
	b.charged = 0
}

// A flowCount is a number of packets and, in the lower bits, one of bytes: in
// one word, as adding to it is what an accounted packet costs most.
type flowCount struct{ n atomic.Uint64 }

const (
	countShift = 40
	countFull  = 1<<63 | 1<<(countShift-1) // half of what either has room for
)

// add reports whether it is time to fold.
func (c *flowCount) add(packets, bytes uint64) bool {
	return c.n.Add(packets<<countShift|bytes)&countFull != 0
}

// fold makes room in a count.
func (t *flowTable) fold(e *flowEntry, dir int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	v, f := e.count[dir].n.Swap(0), &t.book(e.index).folded[dir]
	f.packets += v >> countShift
	f.bytes += v & (1<<countShift - 1)
}

// countLocked is how many packets and bytes went one way.
func (t *flowTable) countLocked(e *flowEntry, dir int) (packets, bytes uint64) {
	v, f := e.count[dir].n.Load(), &t.book(e.index).folded[dir]
	return f.packets + v>>countShift, f.bytes + v&(1<<countShift-1)
}
