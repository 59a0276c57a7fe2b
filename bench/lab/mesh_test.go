package lab

import (
	"testing"
	"time"
)

func TestTwentyNodesConverge(t *testing.T) {
	story(t, 20, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 20", func() bool { return equal(w.nodes, 80) })
		w.within(10*time.Second, "20 members everywhere", func() bool {
			for _, n := range w.nodes {
				if alive(n) != 20 {
					return false
				}
			}
			return true
		})
		_ = w.nodes[7].Tell(facts(7, 1))
		// Whom the change does not reach by being passed on finds it by comparing,
		// every five seconds: seldom, but it happens.
		w.within(6*time.Second, "a change is known to all 20", func() bool { return numbered(w.nodes, 7, 1) })
	})
}

func TestAPartitionOfAMinuteHealsInTwoSeconds(t *testing.T) {
	story(t, 20, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 20", func() bool { return equal(w.nodes, 80) })
		open := w.net.Policy()
		left, right := w.nodes[:10], w.nodes[10:]
		w.net.Set(open.Partition(addrs(left)...))
		time.Sleep(20 * time.Second)
		_ = left[0].Tell(facts(0, 1))
		_ = right[0].Tell(facts(10, 1)[:3]) // a change and a withdrawal
		w.within(2*time.Second, "the left change is known on the left", func() bool { return numbered(left, 0, 1) })
		w.within(2*time.Second, "the right change is known on the right", func() bool { return numbered(right, 10, 1) })
		time.Sleep(40 * time.Second)
		if numbered(right, 0, 1) || numbered(left, 10, 1) {
			t.Fatal("something crossed the cut")
		}
		if n := alive(left[0]); n != 10 {
			t.Errorf("%d members on the left after 60 s", n)
		}
		w.net.Set(open)
		w.within(2*time.Second, "both changes are known everywhere after the cut", func() bool {
			return numbered(w.nodes, 0, 1) && numbered(w.nodes, 10, 1) && equal(w.nodes, 79)
		})
	})
}

// Whenever a cut heals, whatever both ends were about to do.
func TestTwoNodesFindEachOtherInTwoSecondsAfterAnyCut(t *testing.T) {
	story(t, 2, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "both know both", func() bool { return equal(w.nodes, 8) })
		open := w.net.Policy()
		var longest time.Duration
		for i := 1; i <= 40; i++ {
			w.net.Set(open.Partition(w.nodes[0].Addr.Addr()))
			time.Sleep(60*time.Second + time.Duration(i)*97*time.Millisecond)
			_ = w.nodes[1].Tell(facts(1, i))
			w.net.Set(open)
			longest = max(longest, w.within(2*time.Second, "the change is known after the cut", func() bool { return numbered(w.nodes, 1, i) }))
		}
		t.Logf("the longest took %v", longest)
	})
}

// A cut that is over before anybody counts as dead is noticed by nobody; what was
// said meanwhile is found by asking.
func TestWhatWasSaidDuringAShortCutIsKnownSoon(t *testing.T) {
	story(t, 5, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 5", func() bool { return equal(w.nodes, 20) })
		open := w.net.Policy()
		var longest time.Duration
		for i := 1; i <= 20; i++ {
			w.net.Set(open.Partition(addrs(w.nodes[3:])...))
			_ = w.nodes[4].Tell(facts(4, i))
			time.Sleep(time.Duration(i) * 400 * time.Millisecond)
			w.net.Set(open)
			longest = max(longest, w.within(6*time.Second, "the change is known after the cut", func() bool { return numbered(w.nodes, 4, i) }))
			time.Sleep(20 * time.Second)
		}
		t.Logf("the longest took %v", longest)
	})
}

func TestAMuteNodeIsHeardAgainInTwoSeconds(t *testing.T) {
	story(t, 20, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 20", func() bool { return equal(w.nodes, 80) })
		open := w.net.Policy()
		w.net.Set(open.Mute(w.nodes[4].Addr.Addr()))
		_ = w.nodes[4].Tell(facts(4, 1)) // nobody hears it
		_ = w.nodes[9].Tell(facts(9, 1))
		w.within(2*time.Second, "the mute node hears what others say", func() bool { return numbered(w.nodes, 9, 1) })
		time.Sleep(60 * time.Second)
		if numberAt(w.nodes[5], 4) != 0 {
			t.Fatal("the mute node was heard")
		}
		w.net.Set(open)
		w.within(2*time.Second, "its change is known after that", func() bool { return numbered(w.nodes, 4, 1) })
	})
}
