//go:build !race

// These are too much for the race detector: make test tells them without it.

package lab

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/overlay/gossip"
)

// The size of the meshes below. What go test runs by itself takes seconds; a
// thousand members take minutes and gigabytes.
var (
	members     = flag.Int("members", 40, "members of the mesh in the tests of scale")
	stallFor    = flag.Duration("stalled", time.Minute, "how long members are stalled in the tests of scale, in virtual time")
	suspicion   = flag.Int("suspicion", 0, "gossip.Config's, in the tests of scale")
	memberHours = 10_000.0
)

// settle is how long a mesh talks of its start.
const settle = time.Minute

// deaths counts members that others took for dead, an episode each: what others
// repeat within deathEpisode is the same.
type deaths struct {
	mu    sync.Mutex // guards what follows
	last  map[string]time.Time
	count int
	told  int // by anybody
}

const deathEpisode = 30 * time.Second

// watcher is the log of one member that reports deaths.
type watcher struct {
	slog.Handler
	d *deaths
}

func (watcher) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (w watcher) Handle(_ context.Context, r slog.Record) error {
	if r.Message != "member gone" {
		return nil
	}
	r.Attrs(func(a slog.Attr) bool {
		if a.Key != "node" {
			return true
		}
		w.d.mu.Lock()
		defer w.d.mu.Unlock()
		now := time.Now()
		w.d.told++
		if last, seen := w.d.last[a.Value.String()]; !seen || now.Sub(last) > deathEpisode {
			w.d.count++
		}
		w.d.last[a.Value.String()] = now
		return false
	})
	return nil
}

// crowd starts so many members, twenty a second, that share a verifier.
func crowd(w *world, n int) (*deaths, time.Duration) {
	if err := w.mesh.Share(); err != nil {
		w.Fatal(err)
	}
	w.net.Set(Everywhere(Link{Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.001}))
	d := &deaths{last: make(map[string]time.Time)}
	began := time.Now()
	for i := range n {
		node := w.add(i, facts(i, 0)[:3])
		node.Tune = func(c *gossip.Config) {
			c.Log, c.Suspicion = slog.New(watcher{slog.DiscardHandler, d}), *suspicion
		}
		w.start(node)
		if i%20 == 19 {
			time.Sleep(time.Second)
		}
	}
	for _, node := range w.nodes {
		for len(node.Gossip().Records()) != 3*n {
			time.Sleep(10 * time.Millisecond)
			if time.Since(began) > time.Hour {
				w.Fatalf("%v holds %d records after an hour", node.ID, len(node.Gossip().Records()))
			}
		}
	}
	return d, time.Since(began)
}

// watch follows one node's number at all others and sends when each has it.
func watch(ctx context.Context, w *world, of, number int, took chan<- time.Duration) *sync.WaitGroup {
	var wg sync.WaitGroup
	began := time.Now()
	for _, n := range w.nodes {
		g := n.Gossip()
		wg.Go(func() {
			for numberAt(n, of) != number {
				select {
				case <-g.Changed():
				case <-ctx.Done():
					return
				}
			}
			took <- time.Since(began)
		})
	}
	return &wg
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// One mesh for both questions: to come together takes it longest.
func TestALargeMesh(t *testing.T) {
	wall := time.Now()
	story(t, 0, func(w *world) {
		d, joined := crowd(w, *members)
		t.Logf("%d members: all know all after %v, traffic %v", *members, joined, perMember(w, Counts{}, joined))
		time.Sleep(settle)
		idle, rested := w.net.Counts(), time.Now()
		time.Sleep(time.Minute)
		t.Logf("traffic while nothing changes: %v", perMember(w, idle, time.Since(rested)))
		w.changes(min(20, *members/4))
		t.Logf("memory %d MiB", heapMiB())
		w.stalls(d, *stallFor)
	})
	t.Logf("wall time %v", time.Since(wall).Round(time.Second))
}

// changes demands that so many changes, three seconds apart, are everywhere
// within five seconds, but for one in a hundred, and cost little.
func (w *world) changes(count int) {
	rng := rand.New(rand.NewPCG(w.net.seed, 1))
	var all []time.Duration
	before, began := w.net.Counts(), time.Now()
	for i := range count {
		of := rng.IntN(len(w.nodes))
		took := make(chan time.Duration, len(w.nodes))
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		wg := watch(ctx, w, of, i+1, took)
		_ = w.nodes[of].Tell(facts(of, i+1)[:3])
		wg.Wait()
		cancel()
		close(took)
		n := 0
		for d := range took {
			all = append(all, d)
			n++
		}
		if n != len(w.nodes) {
			w.Errorf("change %d: %d of %d members know it after a minute", i, n, len(w.nodes))
		}
		time.Sleep(3 * time.Second)
	}
	slices.Sort(all)
	p99 := quantile(all, 0.99)
	w.Logf("%d changes at %d members: p50 %v, p99 %v, last %v", count, len(w.nodes), quantile(all, 0.5), p99, all[len(all)-1])
	if p99 > 5*time.Second {
		w.Errorf("p99 %v, want 5s at most", p99)
	}
	traffic := perMember(w, before, time.Since(began))
	w.Logf("traffic with a change every three seconds: %v", traffic)
	if bytes := traffic.PacketBytes + traffic.StreamBytes; bytes > 5<<10 {
		w.Errorf("a member sends %.0f bytes/s, want 5 KiB/s at most", bytes)
	}
}

// stalls demands that nobody is taken for dead while a tenth of the members
// stall for five seconds, each once a minute at a random moment.
func (w *world) stalls(d *deaths, long time.Duration) {
	rng := rand.New(rand.NewPCG(w.net.seed, 2))
	d.mu.Lock()
	d.count, d.told = 0, 0
	d.mu.Unlock()
	tenth := rng.Perm(len(w.nodes))[:max(1, len(w.nodes)/10)]
	before, began := w.net.Counts(), time.Now()
	for time.Since(began) < long {
		var wg sync.WaitGroup
		for _, i := range tenth {
			after := time.Duration(rng.Int64N(int64(55 * time.Second)))
			wg.Go(func() {
				time.Sleep(after)
				w.nodes[i].Host().Stall(5 * time.Second)
			})
		}
		time.Sleep(time.Minute)
		wg.Wait()
	}
	time.Sleep(30 * time.Second)
	took := time.Since(began)
	d.mu.Lock()
	count, told := d.count, d.told
	d.mu.Unlock()
	hours := took.Hours() * float64(len(w.nodes))
	w.Logf("%d members for %v, %d of them stalled for 5 s a minute: %d false deaths, told %d times, in %.0f member-hours: %.2f per 10,000",
		len(w.nodes), took, len(tenth), count, told, hours, float64(count)/hours*memberHours)
	w.Logf("traffic meanwhile: %v", perMember(w, before, took))
	if count > int(hours/memberHours) {
		w.Errorf("%d false deaths in %.0f member-hours, want 1 in 10,000 at most", count, hours)
	}
	if !equal(w.nodes, 3*len(w.nodes)) {
		w.Error("members hold different records")
	}
}

// Who has more to say than a broadcast holds is heard by all of a mesh in which
// not everybody greets everybody.
func TestANewcomerWithMuchToSayIsHeard(t *testing.T) {
	story(t, 0, func(w *world) {
		crowd(w, *members)
		i := len(w.nodes)
		all := facts(i, 0)
		for k := range 40 {
			r := all[3]
			r.Key.Name = fmt.Sprintf("default/web-%02d", k)
			all = append(all, r)
		}
		w.start(w.add(i, all))
		w.within(20*time.Second, "44 records are known to all", func() bool { return equal(w.nodes, 3*i+len(all)) })
	})
}

func heapMiB() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse >> 20
}

// perMember is what a member sends a second.
func perMember(w *world, before Counts, took time.Duration) (s struct{ PacketBytes, StreamBytes, Packets, Streams float64 }) {
	c := w.net.Counts()
	per := func(now, then uint64) float64 { return float64(now-then) / took.Seconds() / float64(len(w.nodes)) }
	s.PacketBytes, s.StreamBytes = per(c.PacketBytes, before.PacketBytes), per(c.StreamBytes, before.StreamBytes)
	s.Packets, s.Streams = per(c.Packets, before.Packets), per(c.Streams, before.Streams)
	return s
}

func TestTwoHundredLeavesOnFourGateways(t *testing.T) {
	story(t, 0, func(w *world) {
		rng := rand.New(rand.NewPCG(w.net.seed, 3))
		if err := w.mesh.Share(); err != nil {
			t.Fatal(err)
		}
		w.net.Set(Everywhere(Link{Delay: 30 * time.Millisecond, Jitter: 20 * time.Millisecond, Loss: 0.001}))
		var gateways, leaves []*Node
		for i := range 2 {
			gw, lf := w.addSite(i, 2, 100)
			gateways, leaves = append(gateways, gw...), append(leaves, lf...)
		}
		d := &deaths{last: make(map[string]time.Time)}
		for _, n := range slices.Concat(gateways[:1], gateways[2:], leaves) { // the one that is killed loses all others
			n.Tune = func(c *gossip.Config) { c.Log = slog.New(watcher{slog.DiscardHandler, d}) }
		}
		w.begin(gateways[:2], gateways...)
		w.begin(gateways, leaves...) // all at once
		w.within(30*time.Second, "everything is known to all 204", func() bool { return equal(w.nodes, 408) })
		w.within(20*time.Second, "every leaf has both gateways of its site", func() bool {
			return !slices.ContainsFunc(leaves, func(n *Node) bool {
				p := proven(n)
				return len(p) != 2 || slices.ContainsFunc(p, func(name string) bool { return !strings.HasPrefix(name, n.ID.Site) })
			})
		})
		// One gateway is dead for half of it.
		before, began := w.net.Counts(), time.Now()
		var all []time.Duration
		for i := range 10 {
			if i == 5 {
				w.kill(gateways[1])
			}
			of := leaves[rng.IntN(len(leaves))]
			all = append(all, w.spread(of, i+1)...)
			time.Sleep(3 * time.Second)
		}
		slices.Sort(all)
		p99 := quantile(all, 0.99)
		t.Logf("10 changes at 204 nodes: p50 %v, p99 %v, last %v", quantile(all, 0.5), p99, all[len(all)-1])
		t.Logf("traffic with a change every three seconds: %v", perMember(w, before, time.Since(began)))
		if p99 > 5*time.Second {
			t.Errorf("p99 %v, want 5s at most", p99)
		}
		t.Logf("memory %d MiB", heapMiB())
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.count != 1 {
			t.Errorf("%d nodes taken for dead, one was killed", d.count)
		}
	})
}
