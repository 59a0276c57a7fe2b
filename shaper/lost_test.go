package shaper

import (
	"maps"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func TestCapturesSeeWhatTheShaperDrops(t *testing.T) {
	w, taps := overlaytest.Watch()
	q := New(nil)
	q.Drops().Watch(taps, "red", "shaper")
	for range 2 * memoryMax / 1400 { // more than there is room for
		if err := q.Write([][]byte{buffer(udp(1, 1400), overlay.Meta{})}); err != nil {
			t.Fatal(err)
		}
	}
	p := NewPolicer(&taker{}, q.Drops())
	p.Set(Mbps)
	for range 100 {
		if err := p.Write([][]byte{buffer(udp(1, 1400), overlay.Meta{}), buffer(udp(2, 1400), overlay.Meta{})}); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := q.Write([][]byte{buffer(udp(3, 100), overlay.Meta{})}); err == nil {
		t.Log("a closed queue takes packets and drops them")
	}
	got := w.Lost()
	for _, reason := range []string{"queue-full", "policed", "closed"} {
		if got[reason] == 0 {
			t.Errorf("none as %s", reason)
		}
	}
	if !maps.Equal(got, q.Drops().Snapshot()) {
		t.Errorf("shown %v, counted %v", got, q.Drops().Snapshot())
	}
	_, pkts := w.Seen()
	for _, p := range pkts {
		if !overlaytest.ChecksumsOK(p) {
			t.Fatalf("shown is %x", p[:40])
		}
	}
}

// taker is a Link that takes all.
type taker struct{ Link }

func (taker) Write([][]byte) error { return nil }
