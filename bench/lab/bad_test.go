package lab

import (
	"fmt"
	"testing"
	"time"

	"slicewire/overlay/gossip"
)

func TestMeshesConvergeOverBadLinks(t *testing.T) {
	for _, tt := range []struct {
		name string
		link Link
		in   time.Duration
	}{
		{"20 % loss", Link{Delay: 40 * time.Millisecond, Loss: 0.2}, 20 * time.Second}, // three comparisons in a row may be lost
		{"everything twice", Link{Delay: 40 * time.Millisecond, Duplicate: 1}, 5 * time.Second},
		{"half of it out of order", Link{Delay: 40 * time.Millisecond, Jitter: 100 * time.Millisecond, Reorder: 0.5}, 5 * time.Second},
		{"10 % damaged", Link{Delay: 40 * time.Millisecond, Corrupt: 0.1}, 10 * time.Second},
		{"all of it", Link{Delay: 80 * time.Millisecond, Jitter: 50 * time.Millisecond, Loss: 0.1, Duplicate: 0.1, Reorder: 0.2, Corrupt: 0.05}, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			story(t, 20, func(w *world) {
				w.net.Set(Everywhere(tt.link))
				w.start(w.nodes...)
				w.within(tt.in, "everything is known to all 20", func() bool { return equal(w.nodes, 80) })
				for i := 1; i <= 10 && (!raced || i <= 2); i++ {
					_ = w.nodes[i].Tell(facts(i, i))
					w.within(tt.in, fmt.Sprintf("change %d is known to all 20", i), func() bool { return numbered(w.nodes, i, i) })
				}
				for _, reason := range []string{gossip.RefusedSignature, gossip.RefusedCert, gossip.RefusedClone, gossip.RefusedMalformed} {
					if n := refused(w.nodes, reason); n != 0 {
						t.Errorf("%d refused for %q among friends", n, reason)
					}
				}
			})
		})
	}
}

func TestANodeComesBackAloneFromItsSnapshot(t *testing.T) {
	story(t, 10, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 10", func() bool { return equal(w.nodes, 40) })
		w.kill(w.nodes...)
		time.Sleep(24 * time.Hour)
		one := w.nodes[6]
		w.start(one)
		if n := len(one.Gossip().Records()); n != 40 {
			t.Errorf("%d records right after the start, want 40", n)
		}
		time.Sleep(10 * time.Minute)
		if n := len(one.Gossip().Records()); n != 40 {
			t.Errorf("%d records ten minutes later, want 40", n)
		}
		// A second one returns with news of itself and of nobody else.
		two := w.nodes[1]
		_ = two.Tell(facts(1, 1))
		w.start(two)
		w.within(2*time.Second, "the two agree", func() bool { return equal([]*Node{one, two}, 40) && numberAt(one, 1) == 1 })
		for _, n := range w.nodes {
			if n.Gossip() == nil {
				w.start(n)
			}
		}
		w.within(5*time.Second, "all 10 agree", func() bool { return equal(w.nodes, 40) && numbered(w.nodes, 1, 1) })
	})
}

func TestClocksThatJump(t *testing.T) {
	story(t, 8, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 8", func() bool { return equal(w.nodes, 32) })
		for i, off := range []time.Duration{time.Hour, -time.Hour, -time.Minute, time.Minute} {
			n := w.nodes[3]
			n.Clock.Set(off)
			time.Sleep(30 * time.Second)
			// Both ways: it tells and is told.
			_ = n.Tell(facts(3, 2*i+1))
			_ = w.nodes[5].Tell(facts(5, 2*i+1))
			w.within(2*time.Second, fmt.Sprintf("changes are known with a clock off by %v", off), func() bool {
				return numbered(w.nodes, 3, 2*i+1) && numbered(w.nodes, 5, 2*i+1)
			})
			if n := alive(w.nodes[0]); n != 8 {
				t.Errorf("%d members alive, with a clock off by %v", n, off)
			}
		}
		// Ten years fast: certificates and records of all others are over, for this
		// node; what it knows must not vanish from anybody else, and when the clock
		// is right again it learns everything anew.
		n := w.nodes[3]
		n.Clock.Set(11 * 365 * 24 * time.Hour)
		time.Sleep(2 * time.Minute)
		others := append(append([]*Node{}, w.nodes[:3]...), w.nodes[4:]...)
		if !equal(others, 32) {
			t.Error("a clock that is years fast took a fact from others")
		}
		n.Clock.Set(0)
		w.within(20*time.Second, "everything is known to all 8 again", func() bool { return equal(w.nodes, 32) })
	})
}

func TestAClockWithoutABattery(t *testing.T) {
	story(t, 8, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 8", func() bool { return equal(w.nodes, 32) })
		n := w.nodes[3]
		w.kill(n)
		n.Clock.Set(-30 * 365 * 24 * time.Hour)
		w.start(n)
		others := append(append([]*Node{}, w.nodes[:3]...), w.nodes[4:]...)
		time.Sleep(2 * time.Minute)
		if !equal(others, 32) {
			t.Error("a clock of long ago took a fact from others")
		}
		if !equal(w.nodes, 32) {
			t.Error("a clock of long ago took a fact from its own node")
		}
		_ = n.Tell(facts(3, 1))
		w.within(2*time.Second, "what it says is known to all 8", func() bool { return numbered(w.nodes, 3, 1) })
		w.kill(n)
		n.Clock.Set(0)
		w.start(n)
		w.within(5*time.Second, "everything is known to all 8 again", func() bool { return equal(w.nodes, 32) })
	})
}
