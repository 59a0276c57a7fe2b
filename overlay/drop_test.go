package overlay_test

import (
	"net/netip"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func TestWhatIsLostInHandIsShown(t *testing.T) {
	var d overlay.Drops
	d.Lose(overlay.DropDelay, 1, 0, []byte("before anybody watches"))
	w, taps := overlaytest.Watch()
	d.Watch(taps, "red", "shaper")
	d.Add(overlay.DropTTL, 1) // not in hand
	d.Lose(overlay.DropDelay, 3, 100, []byte("three"))
	d.See(overlay.DropTooBig, 0, []byte("counted elsewhere"))
	local, peer := netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("127.0.0.2:2")
	d.LoseOuter(overlay.DropQueueFull, local, peer, false, []byte("outer"))
	sights, pkts := w.Seen()
	want := []overlay.Sight{
		{Slice: "red", Port: "shaper", Point: overlay.PointDrop, Drop: overlay.DropDelay, Piece: 100},
		{Slice: "red", Port: "shaper", Point: overlay.PointDrop, Drop: overlay.DropTooBig},
		{Slice: "red", Port: "shaper", Point: overlay.PointDrop, Drop: overlay.DropQueueFull, Local: local, Peer: peer},
	}
	if len(sights) != len(want) {
		t.Fatalf("%d shown", len(sights))
	}
	for i, text := range []string{"three", "counted elsewhere", "outer"} {
		if sights[i] != want[i] || string(pkts[i]) != text {
			t.Errorf("%+v %q, want %+v %q", sights[i], pkts[i], want[i], text)
		}
	}
	if d.Get(overlay.DropDelay) != 4 || d.Get(overlay.DropTooBig) != 0 || d.Get(overlay.DropQueueFull) != 1 {
		t.Errorf("counted %v", d.Snapshot())
	}
	if !d.Watched() {
		t.Error("nobody watches")
	}
	taps.Remove(w)
	if d.Watched() {
		t.Error("still watched")
	}
	if d.Lose(overlay.DropDelay, 1, 0, nil); len(w.Lost()) != 3 {
		t.Errorf("seen after it was taken away: %v", w.Lost())
	}
	if n := testing.AllocsPerRun(100, func() { d.Lose(overlay.DropDelay, 1, 0, pkts[0]) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
