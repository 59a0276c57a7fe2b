package shaper

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"slicewire/overlay"
)

// node is an Uplink with Queues in simulated time: no goroutine, no clock. A
// reader takes a batch, is busy with it, and sleeps when it is told to, somewhat
// longer than it was told.
type node struct {
	now     time.Duration
	rng     *rand.Rand
	uplink  *Uplink
	queues  []*simQueue
	late    time.Duration // the longest that a sleeper is late
	busy    float64       // ns of a reader for a byte
	backlog int           // bytes that wait of who always has something
}

type simQueue struct {
	*Queue
	next   time.Duration
	feeds  []*feed
	waited map[uint32][]time.Duration // of flows that are not always there
}

// feed is what a class is offered.
type feed struct {
	class  *class
	hashes []uint32
	size   int
	pace   float64 // bytes a second; infinite: there is always something
	due    float64 // ns
	turn   int
	sent   int            // bytes charged
	flow   map[uint32]int // the same by flow
}

func newNode(seed uint64, uplink Rate) *node {
	n := &node{rng: rand.New(rand.NewPCG(seed, 7)), late: time.Millisecond, busy: 0.1, backlog: max(64*1500, int(float64(uplink)/8*0.006))}
	if uplink > 0 {
		n.uplink = NewUplink(uplink)
	}
	return n
}

// add makes a Queue whose classes are fed at the given rates, in bits.
func (n *node) add(p Plan, size, flows int, demand ...float64) *simQueue {
	q := &simQueue{Queue: New(n.uplink), next: n.now, waited: map[uint32][]time.Duration{}}
	q.Set(p)
	for i, c := range q.tree.classes {
		f := &feed{class: c, size: size, pace: demand[i] / 8, flow: map[uint32]int{}}
		for j := range flows {
			f.hashes = append(f.hashes, uint32(i*1000+j))
		}
		q.feeds = append(q.feeds, f)
	}
	n.queues = append(n.queues, q)
	return q
}

func (q *simQueue) put1(f *feed, now time.Duration) {
	p := q.pool.get(64)
	p.buf, p.meta, p.came, p.count = p.mem[:0], overlay.Meta{}, now, 1
	p.class, p.cost, p.hash = f.class, f.size, f.hashes[f.turn%len(f.hashes)]
	f.turn++
	q.put([]*packet{p})
}

// feed puts what has come until now.
func (n *node) feed(q *simQueue, now time.Duration) {
	for _, f := range q.feeds {
		if math.IsInf(f.pace, 1) {
			for f.class.mem < f.class.memMax*3/4 && f.class.bytes < n.backlog { // no flow is without
				q.put1(f, now)
			}
			continue
		}
		for ; f.due <= float64(now) && f.pace > 0; f.due += float64(f.size) / f.pace * 1e9 {
			q.put1(f, time.Duration(f.due))
		}
	}
}

// nextDue is when the next packet comes to a Queue.
func (q *simQueue) nextDue() time.Duration {
	d := time.Duration(math.MaxInt64)
	for _, f := range q.feeds {
		if f.pace > 0 && !math.IsInf(f.pace, 1) {
			d = min(d, time.Duration(f.due)+1)
		}
	}
	return d
}

// step lets the Queue's reader have its turn.
func (n *node) step(q *simQueue) {
	n.feed(q, n.now)
	q.mu.Lock()
	k, pause, everybody := q.takeLocked(overlay.BatchSize, n.now)
	bytes := 0
	for i, p := range q.took[:k] {
		bytes += p.cost
		for _, f := range q.feeds {
			if f.class == p.class && slices.Contains(f.hashes, p.hash) {
				f.sent += p.cost
				f.flow[p.hash] += p.cost
				if f.pace > 0 && !math.IsInf(f.pace, 1) {
					q.waited[p.hash] = append(q.waited[p.hash], n.now-p.came)
				}
			}
		}
		q.pool.put(p)
		q.took[i] = nil
	}
	q.mu.Unlock()
	switch {
	case k > 0:
		q.next = n.now + time.Duration(float64(bytes)*n.busy) + 1000
	case pause == math.MaxInt64:
		q.next = q.nextDue()
	default:
		q.next = n.now + max(pause, nap) + time.Duration(n.rng.Int64N(int64(n.late)+1))
		if !everybody {
			q.next = min(q.next, q.nextDue())
		}
	}
}

func (n *node) run(until time.Duration) {
	for {
		var first *simQueue
		for _, q := range n.queues {
			select {
			case <-q.ready:
				q.next = n.now
			default:
			}
			if first == nil || q.next < first.next {
				first = q
			}
		}
		if first.next >= until {
			n.now = until
			return
		}
		n.now = max(n.now, first.next)
		n.step(first)
	}
}

// window runs for d and returns what each feed of each Queue sent, in bits a second.
func (n *node) window(d time.Duration) [][]float64 {
	for _, q := range n.queues {
		for _, f := range q.feeds {
			f.sent = 0
			clear(f.flow)
		}
	}
	n.run(n.now + d)
	out := make([][]float64, len(n.queues))
	for i, q := range n.queues {
		for _, f := range q.feeds {
			out[i] = append(out[i], float64(f.sent)*8/d.Seconds())
		}
	}
	return out
}

var always = math.Inf(1)

func TestRandomTreesDivideAsTheFluidDoes(t *testing.T) {
	for range 40 {
		seed := rand.Uint64()
		randomTree(t, seed)
	}
}

func randomTree(t *testing.T, seed uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	total := Rate(math.Pow(10, 6.5+1.8*rng.Float64())) // 3 to 200 Mbit/s
	n := newNode(seed, total)
	nslices := 1 + rng.IntN(4)
	var wants []want
	var inner [][]want
	left := float64(total) * 0.95
	for range nslices {
		g := Rate(left * rng.Float64() * 0.8)
		left -= float64(g)
		s := want{Share: Share{Guaranteed: g, Priority: rng.IntN(3)}}
		s.Ceiling = g + Rate(float64(total)*rng.Float64())
		p := Plan{Share: s.Share}
		var demands []float64
		var kids []want
		mine := float64(g)
		for c := range 1 + rng.IntN(4) {
			cg := Rate(mine * rng.Float64())
			mine -= float64(cg)
			k := want{Share: Share{Guaranteed: cg, Priority: rng.IntN(3)}, demand: always}
			if rng.IntN(3) == 0 {
				k.Ceiling = cg + Rate(float64(s.Ceiling)*rng.Float64()) + Kbps
			}
			if rng.IntN(3) == 0 {
				k.demand = float64(s.Ceiling) * rng.Float64() * 0.5
			}
			p.Classes = append(p.Classes, Class{Name: string(rune('a' + c)), Share: k.Share})
			demands = append(demands, k.demand)
			kids = append(kids, k)
			s.demand += k.most()
		}
		wants, inner = append(wants, s), append(inner, kids)
		n.add(p, 500+rng.IntN(1000), 4, demands...)
	}
	shares := fluid(float64(total), wants)
	n.run(2 * time.Second)
	const window = 2 * time.Second
	got := n.window(window)
	const packets = 8 * 6 * 1600 / 2 // six more or less, in bits a second
	sum, most := 0.0, 0.0
	for i := range wants {
		mine := 0.0
		for j, want := range fluid(shares[i], inner[i]) {
			x, k := got[i][j], inner[i][j]
			sum, most, mine = sum+x, most+want, mine+x
			owed := min(k.most(), float64(k.Guaranteed))
			switch {
			case x < owed*0.99-packets:
				t.Errorf("seed %d: slice %d class %d has %.0f of its guarantee %.0f", seed, i, j, x, owed)
			case k.Ceiling > 0 && x > float64(k.Ceiling)*1.01+packets:
				t.Errorf("seed %d: slice %d class %d has %.0f with a ceiling of %d", seed, i, j, x, k.Ceiling)
			case math.Abs(x-want) > 0.01*want+0.06*max(shares[i], float64(total)/4)+packets:
				// Where what is wanted is just what is there, a bucket of some
				// milliseconds loses what a fluid does not.
				t.Errorf("seed %d: slice %d class %d %+v has %.0f, want %.0f of %.0f of %d", seed, i, j, k, x, want, shares[i], total)
			}
		}
		if c := float64(wants[i].Ceiling); mine > c*1.01+packets {
			t.Errorf("seed %d: slice %d has %.0f with a ceiling of %.0f", seed, i, mine, c)
		}
	}
	if sum > float64(total)*1.01+packets || sum < most*0.99-packets {
		t.Errorf("seed %d: all have %.0f, want %.0f of %d", seed, sum, most, total)
	}
}
