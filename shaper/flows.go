package shaper

import (
	"time"

	"slicewire/overlay"
)

const (
	// flowQueues is how many queues flows are spread over by hash. With 100
	// flows, one in ten shares its queue with another (RFC 8290 section 5.3).
	flowQueues = 1024
	// quantumJoined is how many bytes a queue may send in a turn. It is more than a
	// packet, as packets that stand for several are the rule, and little enough
	// that a sparse flow waits for no other's turn longer than some 15 us at
	// 2 Gbit/s.
	quantumJoined = 4096
	// quantumCut is the same where such packets are cut when they come: a packet.
	quantumCut = 1514
)

// A packet is queued. It is in one queue or none.
type packet struct {
	buf   []byte // the IP packet, in mem
	mem   []byte // all of the buffer
	meta  overlay.Meta
	count int // packets that it stands for
	cost  int // bytes that are charged for it
	hash  uint32
	class *class // its queue's
	came  time.Duration
	next  *packet
}

// A flow is the queue of the flows with one hash. It is on the list of new or
// of old queues when it is listed.
type flow struct {
	head, tail *packet
	bytes      int // charged for the packets in it
	deficit    int // bytes that it may still send in this turn; may be negative
	listed     bool
	codel      codel
	next       *flow
}

func (f *flow) push(p *packet) {
	p.next = nil
	if f.tail == nil {
		f.head = p
	} else {
		f.tail.next = p
	}
	f.tail = p
	f.bytes += p.cost
}

func (f *flow) pop() *packet {
	p := f.head
	f.head = p.next
	if f.head == nil {
		f.tail = nil
	}
	p.next = nil
	f.bytes -= p.cost
	return p
}

// A flowList is a first-in first-out list of queues.
type flowList struct{ head, tail *flow }

func (l *flowList) push(f *flow) {
	f.next = nil
	if l.tail == nil {
		l.head = f
	} else {
		l.tail.next = f
	}
	l.tail = f
}

func (l *flowList) pop() *flow {
	f := l.head
	l.head = f.next
	if l.head == nil {
		l.tail = nil
	}
	f.next = nil
	return f
}

// flows is the scheduler of RFC 8290: which packet leaves next. It is pure: it
// has no lock, no clock and no buffers of its own.
type flows struct {
	all      [flowQueues]flow
	fresh    flowList // queues that were empty: they go first, for one turn
	old      flowList
	packets  int
	bytes    int // charged for all
	mem      int // bytes of the buffers of all packets
	largest  int // charge of one packet so far
	quantum  int
	control  control
	dropped  func(p *packet, full bool)
	markings uint64
}

// put appends p to the queue of its hash.
func (s *flows) put(p *packet, hash uint32) {
	f := &s.all[hash%flowQueues]
	f.push(p)
	s.packets++
	s.bytes += p.cost
	s.mem += len(p.mem)
	s.largest = max(s.largest, p.cost)
	if !f.listed {
		f.listed, f.deficit = true, s.quantum
		s.fresh.push(f)
	}
}

// take removes the packet that is to leave at now, or returns nil when there is
// none. What CoDel drops on the way goes to dropped.
func (s *flows) take(now time.Duration) *packet {
	for {
		list := &s.fresh
		if list.head == nil {
			list = &s.old
		}
		f := list.head
		if f == nil {
			return nil
		}
		if f.deficit <= 0 {
			f.deficit += s.quantum
			s.old.push(list.pop())
			continue
		}
		p := s.leave(f, now)
		if p == nil {
			list.pop()
			// An empty new queue takes a turn as an old one before it may be new
			// again: else a flow of single packets would starve the others.
			if list == &s.fresh && s.old.head != nil {
				s.old.push(f)
			} else {
				f.listed = false
			}
			continue
		}
		f.deficit -= p.cost
		return p
	}
}

// leave takes the first packet of f that CoDel lets go. A drop tells a sender to
// slow down; a paced one has been told already, by waiting, and how much of its
// packets can wait is bounded. To drop one that stands for 46 would only stop it.
func (s *flows) leave(f *flow, now time.Duration) *packet {
	for f.head != nil {
		drop := !f.head.meta.Paced && f.codel.next(s.control, now, f.head.came, f.bytes > s.largest)
		p := s.pop(f)
		if !drop {
			return p
		}
		if markCE(p.buf) {
			s.markings++
			return p
		}
		s.dropped(p, false)
	}
	f.codel.dropping, f.codel.firstAbove = false, 0
	return nil
}

func (s *flows) pop(f *flow) *packet {
	p := f.pop()
	s.packets--
	s.bytes -= p.cost
	s.mem -= len(p.mem)
	return p
}

// shedAtOnce is how many packets are dropped when the longest queue had to be
// looked for, which takes long.
const shedAtOnce = 16

// shed makes room: it drops from the head of the longest queue, up to half of
// it and shedAtOnce packets. Its head is oldest, so its sender hears first.
func (s *flows) shed() {
	f := &s.all[0]
	for i := range s.all {
		if s.all[i].bytes > f.bytes {
			f = &s.all[i]
		}
	}
	for n, half := 0, f.bytes/2; f.head != nil && n < shedAtOnce && (n == 0 || f.bytes > half); n++ {
		s.dropped(s.pop(f), true)
	}
}
