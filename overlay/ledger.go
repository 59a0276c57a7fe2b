package overlay

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
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

// An OriginSummary says in few bytes what a ledger holds of one origin: equal
// digests, equal contents.
type OriginSummary struct {
	Origin NodeID
	Newest Version // of the records held
	Count  int
	Digest [16]byte
}

// Summary returns the summary of every origin of which something is held,
// sorted by origin.
func (l *Ledger) Summary() []OriginSummary {
	var out []OriginSummary
	for _, id := range l.Origins() {
		o := l.origins[id]
		if len(o.entries) == 0 {
			continue
		}
		s := OriginSummary{Origin: id, Count: len(o.entries), Digest: o.digest}
		for _, e := range o.entries {
			if s.Newest.Less(e.record.Version) {
				s.Newest = e.record.Version
			}
		}
		out = append(out, s)
	}
	return out
}

// Compare says, given another ledger's summary, of which origins that ledger
// holds nothing at all although this one does (push), and of which it holds
// something else than this one (pull: ask for what is missing here). Both are
// sorted by origin.
func (l *Ledger) Compare(theirs []OriginSummary) (push, pull []NodeID) {
	seen := make(map[NodeID]bool, len(theirs))
	for _, s := range theirs {
		if seen[s.Origin] {
			continue
		}
		seen[s.Origin] = true
		o := l.origins[s.Origin]
		if s.Count > 0 && (o == nil || len(o.entries) == 0 || o.digest != s.Digest) {
			pull = append(pull, s.Origin)
		}
	}
	for id, o := range l.origins {
		if !seen[id] && len(o.entries) > 0 {
			push = append(push, id)
		}
	}
	slices.SortFunc(push, compareID)
	slices.SortFunc(pull, compareID)
	return push, pull
}

// A Mark says which version of which key a ledger holds, in 32 bytes.
type Mark struct {
	Key     uint64 // see keySum
	Version Version
	Raw     uint64 // the beginning of the raw bytes' SHA-256
}

// Marks returns a mark for everything held of an origin, sorted by key.
func (l *Ledger) Marks(id NodeID) []Mark {
	o := l.origins[id]
	if o == nil {
		return nil
	}
	out := make([]Mark, 0, len(o.entries))
	for _, k := range o.keys() {
		e := o.entries[k]
		out = append(out, Mark{keySum(k), e.record.Version, binary.BigEndian.Uint64(e.sum[:])})
	}
	return out
}

// Missing returns the signed bytes of what this ledger holds of an origin and a
// ledger with the given marks does not: unknown keys, newer versions, and equal
// versions with other bytes, so that a clone is noticed. Sorted by key.
func (l *Ledger) Missing(id NodeID, marks []Mark) [][]byte {
	o := l.origins[id]
	if o == nil {
		return nil
	}
	theirs := make(map[uint64]Mark, len(marks))
	for _, m := range marks {
		theirs[m.Key] = m
	}
	var out [][]byte
	for _, k := range o.keys() {
		e := o.entries[k]
		m, known := theirs[keySum(k)]
		clone := m.Version == e.record.Version && m.Raw != binary.BigEndian.Uint64(e.sum[:])
		if !known || m.Version.Less(e.record.Version) || clone {
			out = append(out, e.raw)
		}
	}
	return out
}

// Lacks reports whether a ledger with the given marks of an origin holds a key
// that this one does not, or a newer version of one.
func (l *Ledger) Lacks(id NodeID, marks []Mark) bool {
	ours := make(map[uint64]Version)
	if o := l.origins[id]; o != nil {
		for k, e := range o.entries {
			ours[keySum(k)] = e.record.Version
		}
	}
	return slices.ContainsFunc(marks, func(m Mark) bool {
		v, known := ours[m.Key]
		return !known || v.Less(m.Version)
	})
}

// keySum names a key in eight bytes. A collision within one origin costs a
// record until one of the two changes; it is the origin's own doing.
func keySum(k Key) uint64 {
	h := sha256.New()
	h.Write([]byte{byte(k.Kind)})
	h.Write([]byte(k.Slice))
	h.Write([]byte{0}) // slice names have no such byte
	h.Write([]byte(k.Name))
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func rawSum(raw []byte) (sum [16]byte) {
	full := sha256.Sum256(raw)
	copy(sum[:], full[:])
	return sum
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
