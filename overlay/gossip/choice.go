package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"net/netip"
	"slices"
	"time"

	"slicewire/overlay"
)

// Which gateways a leaf has sessions with: two if there are two, so that one may
// die without anything being missed; those of its own site first. Beyond that,
// each leaf has an order of its own, so that gateways share the leaves. Two that
// run with one key have the same order, meet at the same gateways, and are
// noticed.
const (
	wantedSessions = 2
	maxDials       = 16 // at once, while there is no session
	dialFirst      = 250 * time.Millisecond
	dialAlone      = 400 * time.Millisecond // the longest pause while there is no session
	dialNear       = 2 * time.Second        // for a gateway of the own site
	dialFar        = 15 * time.Second
	dialUnwanted   = 5 * time.Second  // instead of the first two, for one that answers and wants no session
	briefly        = 10 * time.Second // a session that lasted no longer is a failure
)

// A target is an address where a gateway may be.
type target struct {
	addr     netip.AddrPort
	name     string // "" as long as nobody has proved who is there
	fails    int    // in a row
	failed   time.Time
	share    float64 // of the pause, by chance
	dialing  bool
	unwanted bool // it answered last time, and wanted no session
}

// key is what a target is ordered by.
func (t *target) key() string { return cmp.Or(t.name, t.addr.String()) }

// pause is how long after its last failure a target is left alone.
func (t *target) pause(alone, near bool) time.Duration {
	if t.fails == 0 {
		return 0
	}
	longest := dialFar
	switch {
	case t.unwanted && (alone || near):
		longest = dialUnwanted
	case alone:
		longest = dialAlone
	case near:
		longest = dialNear
	}
	return time.Duration(t.share * float64(min(dialFirst<<min(t.fails-1, 10), longest)))
}

// near reports whether a node, by its name, is of a site.
func near(site, name string) bool { return memberID(name).Site == site && name != "" }

// A preference orders gateways as a leaf prefers them: those of its site first, then
// by a hash of both names.
type preference [1 + sha256.Size]byte

func preferenceOf(leaf overlay.NodeID, name string) (p preference) {
	if !near(leaf.Site, name) {
		p[0] = 1
	}
	sum := sha256.Sum256([]byte(leaf.String() + " " + name))
	copy(p[1:], sum[:])
	return p
}

// choiceOrder returns what has names in the order in which a leaf prefers them.
func choiceOrder[T any](leaf overlay.NodeID, all []T, name func(T) string) []T {
	type ranked struct {
		by preference
		x  T
	}
	list := make([]ranked, len(all))
	for i, x := range all {
		list[i] = ranked{preferenceOf(leaf, name(x)), x}
	}
	slices.SortStableFunc(list, func(a, b ranked) int { return bytes.Compare(a.by[:], b.by[:]) })
	out := make([]T, len(all))
	for i, r := range list {
		out[i] = r.x
	}
	return out
}

// choose decides whom to dial now and which of the nodes that there are sessions
// with are one too many, and says when to ask again at the latest.
func choose(self overlay.NodeID, now time.Time, targets []*target, live []string) (dial []*target, drop []string, again time.Duration) {
	again = time.Second
	nears, all := 0, 0 // sessions that there are, or are about to be
	taken := make(map[string]bool)
	count := func(name string) {
		taken[name] = true
		all++
		if near(self.Site, name) {
			nears++
		}
	}
	for _, name := range live {
		count(name)
	}
	for _, t := range targets {
		if t.dialing && (t.name == "" || !taken[t.name]) {
			count(t.key())
		}
	}
	targets = choiceOrder(self, targets, (*target).key)
	alone := len(live) == 0
	for _, t := range targets {
		isNear := near(self.Site, t.name)
		if t.dialing || t.name == self.String() || taken[t.key()] {
			continue
		}
		if all >= wantedSessions && (!isNear || nears >= wantedSessions) && (!alone || all >= maxDials) {
			continue
		}
		if wait := t.pause(alone, isNear) - now.Sub(t.failed); wait > 0 {
			again = min(again, wait)
			continue
		}
		dial = append(dial, t)
		count(t.key())
	}
	if len(live) > wantedSessions {
		drop = choiceOrder(self, live, func(name string) string { return name })[wantedSessions:]
	}
	return dial, drop, again
}
