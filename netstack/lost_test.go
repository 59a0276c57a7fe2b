package netstack

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func TestCapturesSeeWhatTheStackDrops(t *testing.T) {
	for _, c := range []struct{ from, to string }{{"10.1.0.2:1", "10.1.0.1:2"}, {"[fd00:1::2]:1", "[fd00:1::1]:2"}} {
		st, err := New(Config{Slice: "red", MTU: 1420})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		w, taps := overlaytest.Watch()
		st.Drops().Watch(taps, "red", "local")
		from, to := netip.MustParseAddrPort(c.from), netip.MustParseAddrPort(c.to)
		if err := st.Set([]netip.Addr{to.Addr()}); err != nil {
			t.Fatal(err)
		}
		wrong := overlaytest.UDP(from, to, []byte("its checksum is wrong"))
		wrong[len(wrong)-1]++
		twice := pieces(overlaytest.UDP(from, to, make([]byte, 1000)), 7, 400)[1]
		var bufs [][]byte
		for _, p := range [][]byte{wrong, twice, twice} {
			bufs = append(bufs, append(make([]byte, overlay.Headroom), p...))
		}
		if err := st.Link().Write(bufs); err != nil {
			t.Fatal(err)
		}
		_, pkts := w.Seen()
		if got := w.Lost(); len(got) == 0 || !maps.Equal(got, st.Drops().Snapshot()) {
			t.Errorf("%s: shown %v, counted %v", c.from, got, st.Drops().Snapshot())
		}
		for _, want := range [][]byte{wrong, twice} {
			if !slices.ContainsFunc(pkts, func(p []byte) bool { return bytes.Equal(p, want) }) {
				t.Errorf("%s: not shown: %x", c.from, want[:48])
			}
		}
	}
}
