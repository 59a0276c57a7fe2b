package gateway

import (
	"testing"
	"time"

	"slicewire/overlay"
)

// Two watchers with a way between them that takes no time, in time that the
// test moves.
func TestWatchersFindALinkDownAndUpAgain(t *testing.T) {
	now := time.Second
	var watchers [2]*Watcher
	var tunnels [2]Tunnel
	for i := range watchers {
		key := newKey(t)
		watchers[i] = NewWatcher(func() time.Duration { return now })
		tunnels[i] = Tunnel{Tag: overlay.Tag(i + 1), PrivateKey: key}
	}
	for i := range watchers {
		other := tunnels[1-i]
		tunnels[i].Peers = []Peer{{Name: "other", PublicKey: PublicKey(other.PrivateKey), Tag: other.Tag, Probe: true, Standby: true}}
		watchers[i].Set(tunnels[i])
	}
	link := overlay.LinkOf(1, 2)
	cut := false
	run := func(d time.Duration, until func() bool) time.Duration {
		for began := now; ; now += time.Millisecond {
			for range 3 { // a question, its answer, what that brings about
				for i, w := range watchers {
					w.Busy()
					w.Step()
					for _, p := range w.Send() {
						if p.To != ProbeAddr(PublicKey(tunnels[1-i].PrivateKey)) {
							t.Fatalf("a probe for %v", p.To)
						}
						if !cut {
							watchers[1-i].Hear(p.Packet)
						}
					}
				}
			}
			if until() {
				return now - began
			}
			if now-began > d {
				t.Fatalf("not within %v", d)
			}
		}
	}
	down := func(i int) bool { return watchers[i].Links().Down[link] }
	if !down(0) || !down(1) {
		t.Fatal("a link is up that was never tried")
	}
	run(time.Second, func() bool { return !down(0) && !down(1) })
	watchers[0].SetLeaving(true)
	if took := run(time.Second, func() bool { return watchers[1].Links().Leaving[1] }); took > 5*time.Millisecond {
		t.Errorf("told of leaving after %v", took)
	}
	cut = true
	if took := run(time.Second, func() bool { return down(0) && down(1) }); took < 200*time.Millisecond || took > 450*time.Millisecond {
		t.Errorf("found down after %v", took)
	}
	cut = false
	run(3*time.Second, func() bool { return !down(0) && !down(1) })
}
