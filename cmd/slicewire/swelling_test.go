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
		s.settle(step.records, 0, noHeap, func() { got = true })
		if got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestMemoryIsGivenBackAfterChangesButNotOften(t *testing.T) {
	var s swelling
	released := 0
	look := func(records int) { s.settle(records, 0, noHeap, func() { released++ }) }
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
		few.settle(20, i/2, noHeap, func() { t.Error("20 records leave nothing behind") })
	}
}

func noHeap() uint64 { return 0 }

// What questions leave behind is given back, too, and what lives is not taken for it.
func TestMemoryIsGivenBackThoughNothingChanged(t *testing.T) {
	var s swelling
	heap, released := uint64(100<<20), 0
	look := func(n int) {
		for range n {
			s.settle(5000, 0, func() uint64 { return heap }, func() { released++; heap = 90 << 20 })
		}
	}
	look(2)
	for _, step := range []struct {
		name string
		heap uint64
		want int
	}{
		{"they came", 90 << 20, 1},
		{"a little is asked", 105 << 20, 1},
		{"much is asked", 107 << 20, 2},
		{"and nothing more", 90 << 20, 2},
	} {
		heap = step.heap
		look(2 * settledLooks)
		if released != step.want {
			t.Errorf("%s: given back %d times, want %d", step.name, released, step.want)
		}
	}
	if got := residentHeap(); got < 1<<20 || got > 1<<40 {
		t.Errorf("the heap has %d bytes", got)
	}
}
