package gateway

import (
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// shut is a Link that was closed after its last Read.
type shut struct{ pkts [][]byte }

func (s *shut) Read(bufs [][]byte, sizes []int) (int, error) {
	for i, p := range s.pkts {
		sizes[i] = copy(bufs[i][overlay.Headroom:], p)
	}
	return len(s.pkts), nil
}
func (s *shut) Write([][]byte) error { return net.ErrClosed }
func (s *shut) Close() error         { return nil }

func TestCapturesSeeWhatTheTunnelDrops(t *testing.T) {
	w, taps := overlaytest.Watch()
	drops := new(overlay.Drops)
	drops.Watch(taps, "red", "tunnel")
	link := &shut{pkts: [][]byte{packet("10.9.9.9", "10.1.0.7", 0, 100), make([]byte, innerMax+1), packet("10.9.9.9", "10.2.0.7", 0, 100)}}
	in := newInner(link, 1420, slog.Default(), drops, newGovernor(1000), newGovernor(1000), newProber(slog.Default(), func() time.Duration { return 0 }, func() {}).lane(func() {}))
	close(in.ready)
	in.tos = 3
	in.gate.Store(newGate([]Peer{peer(newKey(t), netip.AddrPort{}, "10.1.0.0/16")}, func(*Peer) bool { return true }))
	bufs, sizes := make([][]byte, overlay.BatchSize), make([]int, overlay.BatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.MaxPacket+overlay.Headroom)
	}
	for range silentPackets + 1 {
		if _, err := in.Read(bufs, sizes, overlay.Headroom); err != nil {
			t.Fatal(err)
		}
	}
	met := make([]byte, overlay.Headroom+28, 200)
	copy(met[overlay.Headroom:], classed(0, false, 0))
	fill(met[:cap(met)][len(met)+overhead-8:], congested)
	if _, err := in.Write([][]byte{met, append(make([]byte, overlay.Headroom), link.pkts[0]...)}, overlay.Headroom); err != nil {
		t.Fatal(err)
	}
	got := w.Lost()
	for _, reason := range []string{"too-big", "no-peer", "queue-full", "congestion", "closed"} {
		if got[reason] == 0 {
			t.Errorf("none as %s", reason)
		}
	}
	if !maps.Equal(got, drops.Snapshot()) {
		t.Errorf("shown %v, counted %v", got, drops.Snapshot())
	}
}
