package overlay

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Limits of what a Ledger keeps.
const (
	MaxOrigins          = 4096      // nodes that have said anything
	MaxRecordsPerOrigin = 1000      // records and tombstones
	MaxBytesPerOrigin   = 256 << 10 // of signed bytes
	maxFloorsPerOrigin  = 2000      // versions remembered after their record is gone
)

// A Verdict is what a Ledger makes of a record offered to it.
type Verdict uint8

// The verdicts.
const (
	New      Verdict = iota // kept: the first or a newer version of its key
	Same                    // these very bytes are held already
	Old                     // an older version than one seen before
	Conflict                // the version held has other bytes: two holders of one key speak. Not kept
	Full                    // its origin has used up what it may say, or there are too many origins
)

// A Ledger keeps the newest record of every key of every origin, together with
// the signed bytes it came in. It takes what it is offered: whoever offers has
// verified it. It remembers the last version of a key after the record is gone,
// so that an old record cannot come back.
//
// The zero Ledger is ready. It is not safe for concurrent use. It keeps the raw
// slices it is given and returns them: nobody changes them afterwards.
type Ledger struct {
	origins map[NodeID]*origin
}

// origin is what a ledger holds of one node.
//
// Invariants: bytes is the length of all raw; digest is the exclusive or of all
// sums; every key of entries is also in floors, with the entry's version.
type origin struct {
	entries map[Key]entry
	floors  map[Key]Version
	floor   Version // every key without a floor of its own is this old at least
	bytes   int
	digest  [16]byte
}

type entry struct {
	record Record
	raw    []byte
	sum    [16]byte
}

// Offer decides about r, which came as raw, and keeps it if it is New.
func (l *Ledger) Offer(r Record, raw []byte) Verdict {
	v := l.Judge(r, raw)
	if v != New {
		return v
	}
	o := l.open(r.Origin)
	o.remove(r.Key)
	e := entry{record: r, raw: raw, sum: rawSum(raw)}
	o.entries[r.Key] = e
	o.floors[r.Key] = r.Version
	o.bytes += len(raw)
	o.toggle(e.sum)
	return New
}

// Judge returns what Offer would decide, and changes nothing.
func (l *Ledger) Judge(r Record, raw []byte) Verdict {
	o := l.origins[r.Origin]
	if o == nil {
		if !l.room() || len(raw) > MaxBytesPerOrigin {
			return Full
		}
		return New
	}
	held, ok := o.entries[r.Key]
	if ok && held.record.Version == r.Version {
		if string(held.raw) == string(raw) {
			return Same
		}
		return Conflict
	}
	floor, known := o.floors[r.Key]
	if !known {
		floor = o.floor
	}
	if r.Version.Less(floor) {
		return Old
	}
	if !ok && len(o.entries) >= MaxRecordsPerOrigin || o.bytes-len(held.raw)+len(raw) > MaxBytesPerOrigin {
		return Full
	}
	return New
}

// room reports whether one more origin can be opened: an origin of which
// nothing is held any more gives way.
func (l *Ledger) room() bool {
	return len(l.origins) < MaxOrigins || l.idle() != nil
}

// idle returns the first origin of which nothing is held.
func (l *Ledger) idle() *NodeID {
	for _, id := range l.Origins() {
		if len(l.origins[id].entries) == 0 {
			return &id
		}
	}
	return nil
}

// open returns the origin of that name, for which there is room.
func (l *Ledger) open(id NodeID) *origin {
	if o := l.origins[id]; o != nil {
		return o
	}
	if l.origins == nil {
		l.origins = make(map[NodeID]*origin)
	}
	if len(l.origins) >= MaxOrigins {
		delete(l.origins, *l.idle())
	}
	o := &origin{entries: make(map[Key]entry), floors: make(map[Key]Version)}
	l.origins[id] = o
	return o
}

// remove takes the entry of a key out and leaves its floor.
func (o *origin) remove(k Key) {
	e, ok := o.entries[k]
	if !ok {
		return
	}
	delete(o.entries, k)
	o.bytes -= len(e.raw)
	o.toggle(e.sum)
}

func (o *origin) toggle(sum [16]byte) {
	for i := range sum {
		o.digest[i] ^= sum[i]
	}
}

// Expire takes out the records that are void at now and returns how many they
// were. Their versions stay as floors.
func (l *Ledger) Expire(now time.Time) int {
	n := 0
	for _, o := range l.origins {
		for k, e := range o.entries {
			if !now.Before(e.record.NotAfter) {
				o.remove(k)
				n++
			}
		}
		o.boundFloors()
	}
	return n
}

// Drop takes out every record that void says is void, whatever its age, and
// returns how many they were. An origin of which nothing is left is forgotten,
// its floors too: they came from a holder that is not believed any more, and
// must not silence the next.
func (l *Ledger) Drop(void func(Held) bool) int {
	n := 0
	for id, o := range l.origins {
		before := n
		for k, e := range o.entries {
			if void(Held{e.record, e.raw}) {
				o.remove(k)
				n++
			}
		}
		if n > before && len(o.entries) == 0 {
			delete(l.origins, id)
		}
	}
	return n
}

// boundFloors forgets the oldest floors of keys that hold nothing once there
// are too many. The origin's common floor rises to the newest of them instead:
// a record of a forgotten key is then at worst refused until its origin signs
// it again, and never taken twice.
func (o *origin) boundFloors() {
	excess := len(o.floors) - maxFloorsPerOrigin
	if excess <= 0 {
		return
	}
	var idle []Key
	for k := range o.floors {
		if _, held := o.entries[k]; !held {
			idle = append(idle, k)
		}
	}
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

// Records returns what holds at now: no tombstones, nothing void. It is sorted
// by origin and key.
func (l *Ledger) Records(now time.Time) []Record {
	var out []Record
	for _, id := range l.Origins() {
		for _, k := range l.origins[id].keys() {
			if r := l.origins[id].entries[k].record; !r.Deleted && now.Before(r.NotAfter) {
				out = append(out, r)
			}
		}
	}
	return out
}

// A Held is a record and the signed bytes it came in.
type Held struct {
	Record Record
	Raw    []byte
}

// Of returns everything held of one origin, tombstones too, sorted by key.
func (l *Ledger) Of(id NodeID) []Held {
	o := l.origins[id]
	if o == nil {
		return nil
	}
	out := make([]Held, 0, len(o.entries))
	for _, k := range o.keys() {
		out = append(out, Held{o.entries[k].record, o.entries[k].raw})
	}
	return out
}

// Origins returns the nodes that have said anything, sorted.
func (l *Ledger) Origins() []NodeID {
	out := make([]NodeID, 0, len(l.origins))
	for id := range l.origins {
		out = append(out, id)
	}
	slices.SortFunc(out, compareID)
	return out
}

func (o *origin) keys() []Key {
	out := make([]Key, 0, len(o.entries))
	for k := range o.entries {
		out = append(out, k)
	}
	slices.SortFunc(out, Key.Compare)
	return out
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
		keys := make([]Key, 0, len(o.floors))
		for k := range o.floors {
			keys = append(keys, k)
		}
		slices.SortFunc(keys, Key.Compare)
		for _, k := range keys {
			out = append(out, Floor{id, k, o.floors[k]})
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
	if o.floors[f.Key].Less(f.Version) {
		o.remove(f.Key)
		o.floors[f.Key] = f.Version
		o.boundFloors()
	}
}

func compareID(a, b NodeID) int {
	return cmp.Or(strings.Compare(a.Site, b.Site), strings.Compare(a.Node, b.Node))
}

// Compare orders keys by kind, slice and name.
func (k Key) Compare(l Key) int {
	return cmp.Or(cmp.Compare(k.Kind, l.Kind), strings.Compare(k.Slice, l.Slice), strings.Compare(k.Name, l.Name))
}

func compareVersion(a, b Version) int {
	return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
}
