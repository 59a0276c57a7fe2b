package gossip

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

func targetsTest(names ...string) (out []*target) {
	for i, name := range names {
		name, flags, _ := strings.Cut(name, ":")
		t := &target{addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 7946), name: name, share: 1}
		switch flags {
		case "failed":
			t.fails, t.failed = 3, begin.Add(-500*time.Millisecond)
		case "unwanted":
			t.fails, t.failed, t.unwanted = 9, begin.Add(-time.Second), true
		case "dialing":
			t.dialing = true
		}
		if name == "?" {
			t.name = ""
		}
		out = append(out, t)
	}
	return out
}

func TestChoiceOfGateways(t *testing.T) {
	self := overlay.NodeID{Site: "home", Node: "me"}
	for _, tt := range []struct {
		name       string
		targets    []string
		live       string
		dial, drop int
		near       int // of those that are dialed
	}{
		{"with none, all are tried", []string{"?", "?", "far/a", "home/a"}, "", 4, 0, 1},
		{"but not more than a few at once", slices.Repeat([]string{"?"}, 40), "", maxDials, 0, 0},
		{"and not those that are dialed already", []string{"?:dialing", "?"}, "", 1, 0, 0},
		{"with one, one more", []string{"far/a", "far/b", "far/c"}, "far/a", 1, 0, 0},
		{"of the own site first", []string{"far/b", "home/a", "far/c"}, "far/a", 1, 0, 1},
		{"with two, none", []string{"far/a", "far/b", "far/c", "?"}, "far/a far/b", 0, 0, 0},
		{"but those of the own site", []string{"far/a", "far/b", "home/a", "home/b", "home/c"}, "far/a far/b", 2, 0, 2},
		{"as long as two of it are not there", []string{"home/a", "home/b", "home/c"}, "home/a home/b", 0, 0, 0},
		{"not while one is dialed", []string{"home/a", "home/b:dialing", "home/c"}, "home/a far/a", 0, 0, 0},
		{"three are one too many", nil, "far/a home/a home/b", 0, 1, 0},
		{"one that failed waits", []string{"far/a:failed", "home/a:failed"}, "far/b", 0, 0, 0},
		{"less if there is no other", []string{"far/a:failed", "home/a:failed"}, "", 2, 0, 1},
		{"more if it wants no session", []string{"far/a:unwanted", "home/a:unwanted"}, "", 0, 0, 0},
		{"this node itself is none", []string{"home/me"}, "", 0, 0, 0},
		{"two addresses of one are one", []string{"far/a", "far/a"}, "", 1, 0, 0},
	} {
		dial, drop, again := choose(self, begin, targetsTest(tt.targets...), strings.Fields(tt.live))
		nears := 0
		for _, x := range dial {
			if near("home", x.name) {
				nears++
			}
		}
		if len(dial) != tt.dial || len(drop) != tt.drop || nears != tt.near {
			t.Errorf("%s: dials %d, %d of them near, drops %v", tt.name, len(dial), nears, drop)
		}
		if again <= 0 || again > time.Second {
			t.Errorf("%s: again in %v", tt.name, again)
		}
		for _, d := range drop {
			if d != "far/a" {
				t.Errorf("%s: drops %s", tt.name, d)
			}
		}
	}
}

func TestGatewaysShareTheLeaves(t *testing.T) {
	count := make(map[string]int)
	for i := range 400 {
		self := overlay.NodeID{Site: "home", Node: fmt.Sprintf("leaf-%d", i)}
		names := []string{"home/a", "home/b", "home/c", "home/d", "far/a"}
		names = choiceOrder(self, names, func(name string) string { return name })
		count[names[0]]++
		count[names[1]]++
		if names[4] != "far/a" {
			t.Fatal("another site's comes first")
		}
	}
	for name, n := range count {
		if n < 150 || n > 250 {
			t.Errorf("%s has %d of 800", name, n)
		}
	}
}

func TestInstancesThatComeBackAreTwins(t *testing.T) {
	a, b, c := instance{1}, instance{2}, instance{3}
	for _, tt := range []struct {
		name string
		seen []instance
		twin bool
	}{
		{"one that stays", []instance{a, a, a, a}, false},
		{"one that starts again, and again", []instance{a, b, c, {4}, {5}, {6}, {7}, {8}}, false},
		{"two that each come back", []instance{a, b, a, b}, true},
		{"one whose last words come late", []instance{a, b, a}, false},
		{"two that take turns", []instance{a, b, a, b, a}, true},
		{"two that come back once an hour", []instance{a, b, a, {}, b, {}, a, {}, b}, false},
	} {
		l := &lives{now: tt.seen[0]}
		twin := false
		now := begin
		for _, i := range tt.seen[1:] {
			if now = now.Add(time.Second); i == (instance{}) {
				now = now.Add(time.Hour)
				continue
			}
			twin = l.note(i, now)
		}
		if twin != tt.twin || len(l.former) > maxFormer {
			t.Errorf("%s: %v, %d remembered", tt.name, twin, len(l.former))
		}
	}
}
