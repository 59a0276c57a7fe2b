package router

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultMaxFlows is how many flows a slice remembers if nobody says otherwise:
// 128 workloads with 256 each. All of them take 6 MiB, which come in pieces.
const DefaultMaxFlows = 32 << 10

const (
	chunkBits = 9 // entries come in pieces of 512
	chunkSize = 1 << chunkBits
	maxWalk   = 32 // entries that a reader without the lock looks at before it asks for it
	sweepStep = 2  // entries looked at for their age whenever one is added
)

// A tick is the unit of a flowTable's time: coarse, so that of a stream's
// packets only some write when they were seen.
const tick = 100 * time.Millisecond

func ticks(d time.Duration) int64 { return int64(d / tick) }

// How long flows live without a packet, by RFC 5382, 4787 and 5508 where they
// say it. A flow that was forgotten is asked about again, from whichever end
// speaks first.
const (
	idleTCP      = 7440 * time.Second // established
	idleTCPOther = 4 * time.Minute    // no answer yet, or one end is done
	idleUDP      = 5 * time.Minute
	idleUDPOne   = 30 * time.Second // no answer yet
	idleICMP     = 60 * time.Second
	idleOther    = 10 * time.Minute
	idleFragment = 30 * time.Second
)

// marks of an entry
const (
	markReplied = 1 << iota // a packet came back
	markClosed              // TCP: FIN or RST was seen
)

// A flowKey is a flow as its first packet has it: source, destination and, in
// last, what else tells it from others. An address of IPv4 has only a low word.
type flowKey struct {
	srcHi, srcLo, dstHi, dstLo uint64
	last                       uint64 // flags, protocol, and ports or a fragment's identification
}

const (
	keyFragment = 1 << 63
	keyV6       = 1 << 62
	keyEcho     = 1 << 61 // the ports are an identifier, which may be 0
	keyError    = 1 << 60 // an ICMP error, which is no flow
)

func (k *flowKey) proto() uint8 { return uint8(k.last >> 32) }

// reverse is the key of a packet that goes the other way.
func (k *flowKey) reverse() flowKey {
	return flowKey{k.dstHi, k.dstLo, k.srcHi, k.srcLo, k.last&^0xffffffff | uint64(bits.RotateLeft32(uint32(k.last), 16))}
}

// flowEntry is one flow. What is atomic may be read without the table's lock;
// seq is odd while the key is being written or means nothing.
type flowEntry struct {
	seq                        atomic.Uint32
	next                       atomic.Uint32 // in its bucket
	srcHi, srcLo, dstHi, dstLo atomic.Uint64
	last                       atomic.Uint64
	state                      atomic.Uint64 // of the policy that allowed it: see stateOf
	seen                       atomic.Int64  // tick of the latest packet

	count [2]struct{ packets, bytes atomic.Uint64 } // there, and back
	marks atomic.Uint32

	// Under the table's lock.
	source       uint32
	older, newer uint32 // among the flows of its source
	born, queued int64  // tick of the first packet; that of the latest when it was put where it is
	rules        [2]*ruleCount
	credited     [2]uint64 // of packets and bytes, to earlier rules

	_ [32]byte // so that what a packet touches is two lines of the cache, not three or four
}

// stateOf is what a flow was allowed by: the version of the policy and which of
// its ends were on this node.
func stateOf(version uint32, srcHere, dstHere bool) uint64 {
	s := uint64(version) << 2
	if srcHere {
		s |= 1
	}
	if dstHere {
		s |= 2
	}
	return s
}

// swapEnds is the state with source and destination exchanged.
func swapEnds(s uint64) uint64 { return s&^3 | s>>1&1 | s&1<<1 }

func (e *flowEntry) key() flowKey {
	return flowKey{e.srcHi.Load(), e.srcLo.Load(), e.dstHi.Load(), e.dstLo.Load(), e.last.Load()}
}

// idle is how long the flow may be silent.
func (e *flowEntry) idle(last uint64) int64 {
	marks := e.marks.Load()
	switch proto := uint8(last >> 32); {
	case last&keyFragment != 0:
		return ticks(idleFragment)
	case proto == protoTCP:
		if marks == markReplied {
			return ticks(idleTCP)
		}
		return ticks(idleTCPOther)
	case proto == protoUDP:
		if marks&markReplied != 0 {
			return ticks(idleUDP)
		}
		return ticks(idleUDPOne)
	case proto == protoICMP || proto == protoICMPv6:
		return ticks(idleICMP)
	}
	return ticks(idleOther)
}

func (e *flowEntry) expired(now int64) bool { return now-e.seen.Load() > e.idle(e.last.Load()) }

// touch notes that a packet of the flow came by, one way or the other.
func (e *flowEntry) touch(back bool, now int64) {
	if back && e.marks.Load()&markReplied == 0 {
		e.marks.Or(markReplied)
	}
	if e.seen.Load() < now {
		e.seen.Store(now)
	}
}

// account adds a packet that went on, or one that stands for several.
func (e *flowEntry) account(back bool, packets, bytes int) {
	dir := 0
	if back {
		dir = 1
	}
	e.count[dir].packets.Add(uint64(packets))
	e.count[dir].bytes.Add(uint64(bytes))
}

// note takes notice of the flags of a TCP segment: a connection that ends, or
// one that is opened again between the same ports.
func (e *flowEntry) note(flags uint8) {
	switch {
	case flags&(tcpFIN|tcpRST) != 0:
		e.marks.Or(markClosed)
	case flags&(tcpSYN|tcpACK) == tcpSYN && e.marks.Load()&markClosed != 0:
		e.marks.Store(0)
	}
}

// A flowTable is the bounded memory of the flows that policy allowed. Looking a
// flow up takes no lock and allocates nothing; adding one takes the lock and
// memory only until the bound is reached.
//
// Overflow: the source with the most flows loses the one of its own that was
// silent longest. So whoever opens flow after flow replaces its own, and a
// source with fewer than others keeps all of them.
type flowTable struct {
	seed   [3]uint64
	heads  []atomic.Uint32 // of buckets; entries are numbered from 1
	chunks []atomic.Pointer[[chunkSize]flowEntry]
	max    int

	mu      sync.Mutex
	used    int // entries that were ever in use
	free    []uint32
	live    int
	hand    int // of the sweep
	evicted uint64
	sources flowSources
}

func newFlowTable(maxFlows int) *flowTable {
	n := 1 << bits.Len(uint(2*maxFlows-1))
	t := &flowTable{
		heads: make([]atomic.Uint32, n), max: maxFlows,
		chunks: make([]atomic.Pointer[[chunkSize]flowEntry], (maxFlows+chunkSize-1)/chunkSize),
	}
	for i := range t.seed { // so that nobody can choose flows that share a bucket
		t.seed[i] = rand.Uint64() | 1
	}
	t.sources.init(maxFlows, t.seed[2])
	return t
}

// at returns an entry by its number.
func (t *flowTable) at(i uint32) *flowEntry {
	i--
	return &t.chunks[i>>chunkBits].Load()[i%chunkSize]
}

func mum(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

// bucket is the same for both directions of a flow.
func (t *flowTable) bucket(k *flowKey) *atomic.Uint32 {
	src := mum(k.srcHi^t.seed[0]^k.last>>16<<48, k.srcLo^t.seed[1])
	dst := mum(k.dstHi^t.seed[0]^k.last<<48, k.dstLo^t.seed[1])
	h := src + dst + (k.last>>32)*0x9e3779b97f4a7c15
	if k.last&keyFragment != 0 {
		h = mum(k.srcLo^k.srcHi^t.seed[0], k.dstLo^t.seed[1]) + mum(k.last^t.seed[1], t.seed[2])
	}
	return &t.heads[(h^h>>32)&uint64(len(t.heads)-1)]
}

// find looks for a flow without the lock. It may miss one that is there while
// others are being added, never finds one that is not.
func (t *flowTable) find(k *flowKey) (e *flowEntry, state uint64, back bool) {
	i := t.bucket(k).Load()
	for n := 0; i != 0 && n < maxWalk; n++ {
		e = t.at(i)
		seq := e.seq.Load()
		if seq&1 == 0 {
			last := e.last.Load()
			if last == k.last && e.srcLo.Load() == k.srcLo && e.dstLo.Load() == k.dstLo && e.srcHi.Load() == k.srcHi && e.dstHi.Load() == k.dstHi {
				state = e.state.Load()
				if e.seq.Load() == seq {
					return e, state, false
				}
			} else if e.srcLo.Load() == k.dstLo && e.dstLo.Load() == k.srcLo && e.srcHi.Load() == k.dstHi && e.dstHi.Load() == k.srcHi &&
				last&keyFragment == 0 && last == k.last&^0xffffffff|uint64(bits.RotateLeft32(uint32(k.last), 16)) {
				state = e.state.Load()
				if e.seq.Load() == seq {
					return e, state, true
				}
			}
		}
		i = e.next.Load()
	}
	return nil, 0, false
}

// findLocked finds a flow if it is there.
func (t *flowTable) findLocked(k *flowKey) (i uint32, back bool) {
	rev := k.reverse()
	for i := t.bucket(k).Load(); i != 0; i = t.at(i).next.Load() {
		switch have := t.at(i).key(); {
		case have == *k:
			return i, false
		case have == rev && k.last&keyFragment == 0:
			return i, true
		}
	}
	return 0, false
}

// addLocked remembers a flow that is not there.
func (t *flowTable) addLocked(k *flowKey, state uint64, rules [2]*ruleCount, now int64) *flowEntry {
	t.sweepLocked(now)
	if t.live == t.max {
		t.evictLocked(t.sources.get(k.srcHi, k.srcLo), now)
	}
	s := t.sources.get(k.srcHi, k.srcLo) // again: it may have lost its last flow
	var i uint32
	if n := len(t.free); n > 0 {
		i, t.free = t.free[n-1], t.free[:n-1]
	} else {
		i = uint32(t.used + 1)
		if c := &t.chunks[t.used>>chunkBits]; c.Load() == nil {
			fresh := new([chunkSize]flowEntry)
			for j := range fresh {
				fresh[j].seq.Store(1)
			}
			c.Store(fresh)
		}
		t.used++
	}
	e := t.at(i)
	e.srcHi.Store(k.srcHi)
	e.srcLo.Store(k.srcLo)
	e.dstHi.Store(k.dstHi)
	e.dstLo.Store(k.dstLo)
	e.last.Store(k.last)
	e.state.Store(state)
	e.seen.Store(now)
	e.marks.Store(0)
	for d := range e.count {
		e.count[d].packets.Store(0)
		e.count[d].bytes.Store(0)
	}
	e.born, e.queued, e.rules, e.credited = now, now, rules, [2]uint64{}
	head := t.bucket(k)
	e.next.Store(head.Load())
	e.seq.Add(1)
	head.Store(i)
	t.live++
	t.sources.add(t, s, i)
	for _, r := range rules {
		if r != nil {
			r.flows.Add(1)
		}
	}
	return e
}

// removeLocked forgets a flow; its packets stay with its rules.
func (t *flowTable) removeLocked(i uint32) {
	e := t.at(i)
	k := e.key()
	link := t.bucket(&k)
	for link.Load() != i {
		link = &t.at(link.Load()).next
	}
	link.Store(e.next.Load())
	e.seq.Add(1)
	e.creditLocked()
	t.sources.drop(t, e.source, i)
	e.rules = [2]*ruleCount{}
	t.free = append(t.free, i)
	t.live--
}

// creditLocked gives the rules of a flow what was not yet counted for them.
func (e *flowEntry) creditLocked() {
	packets, bytes := e.total()
	for _, r := range e.rules {
		if r != nil {
			r.packets.Add(packets - e.credited[0])
			r.bytes.Add(bytes - e.credited[1])
		}
	}
	e.credited = [2]uint64{packets, bytes}
}

func (e *flowEntry) total() (packets, bytes uint64) {
	return e.count[0].packets.Load() + e.count[1].packets.Load(), e.count[0].bytes.Load() + e.count[1].bytes.Load()
}

// judgeLocked notes which rules allow a flow now.
func (e *flowEntry) judgeLocked(state uint64, rules [2]*ruleCount) {
	if e.rules != rules {
		e.creditLocked()
		for _, r := range rules {
			if r != nil {
				r.flows.Add(1)
			}
		}
		e.rules = rules
	}
	e.state.Store(state)
}

// sweepLocked looks at some entries and forgets those whose time is over.
func (t *flowTable) sweepLocked(now int64) {
	for range min(sweepStep, t.used) {
		t.hand = t.hand%t.used + 1
		if e := t.at(uint32(t.hand)); e.seq.Load()&1 == 0 && e.expired(now) {
			t.removeLocked(uint32(t.hand))
		}
	}
}

// maxPasses bounds how many flows that were used since they were put in line are
// passed over for an older one.
const maxPasses = 8

// evictLocked makes room for a flow of source s.
func (t *flowTable) evictLocked(s uint32, now int64) {
	victim := t.sources.fullest(s)
	i := t.sources.oldest(victim)
	for range maxPasses {
		e := t.at(i)
		if e.expired(now) || e.seen.Load() <= e.queued {
			break
		}
		e.queued = e.seen.Load()
		t.sources.rotate(t, victim)
		i = t.sources.oldest(victim)
	}
	t.evicted++
	t.removeLocked(i)
}

// ruleCount is what one rule has decided. It outlives changes of the policy that
// leave a rule of that name.
type ruleCount struct {
	name           string
	flows          atomic.Uint64 // ever
	packets, bytes atomic.Uint64 // of flows that are no more or are another rule's now
	denied         atomic.Uint64 // packets that it selected and nothing allowed
}
