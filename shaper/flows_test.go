package shaper

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"
)

// line is a scheduler and the wire it feeds, in simulated time.
type line struct {
	flows
	now   time.Duration
	rate  float64                  // bytes a second
	delay map[uint32]time.Duration // longest wait of a packet that left, by hash
	sent  map[uint32]int           // bytes, by hash
	lost  map[bool]int             // packets, by whether memory was full
	hash  map[*packet]uint32
}

func newLine(rate float64) *line {
	l := &line{rate: rate, delay: map[uint32]time.Duration{}, sent: map[uint32]int{}, lost: map[bool]int{}, hash: map[*packet]uint32{}}
	l.quantum, l.control = quantumJoined, controlAt(0)
	l.dropped = func(p *packet, full bool) { l.lost[full]++; delete(l.hash, p) }
	return l
}

// come puts a packet of size bytes of a flow.
func (l *line) come(hash uint32, size int) *packet {
	p := &packet{buf: make([]byte, size), mem: make([]byte, size), cost: size, count: 1, came: l.now}
	l.hash[p] = hash
	l.put(p, hash)
	return p
}

// leave sends the next packet, which takes as long as the wire needs.
func (l *line) leave() *packet {
	p := l.take(l.now)
	if p == nil {
		return nil
	}
	h := l.hash[p]
	delete(l.hash, p)
	l.delay[h] = max(l.delay[h], l.now-p.came)
	l.sent[h] += p.cost
	l.now += time.Duration(float64(p.cost) / l.rate * 1e9)
	return p
}

func TestASparseFlowDoesNotWaitForABulkOne(t *testing.T) {
	l := newLine(1e9 / 8)
	const bulk, sparse = 1, 2
	for range 60 { // 64 KiB each: 31 ms of the wire
		l.come(bulk, 64<<10)
	}
	for i := range 50 {
		l.leave()
		if i%5 == 0 {
			l.come(sparse, 84)
		}
	}
	if most := 64 << 10 * 8 * time.Nanosecond; l.delay[sparse] > most {
		t.Errorf("a sparse packet waited %v, more than one large packet takes (%v)", l.delay[sparse], most)
	}
	if l.sent[sparse] != 10*84 {
		t.Errorf("%d bytes of the sparse flow left", l.sent[sparse])
	}
}

func TestFlowsShareByBytes(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes []int // of the packets of each flow
	}{
		{"of equal packets", []int{1420, 1420, 1420, 1420}},
		{"of small and large packets", []int{100, 700, 1420, 9000}},
		{"of packets that stand for many", []int{1420, 64 << 10, 64 << 10, 300}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLine(1e9)
			backlog := make([]int, len(tt.sizes))
			const run = 200 * time.Millisecond
			for l.now < run {
				for f, size := range tt.sizes { // each always has something to send, and no delay to be punished for
					for backlog[f] < 128<<10 {
						l.come(uint32(f), size)
						backlog[f] += size
					}
				}
				p := l.leave()
				for f, size := range tt.sizes {
					if p.cost == size {
						backlog[f] = l.all[f].bytes
					}
				}
			}
			var sum, squares float64
			for f := range tt.sizes {
				x := float64(l.sent[uint32(f)])
				sum, squares = sum+x, squares+x*x
			}
			if j := sum * sum / (float64(len(tt.sizes)) * squares); j < 0.999 {
				t.Errorf("Jain's index %.4f: %v", j, l.sent)
			}
		})
	}
}

// Flows whose hashes lie in one set have a queue each until it is full.
func TestFlowsWithOneHashOfAFewShareAllTheSame(t *testing.T) {
	for _, tt := range []struct {
		flows int
		least float64 // Jain's index
	}{{2, 0.999}, {ways, 0.999}, {ways + 1, 0.89}} {
		l := newLine(1e9)
		hash := func(i int) uint32 { return uint32(5 + i*flowQueues) } // all have one place of their own
		backlog := make(map[uint32]int)
		for l.now < 100*time.Millisecond {
			for i := range tt.flows {
				for ; backlog[hash(i)] < 32; backlog[hash(i)]++ {
					l.come(hash(i), 1400)
				}
			}
			before := maps.Clone(l.sent)
			l.leave()
			for h, n := range l.sent {
				if n != before[h] {
					backlog[h]--
				}
			}
		}
		var sum, squares float64
		for _, n := range l.sent {
			sum, squares = sum+float64(n), squares+float64(n)*float64(n)
		}
		if j := sum * sum / (float64(tt.flows) * squares); j < tt.least || tt.flows > ways && j > 0.99 {
			t.Errorf("%d flows: Jain's index %.4f", tt.flows, j)
		}
	}
}

func TestAQueueForgetsTheDelayOfWhoHadIt(t *testing.T) {
	l := newLine(1e9)
	use := func(hash uint32) *codel {
		l.come(hash, 1000)
		f := l.queueOf(hash)
		for l.leave() != nil {
		}
		return &f.codel
	}
	use(7).count = 9
	if n := use(7).count; n != 9 {
		t.Errorf("a flow that comes back begins with %d drops, was at 9", n)
	}
	if n := use(7 + flowQueues).count; n != 0 {
		t.Errorf("a flow has another's %d drops", n)
	}
	for i, tag := range l.tags {
		if tag != 0 {
			t.Errorf("queue %d is still taken", i)
		}
	}
}

func TestAFlowKeepsItsOrder(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	l := newLine(1e8)
	next, came := map[uint32]int{}, map[*packet]int{}
	last := map[uint32]int{}
	for range 20000 {
		h := uint32(rng.IntN(15) + rng.IntN(2)*flowQueues) // more than a set has queues
		p := l.come(h, 40+rng.IntN(3000))
		came[p] = next[h]
		next[h]++
		if rng.IntN(2) == 0 {
			q := l.take(l.now)
			h := l.hash[q]
			if n, ok := last[h]; ok && came[q] <= n {
				t.Fatalf("seed %d: packet %d of flow %d left after %d", seed, came[q], h, n)
			}
			last[h] = came[q]
		}
		l.now += time.Duration(rng.IntN(20)) * time.Microsecond
	}
}

// One flow that does not slow down, at twice the rate of the wire: RFC 8289's
// control law drops more and more often until it does.
func TestDelayIsControlled(t *testing.T) {
	l := newLine(1e8)
	const size = 1000
	drops := func(d time.Duration, load float64) int {
		before, end := l.lost[false], l.now+d
		due := float64(l.now)
		for l.now < end {
			for ; due <= float64(l.now); due += size / (l.rate * load) * 1e9 {
				l.come(7, size)
			}
			if l.leave() == nil {
				l.now = time.Duration(due) + 1
			}
		}
		return l.lost[false] - before
	}
	if n := drops(time.Second, 0.9); n != 0 {
		t.Fatalf("%d drops below the rate of the wire", n)
	}
	if n := drops(codelInterval/2, 1.5); n != 0 {
		t.Errorf("%d drops before an interval was over: a burst was punished", n)
	}
	first, second := drops(time.Second, 1.5), drops(time.Second, 1.5)
	if first < 5 || second <= first {
		t.Errorf("%d drops in the first second, %d in the second", first, second)
	}
	drops(10*time.Second, 0.5) // the queue empties
	if n := drops(time.Second, 0.9); n != 0 {
		t.Errorf("%d drops after the queue was empty", n)
	}
	if l.lost[true] != 0 {
		t.Errorf("%d dropped for memory", l.lost[true])
	}
}

// A writer that waits for room has slowed down already: a wire that is too slow
// for it costs it no packets, and its packets spare nobody else from control.
func TestWhatIsPacedIsNotDroppedForItsDelay(t *testing.T) {
	l := newLine(1e7)
	const paced, free = 1, 2
	came := 0
	for l.now < 5*time.Second {
		for l.all[paced].bytes < pacedMax { // 26 ms of the wire
			p := l.come(paced, 64<<10)
			p.meta.Paced = true
			came += p.cost
		}
		for l.all[free].bytes < pacedMax {
			l.come(free, 1000)
		}
		l.leave()
	}
	if l.delay[paced] < 4*codelTarget {
		t.Fatalf("%v at most: no delay to be dropped for", l.delay[paced])
	}
	if n := l.sent[paced] + l.all[paced].bytes; n != came {
		t.Errorf("%d bytes came, %d left or wait", came, n)
	}
	if l.lost[false] == 0 {
		t.Error("the other flow was not controlled")
	}
}

func TestTheLongestQueuePays(t *testing.T) {
	l := newLine(1e9)
	for i := range 200 {
		l.come(1, 1000)
		if i%20 == 0 {
			l.come(uint32(100+i), 1000)
		}
	}
	was := l.packets
	for l.packets > was-100 {
		l.shed()
	}
	if n := l.all[1].bytes; n > 100*1000 {
		t.Errorf("%d bytes are left of the longest", n)
	}
	for i := 0; i < 200; i += 20 {
		if l.all[100+i].bytes != 1000 {
			t.Errorf("a short queue lost something")
		}
	}
	if l.lost[true] != was-l.packets {
		t.Errorf("%d counted, %d gone", l.lost[true], was-l.packets)
	}
}

// Whatever happens, what came has left, was dropped or is there, by packets and
// by bytes, and an empty scheduler has nothing on its lists.
func TestNothingIsLostFromTheBooks(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 2))
	l := newLine(1e7)
	came, left := 0, 0
	check := func() {
		n, bytes, mem := 0, 0, 0
		for i := range l.all {
			own := 0
			for p := l.all[i].head; p != nil; p = p.next {
				n++
				own += p.cost
				mem += len(p.mem)
			}
			if own != l.all[i].bytes {
				t.Fatalf("seed %d: queue %d has %d bytes, counts %d", seed, i, own, l.all[i].bytes)
			}
			bytes += own
		}
		if n != l.packets || bytes != l.bytes || mem != l.mem || came != left+n+l.lost[true]+l.lost[false] {
			t.Fatalf("seed %d: %d packets, %d bytes, %d of memory; counted %d, %d, %d; %d came, %d left, lost %v",
				seed, n, bytes, mem, l.packets, l.bytes, l.mem, came, left, l.lost)
		}
	}
	for i := range 30000 {
		switch rng.IntN(5) {
		case 0, 1:
			l.come(rng.Uint32(), 40+rng.IntN(60000))
			came++
		case 2, 3:
			if l.leave() != nil {
				left++
			}
		case 4:
			if l.mem > 1<<20 {
				l.shed()
			}
		}
		if i%1000 == 0 {
			check()
		}
	}
	for l.leave() != nil {
		left++
	}
	check()
	if l.packets != 0 || l.fresh.head != nil || l.old.head != nil {
		t.Errorf("seed %d: %d packets left", seed, l.packets)
	}
}

func TestMarkedInsteadOfDropped(t *testing.T) {
	l := newLine(1e6)
	ecn := func() {
		p := l.come(3, 1000)
		p.buf[0], p.buf[1] = 0x45, 2 // ECT(0)
	}
	for range 400 {
		ecn()
	}
	marked := 0
	for p := l.leave(); p != nil; p = l.leave() {
		if p.buf[1]&ecnMask == ecnCE {
			marked++
		}
	}
	if marked == 0 || uint64(marked) != l.markings || l.lost[false] != 0 {
		t.Errorf("%d marked, %d counted, %d dropped", marked, l.markings, l.lost[false])
	}
}
