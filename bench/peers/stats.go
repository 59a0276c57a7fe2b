package main

import (
	"fmt"
	"slices"
)

// A figure is the median of a measure over the rounds, with its range.
type figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// summarize returns the figure of some values: the mean of the two in the
// middle when their number is even. No values give the zero figure.
func summarize(values []float64) figure {
	if len(values) == 0 {
		return figure{}
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	median := s[mid]
	if len(s)%2 == 0 {
		median = (s[mid-1] + s[mid]) / 2
	}
	return figure{Median: median, Min: s[0], Max: s[len(s)-1], N: len(s)}
}

// foreignMax is the number of CPUs that others may use during a run. Runs above
// it are left out of the figures when there are quiet ones.
const foreignMax = 0.35

// A sample is one value that was measured.
type sample struct {
	System  string  `json:"system"`
	Measure string  `json:"measure"`
	Round   int     `json:"round"`
	Value   float64 `json:"value"`
	Foreign float64 `json:"foreign_cpus"` // used by others meanwhile
}

// figures summarizes samples by system and measure, from quiet runs where there
// are any. busy is the number of samples that were taken while others worked.
func figures(samples []sample) (byName map[string]map[string]figure, busy int) {
	type key struct{ system, measure string }
	quiet, all := make(map[key][]float64), make(map[key][]float64)
	for _, s := range samples {
		k := key{s.System, s.Measure}
		all[k] = append(all[k], s.Value)
		if s.Foreign <= foreignMax {
			quiet[k] = append(quiet[k], s.Value)
		} else {
			busy++
		}
	}
	byName = make(map[string]map[string]figure)
	for k, values := range all {
		if len(quiet[k]) > 0 {
			values = quiet[k]
		}
		if byName[k.system] == nil {
			byName[k.system] = make(map[string]figure)
		}
		byName[k.system][k.measure] = summarize(values)
	}
	return byName, busy
}

// A ratio compares one system's measure with another's, round by round: what
// changes the whole machine changes both.
type ratio struct {
	Of      string `json:"of"`
	To      string `json:"to"`
	Measure string `json:"measure"`
	figure
	Bar float64 `json:"bar,omitempty"` // what the median has to keep below, if anything
}

// verdict says whether the bar is kept, to the digit that decides, or nothing
// where there is none.
func (r ratio) verdict() string {
	switch {
	case r.Bar == 0:
		return ""
	case r.Median < r.Bar:
		return fmt.Sprintf("%.3f is below %s", r.Median, number(r.Bar))
	default:
		return fmt.Sprintf("%.3f is NOT below %s", r.Median, number(r.Bar))
	}
}

// ratios returns the ratio of of to to for every measure that both have in the
// same round, in the order of measures; from quiet rounds where there are any.
func ratios(samples []sample, of, to string, measures []string) []ratio {
	var out []ratio
	for _, m := range measures {
		taken := map[string]map[int]sample{of: {}, to: {}}
		for _, s := range samples {
			if s.Measure == m && taken[s.System] != nil {
				taken[s.System][s.Round] = s
			}
		}
		var quiet, all []float64
		for round, v := range taken[of] {
			w, ok := taken[to][round]
			if !ok || w.Value <= 0 {
				continue
			}
			all = append(all, v.Value/w.Value)
			if max(v.Foreign, w.Foreign) <= foreignMax {
				quiet = append(quiet, v.Value/w.Value)
			}
		}
		if len(quiet) > 0 {
			all = quiet
		}
		if len(all) > 0 {
			out = append(out, ratio{Of: of, To: to, Measure: m, figure: summarize(all)})
		}
	}
	return out
}
