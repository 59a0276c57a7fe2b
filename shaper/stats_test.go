package shaper

import (
	"math"
	"testing"
	"time"

	"slicewire/overlay"
)

func TestStatsAddUp(t *testing.T) {
	n := newNode(11, 0)
	q := n.add(Plan{Share: Share{Ceiling: 10 * Mbps}, Classes: []Class{
		{Name: "a", Share: Share{Guaranteed: 6 * Mbps}}, {Name: "b", Share: Share{Guaranteed: 2 * Mbps}},
	}}, wholePacket, 4, 12e6, 0.5e6)
	n.run(warm)
	stats := q.Stats()
	if len(stats) != 2 || stats[0].Name != "a" || stats[1].Name != "b" {
		t.Fatalf("%+v", stats)
	}
	all := uint64(0)
	for i, s := range stats {
		f := q.feeds[i]
		if s.Bytes != uint64(f.sent) || s.Packets != uint64(f.sent/wholePacket) || s.WaitingBytes != s.Waiting*wholePacket {
			t.Errorf("%+v, sent %d bytes", s, f.sent)
		}
		if came := uint64(f.turn); came != s.Packets+s.Drops+uint64(s.Waiting) {
			t.Errorf("%d came, %+v", came, s)
		}
		all += s.Bytes
	}
	if stats[0].Drops == 0 || stats[1].Drops != 0 || q.drops.Get(overlay.DropDelay)+q.drops.Get(overlay.DropQueueFull) != stats[0].Drops {
		t.Errorf("%+v, drops %v", stats, q.drops.Snapshot())
	}
	if sent, _ := q.Use(); sent != all {
		t.Errorf("%d bytes left, classes say %d", sent, all)
	}
}

// How long the ceiling held something back says whether more of it is wanted:
// nearly always of who has more to send, hardly ever of who has less.
func TestUseSaysForHowLongTheCeilingHeld(t *testing.T) {
	for _, tt := range []struct {
		name        string
		demand      float64
		least, most float64 // of the time
	}{
		{"of who has always something", math.Inf(1), 0.95, 1.01},
		{"of who has somewhat more than the ceiling", 11e6, 0.9, 1.01},
		{"of who has half", 5e6, 0, 0.1},
		{"of nobody", 0, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(12, 0)
			q := n.add(Plan{Share: Share{Ceiling: 10 * Mbps}}, 500, 4, tt.demand)
			n.run(warm)
			_, before := q.Use()
			n.run(n.now + 2*time.Second)
			_, after := q.Use()
			if part := (after - before).Seconds() / 2; part < tt.least || part > tt.most {
				t.Errorf("held for %.3f of the time", part)
			}
		})
	}
}
