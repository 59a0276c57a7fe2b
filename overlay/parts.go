package overlay

import (
	"math/bits"
)

// Parts is into how many parts the origins of a ledger fall. Two ledgers compare
// the parts first: it takes a packet, however many origins there are, and mostly
// they are equal.
const Parts = 64

// A Digest stands for contents: equal digests, equal contents.
type Digest [16]byte

func (d *Digest) toggle(sum Digest) {
	for i := range sum {
		d[i] ^= sum[i]
	}
}

// A PartSet is a set of parts: bit i is part i.
type PartSet uint64

// AllParts is the whole ledger.
const AllParts = ^PartSet(0)

// Has reports whether part i is in the set.
func (s PartSet) Has(i int) bool { return s>>i&1 == 1 }

// Len returns how many parts are in the set.
func (s PartSet) Len() int { return bits.OnesCount64(uint64(s)) }

// PartOf returns the part of an origin, from 0 to Parts-1.
func PartOf(id NodeID) int {
	h := uint32(2166136261) // FNV-1a
	for _, s := range [2]string{id.Site, id.Node} {
		for i := range len(s) {
			h = (h ^ uint32(s[i])) * 16777619
		}
		h *= 16777619 // a zero between them
	}
	return int((h ^ h>>15) % Parts)
}

// Digests returns a digest of every part.
func (l *Ledger) Digests() [Parts]Digest { return l.parts }

// Differ returns the parts in which this ledger holds something else than one
// with these digests.
func (l *Ledger) Differ(theirs *[Parts]Digest) (parts PartSet) {
	for i := range theirs {
		if theirs[i] != l.parts[i] {
			parts |= 1 << i
		}
	}
	return parts
}

// changed brings the digest of o's part up to date: the exclusive or of what
// counted of each of its origins. That is a hash over the origin's name and
// digest and not the digest itself, which an origin chooses by what it says, so
// that nobody can make up for what is missing of another.
func (l *Ledger) changed(o *origin) {
	counted := Digest{}
	if len(o.entries) > 0 {
		b := make([]byte, 0, 160)
		b = append(b, o.digest[:]...)
		b = append(b, o.id.Site...)
		b = append(b, 0)
		b = append(b, o.id.Node...)
		counted = rawSum(b)
	}
	part := &l.parts[PartOf(o.id)]
	part.toggle(o.counted)
	part.toggle(counted)
	o.counted = counted
}
