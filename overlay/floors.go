package overlay

import (
	"cmp"
	"maps"
	"slices"
)

// Floors: the last version seen of every key, which outlives what it said.

// floorOf returns the last version seen of a key, if it has one of its own.
func (o *origin) floorOf(k Key) (Version, bool) {
	if e := o.entries[k]; e != nil {
		return e.record.Version, true
	}
	v, known := o.floors[k]
	return v, known
}

func (o *origin) setFloor(k Key, v Version) {
	if o.floors == nil {
		o.floors = make(map[Key]Version)
	}
	o.floors[k] = v
}

// boundFloors forgets the oldest floors of keys that hold nothing once there
// are too many. The origin's common floor rises to the newest of them instead:
// a record of a forgotten key is then at worst refused until its origin signs
// it again, and never taken twice.
func (o *origin) boundFloors() {
	excess := len(o.floors) + len(o.entries) - maxFloorsPerOrigin
	if excess <= 0 {
		return
	}
	idle := slices.Collect(maps.Keys(o.floors))
	slices.SortFunc(idle, func(a, b Key) int {
		return cmp.Or(compareVersion(o.floors[a], o.floors[b]), a.Compare(b))
	})
	for _, k := range idle[:min(excess, len(idle))] {
		if o.floor.Less(o.floors[k]) {
			o.floor = o.floors[k]
		}
		delete(o.floors, k)
	}
}

// Newest returns the newest version seen of an origin, floors included.
func (l *Ledger) Newest(id NodeID) Version {
	o := l.origins[id]
	if o == nil {
		return Version{}
	}
	v := o.floor
	for _, f := range o.floors {
		if v.Less(f) {
			v = f
		}
	}
	for _, e := range o.entries {
		if v.Less(e.record.Version) {
			v = e.record.Version
		}
	}
	return v
}

// A Floor is the last version seen of a key. The zero Key stands for all keys
// of the origin that have no floor of their own.
type Floor struct {
	Origin  NodeID
	Key     Key
	Version Version
}

// Floors returns the versions that have to outlive a restart, sorted by origin
// and key.
func (l *Ledger) Floors() []Floor {
	var out []Floor
	for _, id := range l.Origins() {
		o := l.origins[id]
		if o.floor != (Version{}) {
			out = append(out, Floor{Origin: id, Version: o.floor})
		}
		keys := slices.AppendSeq(o.keys(), maps.Keys(o.floors))
		slices.SortFunc(keys, Key.Compare)
		for _, k := range keys {
			v, _ := o.floorOf(k)
			out = append(out, Floor{id, k, v})
		}
	}
	return out
}

// RaiseFloor makes the ledger refuse everything older than f.Version under
// f.Key. The version itself is welcome where no record is held: it may have been
// lost without its floor.
func (l *Ledger) RaiseFloor(f Floor) {
	if l.origins[f.Origin] == nil && !l.room() {
		return
	}
	o := l.open(f.Origin)
	if f.Key == (Key{}) {
		if o.floor.Less(f.Version) {
			o.floor = f.Version
		}
		return
	}
	if v, _ := o.floorOf(f.Key); v.Less(f.Version) {
		o.remove(f.Key)
		o.setFloor(f.Key, f.Version)
		o.boundFloors()
		l.changed(o)
	}
}
