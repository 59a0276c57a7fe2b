package hub

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// these makes documents of a kind with the numbers from to to, less some.
func these(kind string, from, to int, less ...int) documents {
	out := documents{}
	for i := from; i < to; i++ {
		if !slices.Contains(less, i) {
			id := fmt.Sprintf("%s%s/n/%d", idPrefix, kind, i)
			out[id] = &document{ID: id, Kind: kind, Rev: "1"}
		}
	}
	return out
}

func TestManyThatVanishAtOnceAreHeld(t *testing.T) {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	told := func(string) bool { return true }
	lost := func(string) bool { return false }
	type step struct {
		after     time.Duration
		there     documents
		deleted   func(string) bool
		confirmed time.Duration // 0: not
		counts    int
		held      int
	}
	for _, c := range []struct {
		name  string
		first documents
		steps []step
	}{
		{"one of three is too much when the hub only lost it", these("SliceConfig", 0, 3), []step{{0, these("SliceConfig", 0, 3, 1), lost, 0, 3, 1}}},
		{"one of three may be deleted", these("SliceConfig", 0, 3), []step{{0, these("SliceConfig", 0, 3, 1), told, 0, 2, 0}}},
		{"the only one may be deleted", these("SliceConfig", 0, 1), []step{{0, documents{}, told, 0, 0, 0}}},
		{"the only one that the hub lost goes on", these("SliceConfig", 0, 1), []step{{0, documents{}, lost, 0, 1, 1}}},
		{"three of ten may go", these("ServiceExportConfig", 0, 10), []step{{0, these("ServiceExportConfig", 0, 10, 1, 2, 3), lost, 0, 7, 0}}},
		{"four of ten are held", these("ServiceExportConfig", 0, 10), []step{{0, these("ServiceExportConfig", 0, 10, 1, 2, 3, 4), told, 0, 10, 4}}},
		{"one after another within a minute too", these("SliceConfig", 0, 10), []step{
			{0, these("SliceConfig", 1, 10), told, 0, 9, 0}, {time.Second, these("SliceConfig", 2, 10), told, 0, 8, 0},
			{time.Second, these("SliceConfig", 3, 10), told, 0, 7, 0}, {time.Second, these("SliceConfig", 4, 10), told, 0, 7, 1},
			{time.Second, these("SliceConfig", 5, 10), told, 0, 7, 2}}},
		{"slowly it is meant", these("SliceConfig", 0, 4), []step{
			{0, these("SliceConfig", 1, 4), told, 0, 3, 0}, {2 * time.Minute, these("SliceConfig", 2, 4), told, 0, 2, 0}}},
		{"what comes back is no longer held", these("SliceConfig", 0, 4), []step{
			{0, documents{}, lost, 0, 4, 4}, {time.Minute, these("SliceConfig", 0, 4), lost, 0, 4, 0}}},
		{"held for a day, then gone", these("SliceConfig", 0, 4), []step{
			{0, documents{}, lost, 0, 4, 4}, {23 * time.Hour, documents{}, lost, 0, 4, 4}, {2 * time.Hour, documents{}, lost, 0, 0, 0}}},
		{"confirmed, then gone", these("SliceConfig", 0, 4), []step{
			{0, documents{}, lost, 0, 4, 4}, {time.Minute, documents{}, lost, 30 * time.Second, 0, 0}}},
		{"confirmed before it happened is not confirmed", these("SliceConfig", 0, 4), []step{
			{time.Minute, documents{}, lost, 30 * time.Second, 4, 4}, {time.Minute, documents{}, lost, 30 * time.Second, 4, 4}}},
		{"other kinds go on with what is held", join(these("SliceConfig", 0, 4), these("SlicePolicy", 0, 3)), []step{
			{0, documents{}, lost, 0, 7, 7}}},
		{"other kinds alone go", join(these("SliceConfig", 0, 4), these("SlicePolicy", 0, 3)), []step{
			{0, these("SliceConfig", 0, 4), lost, 0, 4, 0}}},
		{"what slices lean on is held when it was lost before them", join(these("SliceConfig", 0, 4), these("SliceQoSConfig", 0, 1)), []step{
			{0, these("SliceConfig", 0, 4), lost, 0, 5, 1}, {time.Second, documents{}, lost, 0, 5, 5}}},
		{"and goes when it was deleted", join(these("SliceConfig", 0, 4), these("Cluster", 0, 3)), []step{
			{0, join(these("SliceConfig", 0, 4), these("Cluster", 0, 1)), told, 0, 5, 0}}},
		{"one of ten clusters may be lost", join(these("SliceConfig", 0, 4), these("Cluster", 0, 10)), []step{
			{0, join(these("SliceConfig", 0, 4), these("Cluster", 0, 9)), lost, 0, 13, 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := begin
			g := guard{known: c.first}
			for i, s := range c.steps {
				now = now.Add(s.after)
				var confirmed time.Time
				if s.confirmed > 0 {
					confirmed = begin.Add(s.confirmed)
				}
				g.update(seen{now: now, there: s.there, deleted: s.deleted, holdFor: 24 * time.Hour, confirmed: confirmed})
				if len(g.known) != s.counts || len(g.held()) != s.held {
					t.Errorf("step %d: %d count, %d held, want %d and %d", i, len(g.known), len(g.held()), s.counts, s.held)
				}
			}
		})
	}
}

func join(all ...documents) documents {
	out := documents{}
	for _, d := range all {
		for id, x := range d {
			out[id] = x
		}
	}
	return out
}
