package overlay

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// How two ledgers find out what one lacks of the other's: first by a summary of
// every origin, then, for those that differ, by a mark for every record.

// An OriginSummary says in few bytes what a ledger holds of one origin: equal
// digests, equal contents.
type OriginSummary struct {
	Origin NodeID
	Newest Version // of the records held
	Count  int
	Digest Digest
}

// Summary returns the summary of every origin of which something is held,
// sorted by origin.
func (l *Ledger) Summary() []OriginSummary { return l.SummaryOf(AllParts) }

// SummaryOf is Summary of the origins in some parts.
func (l *Ledger) SummaryOf(parts PartSet) []OriginSummary {
	var out []OriginSummary
	for _, id := range l.Origins() {
		o := l.origins[id]
		if len(o.entries) == 0 || !parts.Has(PartOf(id)) {
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

// Compare says, given another ledger's summary of some parts, of which origins that ledger
// holds nothing at all although this one does (push), and of which it holds
// something else than this one (pull: ask for what is missing here). Both are
// sorted by origin, and in these parts.
func (l *Ledger) Compare(theirs []OriginSummary, parts PartSet) (push, pull []NodeID) {
	seen := make(map[NodeID]bool, len(theirs))
	for _, s := range theirs {
		if seen[s.Origin] || !parts.Has(PartOf(s.Origin)) {
			continue
		}
		seen[s.Origin] = true
		o := l.origins[s.Origin]
		if s.Count > 0 && (o == nil || len(o.entries) == 0 || o.digest != s.Digest) {
			pull = append(pull, s.Origin)
		}
	}
	for id, o := range l.origins {
		if !seen[id] && len(o.entries) > 0 && parts.Has(PartOf(id)) {
			push = append(push, id)
		}
	}
	slices.SortFunc(push, compareID)
	slices.SortFunc(pull, compareID)
	return push, pull
}

// Len returns of how many origins the ledger knows anything.
func (l *Ledger) Len() int { return len(l.origins) }

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

func rawSum(raw []byte) (sum Digest) {
	full := sha256.Sum256(raw)
	copy(sum[:], full[:])
	return sum
}
