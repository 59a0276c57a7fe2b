package gossip

import (
	"net/netip"
	"testing"
	"time"
)

func TestWhichSeedsAreDue(t *testing.T) {
	now := begin
	seeds := func(n int) map[netip.AddrPort]bool {
		out := make(map[netip.AddrPort]bool)
		for i := range n {
			out[netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7946)] = true
		}
		return out
	}
	first := netip.MustParseAddrPort("192.0.2.0:7946")
	since := func(n int, a answered) map[netip.AddrPort]answered {
		out := make(map[netip.AddrPort]answered)
		for addr := range seeds(n) {
			out[addr] = a
		}
		return out
	}
	for _, tt := range []struct {
		name             string
		missing, members int
		before           map[netip.AddrPort]answered
		lost             netip.AddrPort
		low, high        int // how many of 1000 rounds' tries
	}{
		{"a node alone tries all", 64, 1, nil, netip.AddrPort{}, 64_000, 64_000},
		{"so does a small mesh", 5, 10, nil, netip.AddrPort{}, 5000, 5000},
		{"of a thousand some thirty try", 1, 1000, nil, netip.AddrPort{}, 5, 80},
		{"whoever was chosen to look for a lost one does", 1, 1000, nil, first, 1000, 1000},
		{"one that answered is left alone", 1, 2, since(1, answered{at: now.Add(-time.Second), quiet: 2 * time.Second}), netip.AddrPort{}, 0, 0},
		{"but not by a node alone", 1, 1, since(1, answered{at: now.Add(-time.Second), quiet: 2 * time.Second}), netip.AddrPort{}, 1000, 1000},
		{"and not for ever", 1, 2, since(1, answered{at: now.Add(-3 * time.Second), quiet: 2 * time.Second}), netip.AddrPort{}, 1000, 1000},
		{"one that was silent for an hour is tried as ever", 1, 2, since(1, answered{silent: now.Add(-time.Hour)}), netip.AddrPort{}, 1000, 1000},
		{"of many such some are", 64, 1, since(64, answered{silent: now.Add(-time.Hour)}), netip.AddrPort{}, 8000, 8000},
		{"many that fell silent a minute ago all are", 64, 1, since(64, answered{silent: now.Add(-time.Minute)}), netip.AddrPort{}, 64_000, 64_000},
	} {
		tries, tried := 0, make(map[netip.AddrPort]bool)
		for range 1000 {
			for _, addr := range due(seeds(tt.missing), tt.lost, tt.before, tt.members, now) {
				tries++
				tried[addr] = true
			}
		}
		if tries < tt.low || tries > tt.high {
			t.Errorf("%s: %d tries, want %d to %d", tt.name, tries, tt.low, tt.high)
		}
		if tt.low > 0 && len(tried) != tt.missing {
			t.Errorf("%s: only %d of %d are ever tried", tt.name, len(tried), tt.missing)
		}
	}
}
