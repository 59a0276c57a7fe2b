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
		s.settle(step.records, 0, func() { got = true })
		if got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestMemoryIsGivenBackAfterChangesButNotOften(t *testing.T) {
	var s swelling
	released := 0
	look := func(records int) { s.settle(records, 0, func() { released++ }) }
	s.turns++
	look(5000)
	look(5000) // quiet: they came
	for _, step := range []struct {
		name           string
		changes, looks int
		want           int
	}{
		{"nothing changes", 0, 3 * settledLooks, 1},
		{"a change after a long time", 1, 2, 2},
		{"another at once", 1, settledLooks - 3, 2},
		{"and it is time", 0, 3, 3},
		{"nothing changes again", 0, 3 * settledLooks, 3},
	} {
		s.turns += step.changes
		for range step.looks {
			look(5000)
		}
		if released != step.want {
			t.Errorf("%s: given back %d times, want %d", step.name, released, step.want)
		}
	}
	var few swelling
	for i := range 10 * settledLooks {
		few.settle(20, i/2, func() { t.Error("20 records leave nothing behind") })
	}
}
