package netstack

import (
	"bytes"
	"crypto/sha256"
	"io"
	"sync/atomic"
	"testing"
)

// After a timeout everything that was under way is lost. It must come again at
// the pace of the way, not of the timer: what was lost here is hundreds of
// packets, which at two for each timeout would take minutes.
func TestALostWindowIsRepairedAfterOneTimeout(t *testing.T) {
	for range 5 { // how much is under way when the way breaks is the congestion window's
		if breakAndRepair(t) >= 100 {
			return
		}
	}
	t.Error("less than 100 packets were lost at once each time: too few to tell")
}

// breakAndRepair sends by a way that breaks once, checks that what it lost is
// repaired as it should be, and returns how many packets that were.
func breakAndRepair(t *testing.T) int64 {
	t.Helper()
	const size, healthy = 8 << 20, 1 << 20
	var one *Stack
	var passed, lost atomic.Int64
	var cut atomic.Bool
	ready := make(chan struct{})
	a, two := pair(t, func(pkt []byte) bool {
		<-ready
		if len(pkt) < 500 { // acknowledgements
			return true
		}
		if passed.Add(int64(len(pkt))) < healthy || cut.Load() {
			return true
		}
		// The way is broken until the sender's timer says that it noticed.
		if one.s.Stats().TCP.Timeouts.Value() > 0 {
			cut.Store(true)
			return true
		}
		lost.Add(1)
		return false
	})
	one = a
	close(ready)
	near, far := connect(t, one, two, two4)
	sum := make(chan []byte, 1)
	go func() {
		h, err := send(near, 3, size)
		if err != nil {
			t.Error(err)
		}
		sum <- h
	}()
	h := sha256.New()
	n, err := io.Copy(h, far)
	if err != nil || n != size || !bytes.Equal(h.Sum(nil), <-sum) {
		t.Fatalf("%d bytes, %v", n, err)
	}
	near.Close()
	far.Close()
	// One for the break and a few if the machine is slow.
	if n := one.s.Stats().TCP.Timeouts.Value(); n > 5 {
		t.Errorf("%d timeouts to repair %d packets", n, lost.Load())
	}
	return lost.Load()
}
