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
	MaxRecordsPerOrigin = 2500      // records and tombstones: a thousand services, and as many that have gone
	MaxBytesPerOrigin   = 768 << 10 // of signed bytes
	maxFloorsPerOrigin  = 5000      // versions remembered after their record is gone
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
	soonest time.Time // nothing held is void before; zero: nothing is held
	parts   [Parts]Digest
}

// origin is what a ledger holds of one node.
//
// Invariants: bytes is the length of all raw; digest is the exclusive or of all
// sums; no key is in both entries and floors.
type origin struct {
	id      NodeID
	entries map[Key]*entry
	floors  map[Key]Version // of keys that hold nothing any more; nil: of none
	floor   Version         // every key without a floor of its own is this old at least
	bytes   int
	digest  Digest
	counted Digest // what counts of it in its part, see changed
}

type entry struct {
	record Record
	raw    []byte
	sum    Digest
}

// Offer decides about r, which came as raw, and keeps it if it is New.
func (l *Ledger) Offer(r Record, raw []byte) Verdict {
	v := l.Judge(r, raw)
	if v != New {
		return v
	}
	o := l.open(r.Origin)
	o.remove(r.Key)
	delete(o.floors, r.Key)
	e := &entry{record: r, raw: raw, sum: rawSum(raw)}
	o.entries[r.Key] = e
	o.bytes += len(raw)
	o.digest.toggle(e.sum)
	l.changed(o)
	if l.soonest.IsZero() || r.NotAfter.Before(l.soonest) {
		l.soonest = r.NotAfter
	}
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
	held, replaced := o.entries[r.Key], 0
	if held != nil {
		if held.record.Version == r.Version {
			if string(held.raw) == string(raw) {
				return Same
			}
			return Conflict
		}
		replaced = len(held.raw)
	}
	floor, known := o.floorOf(r.Key)
	if !known {
		floor = o.floor
	}
	if r.Version.Less(floor) {
		return Old
	}
	if held == nil && len(o.entries) >= MaxRecordsPerOrigin || o.bytes-replaced+len(raw) > MaxBytesPerOrigin {
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
	o := &origin{id: id, entries: make(map[Key]*entry)}
	l.origins[id] = o
	return o
}

// remove takes the entry of a key out, its floor too.
func (o *origin) remove(k Key) {
	e := o.entries[k]
	if e == nil {
		return
	}
	delete(o.entries, k)
	o.bytes -= len(e.raw)
	o.digest.toggle(e.sum)
}

// retire takes the entry of a key out and leaves its floor.
func (o *origin) retire(k Key) {
	if e := o.entries[k]; e != nil {
		o.remove(k)
		o.setFloor(k, e.record.Version)
	}
}

// Expire takes out the records that are void at now and returns how many they
// were. Their versions stay as floors.
func (l *Ledger) Expire(now time.Time) int {
	if now.Before(l.soonest) || l.soonest.IsZero() {
		return 0 // this is asked every few seconds, and lives are days
	}
	n := 0
	l.soonest = time.Time{}
	for _, o := range l.origins {
		before := n
		for k, e := range o.entries {
			if !now.Before(e.record.NotAfter) {
				o.retire(k)
				n++
			} else if l.soonest.IsZero() || e.record.NotAfter.Before(l.soonest) {
				l.soonest = e.record.NotAfter
			}
		}
		if n > before {
			o.boundFloors()
			l.changed(o)
		}
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
				o.retire(k)
				n++
			}
		}
		if n > before {
			o.boundFloors()
			l.changed(o)
		}
		if n > before && len(o.entries) == 0 {
			delete(l.origins, id)
		}
	}
	return n
}

// Records returns what holds at now: no tombstones, nothing void. It is sorted
// by origin and key.
func (l *Ledger) Records(now time.Time) []Record {
	out := make([]Record, 0, l.Count())
	for _, id := range l.Origins() {
		for _, k := range l.origins[id].keys() {
			if r := l.origins[id].entries[k].record; !r.Deleted && now.Before(r.NotAfter) {
				out = append(out, r)
			}
		}
	}
	return out
}

// Count returns how many records and tombstones are held.
func (l *Ledger) Count() int {
	n := 0
	for _, o := range l.origins {
		n += len(o.entries)
	}
	return n
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

// Each calls f with everything held, tombstones too, in no order. f must not
// change the ledger.
func (l *Ledger) Each(f func(Held)) {
	for _, o := range l.origins {
		for _, e := range o.entries {
			f(Held{e.record, e.raw})
		}
	}
}

// Issuers returns the origins that are issuers, which have no site, sorted.
func (l *Ledger) Issuers() []NodeID {
	var out []NodeID
	for id := range l.origins {
		if id.Site == "" {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, compareID)
	return out
}

// Withdrawn returns the origins of which nothing but tombstones is held, sorted.
func (l *Ledger) Withdrawn() []NodeID {
	var out []NodeID
	for id, o := range l.origins {
		gone := len(o.entries) > 0
		for _, e := range o.entries {
			gone = gone && e.record.Deleted
		}
		if gone {
			out = append(out, id)
		}
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
