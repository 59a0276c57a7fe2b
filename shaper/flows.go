package shaper

import (
	"time"

	"slicewire/overlay"
)

const (
	// flowQueues is how many queues flows are spread over by hash.
	flowQueues = 1024
	// ways is how many queues a flow may have one of: those of a set, as in a
	// set-associative cache (Høiland-Jørgensen, Täht and Morton: Piece of CAKE,
	// 2018). With one queue for each hash, two of 16 flows share theirs in one of
	// ten cases, and each has half of what it should.
	ways = 8
	// taken marks the tag of a queue in use.
	taken = 1 << 32
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

// A flow is the queue of the packets with one hash, or more if it is shared. It
// is on the list of new or of old queues when it is listed.
type flow struct {
	head, tail *packet
	bytes      int // charged for the packets in it
	deficit    int // bytes that it may still send in this turn; may be negative
	listed     bool
	shared     bool   // with flows that found their set full
	slot       uint16 // its place among all
	hash       uint32 // whose it is, or was last
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
	tags     [flowQueues]uint64 // whose each queue is while it is listed: taken and a hash; 0: nobody's
	fresh    flowList           // queues that were empty: they go first, for one turn
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
	f := s.queueOf(hash)
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

// queueOf returns the queue of a flow: the one that it has, else its own place,
// else another free one of the set. When all of those are taken it shares its own
// place, until that is free: else its packets could overtake each other.
func (s *flows) queueOf(hash uint32) *flow {
	own := hash % flowQueues
	tag := taken | uint64(hash)
	if s.tags[own] == tag {
		return &s.all[own]
	}
	slot, first := own, own&^(ways-1)
	for i, t := range s.tags[first : first+ways] {
		if t == tag {
			return &s.all[first+uint32(i)]
		}
		if t == 0 {
			slot = first + uint32(i)
		}
	}
	if f := &s.all[own]; f.shared || slot == own && s.tags[own] != 0 {
		f.shared = true
		return f
	}
	if s.tags[own] == 0 {
		slot = own
	}
	f := &s.all[slot]
	if s.tags[slot], f.slot = tag, uint16(slot); f.hash != hash {
		f.hash, f.codel = hash, codel{} // another's delay is no reason to drop
	}
	return f
}

// rest takes an empty queue from the flow that had it.
func (s *flows) rest(f *flow) {
	f.listed, f.shared = false, false
	s.tags[f.slot] = 0
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
				s.rest(f)
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
