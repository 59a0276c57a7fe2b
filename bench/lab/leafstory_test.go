package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"slicewire/overlay/gossip"
)

func TestTheDeathOfAGatewayCostsItsLeavesNothing(t *testing.T) {
	story(t, 0, func(w *world) {
		gateways, leaves := w.addSite(0, 2, 6)
		far, _ := w.addSite(1, 1, 0)
		w.begin(w.nodes[:2], w.nodes...)
		w.within(5*time.Second, "everything is known to all 9", func() bool { return equal(w.nodes, 18) })
		w.within(20*time.Second, "every leaf has both gateways of its site", func() bool {
			return !slices.ContainsFunc(leaves, func(n *Node) bool { return len(proven(n)) != 2 || slices.Contains(proven(n), far[0].ID.String()) })
		})
		for round, dies := range gateways {
			w.kill(dies)
			died := time.Now()
			up := slices.DeleteFunc(slices.Clone(w.nodes), func(n *Node) bool { return n == dies })
			// News from everywhere all the time while nobody knows yet, and after.
			var longest time.Duration
			for i := 1; i <= 20; i++ {
				number := 100*round + i
				_ = far[0].Tell(leafFacts(1, 1, number))
				_ = leaves[i%6].Tell(leafFacts(0, 3+i%6, number))
				began := time.Now()
				for !allKnow(up, far[0].ID, number) || !allKnow(up, leaves[i%6].ID, number) {
					if time.Since(began) > 5*time.Second {
						t.Fatalf("change %d is not known after 5 s", i)
					}
					time.Sleep(5 * time.Millisecond)
				}
				longest = max(longest, time.Since(began))
				time.Sleep(300 * time.Millisecond)
				if time.Since(died) > 3*time.Second && time.Since(died) < 4*time.Second {
					for _, n := range leaves {
						if slices.Contains(proven(n), dies.ID.String()) {
							t.Errorf("%v has not noticed after %v", n.ID, time.Since(died))
						}
					}
				}
			}
			t.Logf("with %v dead, a change took %v at most", dies.ID, longest)
			for _, n := range leaves {
				if !slices.Contains(proven(n), far[0].ID.String()) {
					t.Errorf("%v has no second gateway: %v", n.ID, proven(n))
				}
			}
			w.begin(w.nodes[:2], dies)
			w.within(5*time.Second, "who returns prefers its leaves, and they it", func() bool {
				return !slices.ContainsFunc(leaves, func(n *Node) bool { return slices.Contains(proven(n), far[0].ID.String()) })
			})
			w.within(5*time.Second, "all 9 hold the same", func() bool { return equal(w.nodes, 18) })
		}
	})
}

func TestALeafLeavesAndReturns(t *testing.T) {
	story(t, 0, func(w *world) {
		gateways, leaves := w.addSite(0, 2, 2)
		w.begin(gateways, w.nodes...)
		w.within(5*time.Second, "everything is known to all 4", func() bool { return equal(w.nodes, 8) })
		state := func(of *Node) (out []string) {
			for _, g := range gateways {
				for _, m := range g.Gossip().Members() {
					if m.Name == of.ID.String() {
						out = append(out, m.State)
					}
				}
			}
			return out
		}
		one, other := leaves[0], leaves[1]
		if err := one.Stop(); err != nil {
			t.Fatal(err)
		}
		w.within(time.Second, "who says good-bye is gone", func() bool { return slices.Equal(state(one), []string{"gone", "gone"}) })
		w.kill(other)
		w.within(3*time.Second, "who dies is gone", func() bool { return slices.Equal(state(other), []string{"gone", "gone"}) })
		_ = one.Tell(leafFacts(0, 3, 1))
		_ = gateways[0].Tell(leafFacts(0, 1, 1))
		w.begin(gateways, one, other)
		w.within(2*time.Second, "they are back and know what they missed", func() bool {
			return allKnow(w.nodes, one.ID, 1) && allKnow(w.nodes, gateways[0].ID, 1) && equal(w.nodes, 8)
		})
		// With everybody else down, a leaf starts with what it knew, and its seeds
		// are not all it knows: the other gateway is found without being one.
		w.kill(w.nodes...)
		time.Sleep(24 * time.Hour)
		w.begin(nil, one)
		if n := len(one.Gossip().Records()); n != 8 {
			t.Errorf("%d records right after the start, want 8", n)
		}
		time.Sleep(10 * time.Minute)
		if n := len(one.Gossip().Records()); n != 8 {
			t.Errorf("%d records after ten minutes, want 8", n)
		}
		_ = gateways[1].Tell(leafFacts(0, 2, 1))
		w.begin(nil, gateways[1])
		w.within(2*time.Second, "it finds a gateway again", func() bool { return allKnow([]*Node{one, gateways[1]}, gateways[1].ID, 1) })
	})
}

func TestAPartitionOfASiteHealsInTwoSecondsForLeavesToo(t *testing.T) {
	story(t, 0, func(w *world) {
		var gateways, leaves []*Node
		for i := range 3 {
			gw, lf := w.addSite(i, 1+i%2, 3)
			gateways, leaves = append(gateways, gw...), append(leaves, lf...)
		}
		w.begin(gateways[:2], w.nodes...)
		count := 2 * len(w.nodes)
		w.within(5*time.Second, "everything is known to all", func() bool { return equal(w.nodes, count) })
		open := w.net.Policy()
		for i, side := range [][]*Node{
			{gateways[0], leaves[0], leaves[1], leaves[2]},              // a site with one gateway
			{gateways[1], gateways[2], leaves[3], leaves[4], leaves[5]}, // one with two
			{leaves[0]},                       // a leaf alone
			{leaves[0], leaves[1], leaves[2]}, // those of a site without their gateway
		} {
			var rest []*Node
			for _, n := range w.nodes {
				if !slices.Contains(side, n) {
					rest = append(rest, n)
				}
			}
			w.net.Set(open.Partition(addrs(side)...))
			time.Sleep(20*time.Second + time.Duration(i)*333*time.Millisecond)
			inside, outside := side[len(side)-1], leaves[8]
			_ = inside.Tell(leafFacts(siteOf(inside), nodeOf(inside), i+1))
			_ = outside.Tell(leafFacts(2, nodeOf(outside), i+1))
			w.within(2*time.Second, "the outer change is known outside", func() bool { return allKnow(rest, outside.ID, i+1) })
			time.Sleep(40 * time.Second)
			if allKnow(rest, inside.ID, i+1) || allKnow(side, outside.ID, i+1) {
				t.Fatal("something crossed the cut")
			}
			w.net.Set(open)
			w.within(2*time.Second, fmt.Sprintf("cut %d heals", i), func() bool {
				return allKnow(w.nodes, inside.ID, i+1) && allKnow(w.nodes, outside.ID, i+1) && equal(w.nodes, count)
			})
			time.Sleep(20 * time.Second)
		}
	})
}

func siteOf(n *Node) (i int) {
	_, _ = fmt.Sscanf(n.ID.Site, "site-%d", &i)
	return i
}

func nodeOf(n *Node) (k int) {
	_, _ = fmt.Sscanf(n.ID.Node, "leaf-%d", &k)
	return k
}

func TestTwoLeavesWithOneKeyRaiseAnAlarm(t *testing.T) {
	story(t, 0, func(w *world) {
		gateways, leaves := w.addSite(0, 2, 3)
		w.begin(gateways, w.nodes...)
		w.within(5*time.Second, "everything is known to all 5", func() bool { return equal(w.nodes, 10) })
		_ = leaves[1].Kill()
		w.begin(gateways, leaves[1]) // starting again is no reason
		time.Sleep(time.Minute)
		if n := refused(w.nodes, gossip.RefusedClone); n != 0 {
			t.Fatalf("%d alarms without a twin", n)
		}
		// It holds the same state and says nothing new: only its sessions tell.
		twin := leaves[1].Twin(leafAddr(0, 99))
		twin.Tune = func(c *gossip.Config) { c.Epoch-- }
		w.nodes = append(w.nodes, twin)
		w.begin(gateways, twin)
		w.within(5*time.Second, "the gateways raise an alarm", func() bool { return refused(gateways, gossip.RefusedClone) > 0 })
	})
}

func TestLeavesOverBadLinks(t *testing.T) {
	story(t, 0, func(w *world) {
		w.net.Set(Everywhere(Link{Delay: 80 * time.Millisecond, Jitter: 50 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.2, Corrupt: 0.05}))
		gateways, leaves := w.addSite(0, 2, 8)
		w.begin(gateways, w.nodes...)
		w.within(10*time.Second, "everything is known to all 10", func() bool { return equal(w.nodes, 20) })
		for i := 1; i <= 5; i++ {
			_ = leaves[i].Tell(leafFacts(0, nodeOf(leaves[i]), i))
			w.within(10*time.Second, fmt.Sprintf("change %d is known to all 10", i), func() bool { return allKnow(w.nodes, leaves[i].ID, i) })
		}
	})
}

func TestClocksOfLeavesThatJump(t *testing.T) {
	story(t, 0, func(w *world) {
		gateways, leaves := w.addSite(0, 2, 3)
		w.begin(gateways, w.nodes...)
		w.within(5*time.Second, "everything is known to all 5", func() bool { return equal(w.nodes, 10) })
		n := leaves[0]
		for i, off := range []time.Duration{time.Hour, -time.Hour} {
			n.Clock.Set(off)
			time.Sleep(30 * time.Second)
			_ = n.Tell(leafFacts(0, 3, i+1))
			w.within(2*time.Second, fmt.Sprintf("a change is known with a clock off by %v", off), func() bool { return allKnow(w.nodes, n.ID, i+1) })
		}
		n.Clock.Set(11 * 365 * 24 * time.Hour)
		time.Sleep(2 * time.Minute)
		if !equal([]*Node{gateways[0], gateways[1], leaves[1], leaves[2]}, 10) {
			t.Error("a clock that is years fast took a fact from others")
		}
		n.Clock.Set(0)
		w.within(20*time.Second, "everything is known to all 5 again", func() bool { return equal(w.nodes, 10) })
	})
}

// spread has a leaf change and returns how long each node took to know.
func (w *world) spread(of *Node, number int) []time.Duration {
	w.Helper()
	var wg sync.WaitGroup
	took := make(chan time.Duration, len(w.nodes))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	began, watched := time.Now(), 0
	for _, n := range w.nodes {
		g := n.Gossip()
		if g == nil {
			continue
		}
		watched++
		wg.Go(func() {
			for knownNumber(n, of.ID) != number {
				select {
				case <-g.Changed():
				case <-ctx.Done():
					return
				}
			}
			took <- time.Since(began)
		})
	}
	_ = of.Tell(leafFacts(siteOf(of), nodeOf(of), number))
	wg.Wait()
	close(took)
	var out []time.Duration
	for d := range took {
		out = append(out, d)
	}
	if len(out) != watched {
		w.Errorf("change %d: %d of %d nodes know it after a minute", number, len(out), watched)
	}
	return out
}
