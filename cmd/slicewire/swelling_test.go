package main

import "testing"

func TestMemoryIsGivenBackOnceASwellingIsOver(t *testing.T) {
	var s swelling
	for i, step := range []struct {
		turned  bool
		records int
		want    bool
	}{
		{false, 20, false},
		{true, 5000, false}, // they still come
		{true, 9000, false},
		{false, 9000, true},
		{false, 9000, false}, // once
		{true, 9900, false},
		{false, 9900, false}, // few
		{true, 8000, false},
		{false, 8000, true}, // they have gone
	} {
		if step.turned {
			s.turns++
		}
		got := false
		s.settle(step.records, func() { got = true })
		if got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}
