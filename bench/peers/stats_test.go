package main

import (
	"math"
	"testing"
)

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []float64
		want   figure
	}{
		{"nothing is the zero figure", nil, figure{}},
		{"one value is all of it", []float64{3}, figure{3, 3, 3, 1}},
		{"an odd number has a middle", []float64{9, 1, 5}, figure{5, 1, 9, 3}},
		{"an even number has two", []float64{4, 1, 2, 8}, figure{3, 1, 8, 4}},
	} {
		if got := summarize(c.values); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestSummarizeLeavesItsArgument(t *testing.T) {
	v := []float64{3, 1, 2}
	summarize(v)
	if v[0] != 3 || v[1] != 1 {
		t.Errorf("sorted in place: %v", v)
	}
}

func TestBusyRunsCountOnlyWhereThereAreNoQuietOnes(t *testing.T) {
	got, busy := figures([]sample{
		{"x", "m", 0, 10, 0.1}, {"x", "m", 1, 99, 1.5}, {"x", "m", 2, 12, 0},
		{"y", "m", 0, 7, 0.9}, {"y", "m", 1, 9, 0.4},
	})
	if busy != 3 {
		t.Errorf("%d busy", busy)
	}
	if f := got["x"]["m"]; f != (figure{11, 10, 12, 2}) {
		t.Errorf("x: %+v", f)
	}
	if f := got["y"]["m"]; f != (figure{8, 7, 9, 2}) {
		t.Errorf("y: %+v", f)
	}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	samples := []sample{
		{"ours", "cpu", 0, 2, 0}, {"theirs", "cpu", 0, 4, 0},
		{"ours", "cpu", 1, 30, 0}, {"theirs", "cpu", 1, 40, 0},
		{"ours", "cpu", 2, 5, 0}, // theirs failed
		{"theirs", "cpu", 3, 0, 0}, {"ours", "cpu", 3, 1, 0},
		{"ours", "rtt", 0, 1, 0},
		{"ours", "mbps", 0, 9, 0}, {"theirs", "mbps", 0, 3, 0},
		{"ours", "mbps", 1, 9, 0}, {"theirs", "mbps", 1, 1, 1.2}, // busy
	}
	got := ratios(samples, "ours", "theirs", []string{"mbps", "rtt", "cpu"})
	if len(got) != 2 || got[0].Measure != "mbps" || got[1].Measure != "cpu" {
		t.Fatalf("%+v", got)
	}
	if got[0].Median != 3 || got[1].figure != (figure{0.625, 0.5, 0.75, 2}) {
		t.Errorf("%+v", got)
	}
}

func TestABarIsKeptOnlyFromBelow(t *testing.T) {
	for _, c := range []struct {
		name        string
		median, bar float64
		want        string
	}{
		{"no bar, no verdict", 3, 0, ""},
		{"below it", 0.2461, 0.25, "0.246 is below 0.25"},
		{"on it", 0.25, 0.25, "0.250 is NOT below 0.25"},
		{"above it by less than the table shows", 0.2539, 0.25, "0.254 is NOT below 0.25"},
	} {
		if got := (ratio{figure: figure{Median: c.median}, Bar: c.bar}).verdict(); got != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

func TestHighestRateFindsTheLimit(t *testing.T) {
	for _, limit := range []float64{1e3, 20e3, 33e3, 300e3} {
		tries := 0
		got, err := highestRate(20e3, 1, 12, func(rate float64) (float64, error) {
			tries++
			if rate > limit {
				return 50, nil
			}
			return 0.5, nil
		})
		if err != nil || got > limit || got < limit*0.9 || tries > 12 {
			t.Errorf("limit %v: %v after %d tries, %v", limit, got, tries, err)
		}
	}
	if got, _ := highestRate(20e3, 1, 5, func(float64) (float64, error) { return 100, nil }); got != 0 {
		t.Errorf("nothing is carried, yet %v", got)
	}
}

func TestLossCountsNoGain(t *testing.T) {
	for _, c := range []struct {
		sent, received int64
		want           float64
	}{{0, 0, 0}, {100, 100, 0}, {200, 50, 75}, {10, 12, 0}} {
		if got := (udpRun{c.sent, c.received, 1}).lossPercent(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%d of %d: %v", c.received, c.sent, got)
		}
	}
}

func TestSeenCountsEachNumberOnce(t *testing.T) {
	var s seen
	for _, n := range []uint64{0, 5, 5, 70000, 64, 63, 0, 1<<28 - 1, 1 << 28, math.MaxUint64} {
		s.add(n)
	}
	if s.count != 6 {
		t.Errorf("counted %d", s.count)
	}
	if len(s.bits) > seenMax/64*2 {
		t.Errorf("%d words", len(s.bits))
	}
}
