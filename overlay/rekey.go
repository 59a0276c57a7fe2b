package overlay

import (
	"slices"
	"time"
)

// The WireGuard keys of a slice change at all its nodes together, each making
// its own. Which change a key belongs to is its generation: the time, in seconds
// since 1970, from which on keys should be no older. Nodes with the same
// manifests work it out alike; who has other manifests, or a slow clock, follows
// the others.
//
// Two nodes have a tunnel for each generation of which both have a key, so that
// nothing has to happen at the same time. A node goes through a change by itself:
//
//  1. It makes the next key and tells it. Packets are taken with both keys.
//  2. Once every peer to which packets pass can be reached with the next key,
//     it sends with that, and says so.
//  3. Once all of these have said the same, and what was under way has arrived,
//     the key before is forgotten.
//
// A peer that is silent is not waited for; one that lags, not for ever.
const (
	// RekeyAnnounce is how long a key is known at least before it is sent with,
	// so that whoever is not asked has a chance to follow.
	RekeyAnnounce = 2 * time.Second
	// RekeyMove is how long a node waits for peers that pass packets with the old
	// key and not with the next.
	RekeyMove = 40 * time.Second
	// RekeyEnd is how long the old key is taken at most.
	RekeyEnd = 55 * time.Second
	// RekeyLinger is how long the old key is taken after the last peer said that
	// it does not use it: longer than packets are under way.
	RekeyLinger = 3 * time.Second
	// rekeyFollow is how soon after the last change a node follows its peers into
	// another: a peer cannot keep all others busy.
	rekeyFollow = 15 * time.Second
	// RekeyAhead is how far in the future the generation of a peer may lie. A node
	// that follows one too far would make no new keys until then; one whose clock
	// is late has to follow.
	RekeyAhead = 24 * time.Hour
)

// A SliceKey is a WireGuard (Curve25519) public key of some generation.
type SliceKey struct {
	Generation uint64
	PublicKey  [32]byte
}

// DueGeneration returns the generation of which the slice's keys should be at
// now: that of the last turn of its RotationInterval, or of RenewBefore if that
// is later. The turns of different slices are at different times.
func (s *Slice) DueGeneration(mesh string, now time.Time) uint64 {
	var due int64
	if every := int64(s.RotationInterval / time.Second); every > 0 {
		begin := int64(uint64(NodeID{mesh, s.Name}.Tag()) % uint64(every))
		if age := now.Unix() - begin; age >= 0 {
			due = begin + age - age%every
		}
	}
	if !s.RenewBefore.IsZero() && !s.RenewBefore.After(now) {
		due = max(due, s.RenewBefore.Unix())
	}
	return uint64(max(due, 0))
}

// PeerKeys is what a node knows of a peer when it changes its keys.
type PeerKeys struct {
	Sends uint64 // generation that the peer says it sends with
	Next  uint64 // that it takes as well; 0: none
	// Live and Ready say that packets pass between the two, with the generation
	// that this node sends with and with its other.
	Live, Ready bool
}

// A Rekeying is how far a node has come with the keys of a slice.
type Rekeying struct {
	Sends uint64 // generation of the key that the node sends with
	Other uint64 // of the other key that it takes: the next one, or the one before; the same as Sends: none
	Began time.Time
	Spare time.Time // since when no peer needs the old key; zero: some may
}

// Changing reports whether there are two keys.
func (r *Rekeying) Changing() bool { return r.Other != r.Sends }

// Next returns the generation that is told as the next, 0 if there is none.
func (r *Rekeying) Next() uint64 {
	if r.Other > r.Sends {
		return r.Other
	}
	return 0
}

// Step goes on with the change as far as it may at now, or begins one, and
// reports whether anything is different. due is the generation that this node
// finds right by itself; latest is the highest of a peer that it may follow.
func (r *Rekeying) Step(now time.Time, due, latest uint64, peers []PeerKeys) bool {
	switch {
	case !r.Changing():
		if latest > due && (now.Sub(r.Began) >= rekeyFollow || r.Began.IsZero() || !r.shared(peers)) {
			due = latest
		}
		if due <= r.Sends {
			return false
		}
		r.Other, r.Began = due, now
	case r.Other > r.Sends:
		lags := func(p PeerKeys) bool { return p.Live && !p.Ready }
		wait := RekeyAnnounce
		switch {
		case !r.shared(peers) && len(peers) > 0:
			wait = 0 // there is nothing to lose
		case slices.ContainsFunc(peers, lags):
			wait = RekeyMove
		}
		if now.Sub(r.Began) < wait {
			return false
		}
		r.Sends, r.Other, r.Spare = r.Other, r.Sends, time.Time{}
	default:
		needs := func(p PeerKeys) bool { return (p.Live || p.Ready) && p.Sends < r.Sends }
		switch {
		case slices.ContainsFunc(peers, needs):
			r.Spare = time.Time{}
		case r.Spare.IsZero():
			r.Spare = now
		}
		if now.Sub(r.Began) < RekeyEnd && (r.Spare.IsZero() || now.Sub(r.Spare) < RekeyLinger) {
			return false
		}
		r.Other = r.Sends
	}
	return true
}

// shared reports whether any peer has a key of the generation that this node
// sends with.
func (r *Rekeying) shared(peers []PeerKeys) bool {
	return slices.ContainsFunc(peers, func(p PeerKeys) bool { return p.Sends == r.Sends || p.Next == r.Sends })
}

// LatestGeneration returns the highest generation that records of other nodes
// tell on a slice, of those up to limit.
func LatestGeneration(self NodeID, slice string, records []Record, limit uint64) (latest uint64) {
	for _, r := range records {
		if r.Origin == self || r.Deleted || r.Key != (Key{Kind: KindKey, Slice: slice}) {
			continue
		}
		for _, g := range []uint64{r.WGKey.Generation, r.WGKey.Next.Generation} {
			if g <= limit {
				latest = max(latest, g)
			}
		}
	}
	return latest
}

// KeyOf returns a peer's public key of a generation, if it has told one.
func (p *Peer) KeyOf(generation uint64) ([32]byte, bool) {
	switch none := [32]byte{}; {
	case p.Generation == generation && p.PublicKey != none:
		return p.PublicKey, true
	case p.Next.Generation == generation && p.Next.PublicKey != none:
		return p.Next.PublicKey, true
	default:
		return none, false
	}
}
