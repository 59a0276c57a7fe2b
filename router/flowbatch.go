package router

import (
	"time"

	"slicewire/overlay"
)

// What a batch does with flows beside finding them one by one: it asks the
// memory for many of them at once, remembers their ways out, and accounts for
// them when it is done.

// begin prepares a batch from a port that will ask a policy.
func (b *batch) begin(t *table, in *port, now time.Duration) {
	b.now = ticks(now)
	b.from = uint64(uint32(t.version))<<16 | uint64(t.numbers[in])
}

// warmFrom is from how many flows on a batch asks for its flows beforehand:
// fewer are in the processor's nearest cache anyway.
const warmFrom = 256

// warm reads the flows of a batch, those that are first in their buckets, so
// that the processor waits for all of them at once and not for one after the
// other. It only guesses at what the packets are.
func (t *flowTable) warm(b *batch, bufs [][]byte) {
	for i, buf := range bufs {
		b.first[i] = 0
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
		b.first[i] = t.bucket(&k).Load()
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
	b.key = keyOf(pkt, p)
	b.found = t.flows.find(&b.key)
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
			n := &e.count[0]
			if c.back {
				n = &e.count[1]
			}
			n.packets.Add(c.packets)
			n.bytes.Add(c.bytes)
		}
		c.entry = nil
	}
	b.charged = 0
}
