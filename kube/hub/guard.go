package hub

import (
	"maps"
	"slices"
	"time"
)

// What counts as too much at once: more than massPercent of the slices or of the
// exports within massWindow, and either several or not seen to be deleted (the
// hub lost them).
const (
	massPercent = 30
	massWindow  = time.Minute
)

// guarded are the kinds whose going in numbers is held.
var guarded = []string{"SliceConfig", "ServiceExportConfig"}

// leaned are the kinds that slices lean on: without them, slices are in error. Of
// these, what the hub lost is held, too: a hub that begins anew is seen kind by
// kind, and slices may still be there when these have gone.
var leaned = []string{"Cluster", "SliceQoSConfig", "SliceIpam", "WorkerSliceConfig"}

// A removal is an object that has gone and does not count any more.
type removal struct {
	kind string
	at   time.Time
}

// A guard decides which objects count: those that are there, and those that have
// vanished with too many others.
type guard struct {
	known   documents // what counts
	removed []removal // within massWindow
}

// seen is what the hub has at one moment.
type seen struct {
	now       time.Time
	there     documents
	deleted   func(id string) bool // the hub told that it was deleted
	holdFor   time.Duration
	confirmed time.Time // what vanished before is meant to be gone
}

// update takes in what the hub has. It returns the IDs that are newly held.
func (g *guard) update(s seen) (held []string) {
	g.removed = slices.DeleteFunc(g.removed, func(r removal) bool { return s.now.Sub(r.at) > massWindow })
	next := documents{}
	maps.Copy(next, s.there)
	var gone []*document
	for _, id := range slices.Sorted(maps.Keys(g.known)) {
		if d := g.known[id]; next[id] == nil {
			if d.Gone.IsZero() {
				c := *d
				c.Gone = s.now
				d = &c
			}
			if s.now.Sub(d.Gone) < s.holdFor && d.Gone.After(s.confirmed) {
				gone = append(gone, d)
			}
		}
	}
	mass := g.massive(gone, s.deleted)
	for _, d := range gone {
		switch {
		case d.Held:
			next[d.ID] = d
		case mass:
			d.Held = true
			next[d.ID] = d
			held = append(held, d.ID)
		default:
			g.removed = append(g.removed, removal{d.Kind, s.now})
		}
	}
	g.known = next
	return held
}

// massive reports whether too many have gone.
func (g *guard) massive(gone []*document, deleted func(string) bool) bool {
	for _, kind := range leaned {
		total, lost := 0, 0
		for _, d := range g.known {
			if d.Kind == kind && !d.Held {
				total++
			}
		}
		for _, d := range gone {
			if d.Kind == kind && !d.Held && !deleted(d.ID) {
				lost++
			}
		}
		if lost*100 > massPercent*total {
			return true
		}
	}
	for _, kind := range guarded {
		total, missing, lost := 0, 0, false
		for _, r := range g.removed {
			if r.kind == kind {
				total, missing = total+1, missing+1
			}
		}
		for _, d := range g.known {
			if d.Kind == kind && !d.Held {
				total++
			}
		}
		fresh := 0
		for _, d := range gone {
			if d.Kind == kind && !d.Held {
				fresh++
				lost = lost || !deleted(d.ID)
			}
		}
		missing += fresh
		if fresh > 0 && missing*100 > massPercent*total && (missing > 1 || lost) {
			return true
		}
	}
	return false
}

// held returns what counts though it has gone, sorted.
func (g *guard) held() []string {
	var out []string
	for id, d := range g.known {
		if d.Held {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
