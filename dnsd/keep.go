package dnsd

import (
	"maps"
	"slices"

	"slicewire/overlay"
)

// A keeper hands services over from one snapshot to the next: of 10,000, a
// change concerns one.
type keeper struct {
	before    *snapshot // nil: there is nothing to keep
	sameReach bool
	serial    uint32 // of the snapshot that is made
}

func newKeeper(before, now *snapshot, serial uint32) keeper {
	if before == nil || before.mode != now.mode || before.ttl != now.ttl {
		return keeper{}
	}
	return keeper{before, maps.Equal(before.reach, now.reach), serial}
}

// reverses returns the addresses of the services that were kept, in order,
// together with fresh ones, which it sorts.
func (k keeper) reverses(fresh []reverse) []reverse {
	slices.SortStableFunc(fresh, compareReverse)
	if k.before == nil {
		return fresh
	}
	out := make([]reverse, 0, len(k.before.reverses)+len(fresh))
	for _, r := range k.before.reverses {
		if r.service == nil || r.service.serial != k.serial {
			continue
		}
		for len(fresh) > 0 && compareReverse(fresh[0], r) < 0 {
			out, fresh = append(out, fresh[0]), fresh[1:]
		}
		out = append(out, r)
	}
	return append(out, fresh...)
}

// keep puts a service's records of before into now, if they are what would be
// made of it, and reports whether.
func (k keeper) keep(now *snapshot, x *overlay.ServiceView, v View) bool {
	if k.before == nil || len(x.DNSNames) > 1 { // an alias may have become another's
		return false
	}
	if _, replaced := v.StandIns[x.Namespace+"/"+x.Name]; replaced {
		return false
	}
	var space [maxName]byte
	prefix, ok := appendName(space[:0], x.Name+"."+x.Namespace+".svc")
	if !ok {
		return false
	}
	prefix = prefix[:len(prefix)-1]
	var was *service
	for _, z := range now.zones {
		name := string(prefix) + z.wire
		r := k.before.names[name]
		if r == nil || r.svc == nil || now.names[name] != nil {
			return false
		}
		was = r.svc
	}
	if was == nil || was.standIn != nil || len(was.DNSNames) > 1 || !sameService(&was.ServiceView, x) {
		return false
	}
	if !k.sameReach {
		fresh := newService(x, v.Reach)
		if !slices.Equal(fresh.live, was.live) || !slices.Equal(fresh.rank, was.rank) {
			return false
		}
	}
	for _, z := range now.zones {
		name := string(prefix) + z.wire
		now.put(name, k.before.names[name])
	}
	was.serial = k.serial
	return true
}

// sameService reports whether two views of one service have the same answers.
// Endpoints that were imported once and not since are the same array.
func sameService(a, b *overlay.ServiceView) bool {
	if a.Type != b.Type || a.Affinity != b.Affinity || a.Virtual != b.Virtual || a.Virtual6 != b.Virtual6 || a.Name != b.Name || a.Namespace != b.Namespace ||
		!slices.Equal(a.Ports, b.Ports) || len(a.Endpoints) != len(b.Endpoints) {
		return false
	}
	if len(a.Endpoints) == 0 || &a.Endpoints[0] == &b.Endpoints[0] {
		return true
	}
	return slices.EqualFunc(a.Endpoints, b.Endpoints, func(x, y overlay.EndpointView) bool {
		return x.Endpoint == y.Endpoint && x.Origin == y.Origin && slices.Equal(x.Ports, y.Ports)
	})
}
