package hub

import (
	"maps"
	"slices"
	"strings"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// A verdict is what became of an object of the hub.
type verdict struct {
	refused string // why; "": it is in force
	before  bool   // an earlier version is in force instead
}

// A merged state is what objects come to.
type merged struct {
	set      *manifest.Set // of the hub, as it is in force
	mesh     overlay.Mesh
	problems []manifest.Problem // warnings, and errors of what is not the hub's
	good     documents          // what is in force, to be kept
	verdicts map[string]verdict
}

// merge works out the desired state of what the hub and others say. An object of
// the hub with errors is left out, or goes on as it was in good; when what is in
// good has errors because of what is new, what is new is left out. So no object
// can spoil what others ask for.
func merge(others *manifest.Set, now, good documents, opts manifest.Options) merged {
	opts.Live = true
	use := documents{}
	maps.Copy(use, now)
	why := map[string]string{}
	refuse := func(id, reason string) {
		if _, known := why[id]; !known {
			why[id] = reason
		}
		if before := good[id]; before != nil && use[id] != before && !before.same(use[id]) {
			use[id] = before
		} else {
			delete(use, id)
		}
	}
	for {
		m, errs := build(others, use, opts)
		if len(errs) == 0 {
			m.good, m.verdicts = maps.Clone(use), verdicts(now, use, why)
			return m
		}
		fresh := false
		for _, id := range slices.Sorted(maps.Keys(errs)) {
			if d := use[id]; !d.same(good[id]) {
				fresh = true
				refuse(id, errs[id])
			}
		}
		if fresh {
			continue
		}
		// What was in force is in error: for something that is new, or for good.
		for _, id := range slices.Sorted(maps.Keys(use)) {
			if d := use[id]; !d.same(good[id]) && influential(d.Kind) {
				fresh = true
				refuse(id, "what is in force does not go together with it: "+errs[firstKey(errs)])
			}
		}
		if !fresh {
			for id := range errs {
				refuse(id, errs[id])
				delete(use, id)
			}
		}
	}
}

// influential are the kinds that can put others into error.
func influential(kind string) bool { return kind != "ServiceExportConfig" && kind != "SlicePolicy" }

func firstKey(m map[string]string) string { return slices.Min(slices.Collect(maps.Keys(m))) }

// build returns what the documents come to, and the first error of each that has
// any.
func build(others *manifest.Set, use documents, opts manifest.Options) (merged, map[string]string) {
	set := &manifest.Set{}
	errs := map[string]string{}
	var m merged
	take := func(problems []manifest.Problem) {
		for _, p := range problems {
			ours := strings.HasPrefix(p.File, idPrefix)
			switch {
			case ours && p.Severity == manifest.Error:
				if _, known := errs[p.File]; !known {
					errs[p.File] = p.Text()
				}
			case ours:
				p.Line = 0
				m.problems = append(m.problems, p)
			default:
				m.problems = append(m.problems, p)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(use)) {
		d := use[id]
		take(d.problems)
		if d.object != nil {
			set.Objects = append(set.Objects, d.object)
		}
	}
	mesh, problems := manifest.Build(manifest.Join(others, set), opts)
	take(problems)
	m.set, m.mesh = set, mesh
	return m, errs
}

func verdicts(now, use documents, why map[string]string) map[string]verdict {
	out := map[string]verdict{}
	for id := range now {
		out[id] = verdict{refused: why[id], before: why[id] != "" && use[id] != nil}
	}
	return out
}
