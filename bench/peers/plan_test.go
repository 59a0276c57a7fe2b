package main

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestPlansFitTheirTime(t *testing.T) {
	quick := slices.DeleteFunc(systems(), func(s system) bool { return !s.quick })
	if d := time.Duration(quickPlan.rounds) * quickPlan.roundLasts(quick); d > 165*time.Second || quickPlan.rounds < 2 {
		t.Errorf("the quick run takes %v for %d rounds", d, quickPlan.rounds)
	}
	if d := time.Duration(fullPlan.rounds) * fullPlan.roundLasts(systems()); d > 45*time.Minute || fullPlan.rounds < 5 {
		t.Errorf("the full run takes %v for %d rounds", d, fullPlan.rounds)
	}
}

func TestABriefPlanIsPartOfThePlan(t *testing.T) {
	for _, p := range []plan{fullPlan, quickPlan} {
		var all, brief []string
		for _, x := range p.tests() {
			all = append(all, x.name)
		}
		for _, x := range p.brief().tests() {
			if !slices.Contains(all, x.name) {
				t.Errorf("%s is only in the brief plan", x.name)
			}
			brief = append(brief, x.name)
		}
		for _, must := range []string{"rss_idle", "rtt_idle", "tcp1_up", "rtt_load", "rss_peak_tcp"} {
			if !slices.Contains(brief, must) {
				t.Errorf("%s is not taken of all systems: %v", must, brief)
			}
		}
		if s := slices.Compact(slices.Sorted(slices.Values(all))); len(s) != len(all) {
			t.Errorf("two tests of one name: %v", all)
		}
	}
}

// What is compared is measured one right after the other: no pair with a
// headline stands far apart, and those with a bar are neighbours.
func TestComparedSystemsAreNeighbours(t *testing.T) {
	place := make(map[string]int)
	for i, s := range systems() {
		place[s.name] = i
	}
	for _, h := range headlines {
		of, okOf := place[h.of]
		to, okTo := place[h.to]
		if !okOf || !okTo {
			t.Errorf("%s or %s is no system", h.of, h.to)
		}
		if between := max(of, to) - min(of, to); len(h.bars) > 0 && between != 1 {
			t.Errorf("%s and %s are %d apart", h.of, h.to, between)
		}
		for m := range h.bars {
			if !slices.Contains(headlineMeasures, m) {
				t.Errorf("a bar for %s, which is not reported", m)
			}
		}
	}
	for _, pair := range [][2]string{{"slicewire-tun", "wireguard-go"}, {"slicewire-tun", "slicewire-run"}, {"slicewire-socks", "tailscale-user"}} {
		if d := place[pair[0]] - place[pair[1]]; d != 1 && d != -1 {
			t.Errorf("%v are %d apart", pair, d)
		}
	}
}

func TestEveryOtherRoundGoesTheOtherWay(t *testing.T) {
	x, y := &runner{system: system{name: "x"}}, &runner{system: system{name: "y"}}
	runners := []*runner{x, y}
	for n, want := range [][]*runner{{x, y}, {y, x}, {x, y}} {
		if got := inTurn(runners, n); !slices.Equal(got, want) {
			t.Errorf("round %d begins with %s", n, got[0].system.name)
		}
	}
}

func TestASystemThatCannotRunIsSaidOnce(t *testing.T) {
	peer, ours, later := system{name: "pasta"}, system{name: "slicewire-tun"}, system{name: "nebula"}
	b := &bench{systems: []system{peer, ours, later}, res: &results{}, say: func(string, ...any) {}}
	fault := errors.New("start: no such device\nlog\nlog")
	first := []*runner{{system: peer, fault: fault}, {system: ours, fault: fault}, {system: later}}
	b.leaveOut(first, 0)
	b.leaveOut(first, 0)
	b.leaveOut([]*runner{{system: later, fault: fault}}, 1)
	if want := []absence{{"pasta", "start: no such device"}}; !slices.Equal(b.res.Unavailable, want) {
		t.Errorf("unavailable: %v", b.res.Unavailable)
	}
	if f := b.res.Failures; len(f) != 2 || f[0].System != "slicewire-tun" || f[1].System != "nebula" {
		t.Errorf("failures: %v", f)
	}
	if len(b.systems) != 0 {
		t.Errorf("left: %v", b.systems)
	}
}

func TestAScheduleFollowsThePace(t *testing.T) {
	for _, c := range []struct {
		name       string
		done, rest time.Duration
		elapsed    time.Duration
		left       time.Duration
		percent    int
	}{
		{"at the beginning the plan is all there is", 0, time.Hour, 0, time.Hour, 0},
		{"a little says nothing yet", 10 * time.Second, time.Minute, time.Minute, time.Minute, 14},
		{"half as fast as planned takes twice as long", time.Minute, 3 * time.Minute, 2 * time.Minute, 6 * time.Minute, 25},
		{"the end is the end", time.Hour, 0, 2 * time.Hour, 0, 100},
		{"nothing to do is not done", 0, 0, time.Second, 0, 0},
	} {
		s := schedule{c.done, c.rest}
		if got := s.left(c.elapsed); got != c.left || s.percent() != c.percent {
			t.Errorf("%s: %v left, %d %%", c.name, got, s.percent())
		}
	}
}
