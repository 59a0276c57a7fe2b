package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"slicewire/overlay"
)

// A number, and with it a block of addresses, is given to another pod only once
// every certificate that has it is void everywhere:
//
//  1. held: a pod was let in and nothing is heard of it yet, for holdFor;
//  2. known: a certificate with it is behind something that is known here;
//  3. gone: its pod said that it ended, or its cluster that there is no such pod;
//  4. resting: its certificates are void, for restFor.
const (
	// holdFor is how long a number is kept for a pod that was let in and of which
	// nothing is heard. Those that start do so within their startup probe's time.
	holdFor = 2 * time.Minute
	// goneFor is how long a pod that said it ended may come back with its number.
	// Also a sidecar that is restarted says so, and a kubelet waits five minutes at
	// most before it starts a container again.
	goneFor = 10 * time.Minute
	// restFor is how long a revocation has to reach everybody before others speak
	// for the number: it does within ten seconds after a partition heals.
	restFor = time.Minute
)

// numberTimes are the times above; tests have less patience.
type numberTimes struct{ hold, gone, rest time.Duration }

var usualTimes = numberTimes{holdFor, goneFor, restFor}

// spentNumber says that certificates of a node have to be made void: those
// enrolled up to then, of which the last ends at end.
type spentNumber struct {
	id            overlay.NodeID
	enrolled, end time.Time
}

// podNumber is the issuer's note of one pod's number. Enrolled and End are those
// of the last certificate that is known to be out with it.
type podNumber struct {
	Site     string    `json:"site"`
	Node     string    `json:"node"`
	Index    int       `json:"index"`
	Enrolled time.Time `json:"enrolled"`
	End      time.Time `json:"end"`
	Until    time.Time `json:"until,omitzero"` // held or resting until then
	Known    bool      `json:"known,omitempty"`
	Gone     time.Time `json:"gone,omitzero"` // since when; zero: it is there
	Void     bool      `json:"void,omitempty"`
	Dead     bool      `json:"dead,omitempty"`    // its cluster has no such pod
	Gateway  bool      `json:"gateway,omitempty"` // it is held, and then no more the book's: gateways come back

	Namespace string `json:"namespace,omitempty"` // of the pod; empty: this issuer did not let it in
	Pod       string `json:"pod,omitempty"`
	UID       string `json:"uid,omitempty"`
	Reviewed  bool   `json:"reviewed,omitempty"` // it is of the cluster that this issuer is in, which can be asked

	asked time.Time // whether it is there
}

func (n *podNumber) id() overlay.NodeID { return overlay.NodeID{Site: n.Site, Node: n.Node} }

// A seenNode is a node whose certificate is behind what is known.
type seenNode struct {
	id            overlay.NodeID
	index         int
	enrolled, end time.Time
	pod           bool // a pod that is no gateway: its number is an issuer's to give and to take
	withdrawn     bool
}

// A podNumbers is an issuer's book of the numbers of pods. Its methods may be
// called concurrently.
type podNumbers struct {
	times numberTimes
	save  func([]byte) error

	saving sync.Mutex // held while saving; taken before mu

	mu      sync.Mutex // guards what follows
	all     map[overlay.NodeID]*podNumber
	changes uint64 // of all
	saved   uint64 // changes, when it was saved last
}

// numberBook is what is saved.
type numberBook struct {
	Version int          `json:"version"`
	Numbers []*podNumber `json:"numbers"`
}

const numberBookVersion = 1

// openNumbers reads what save was given last, nil for a new book.
func openNumbers(data []byte, times numberTimes, save func([]byte) error) (*podNumbers, error) {
	p := &podNumbers{times: times, save: save, all: make(map[overlay.NodeID]*podNumber)}
	if data == nil {
		return p, nil
	}
	var book numberBook
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&book); err != nil {
		return p, fmt.Errorf("book of numbers: %w", err)
	}
	if book.Version != numberBookVersion {
		return p, fmt.Errorf("book of numbers: version %d, want %d", book.Version, numberBookVersion)
	}
	for _, n := range book.Numbers {
		if n == nil || !overlay.ValidLabel(n.Site) || !overlay.ValidLabel(n.Node) || n.Index < 0 {
			clear(p.all)
			return p, errors.New("book of numbers: an entry is damaged")
		}
		p.all[n.id()] = n
	}
	return p, nil
}

// keep saves the book if it has changed. Several callers at once share a write.
func (p *podNumbers) keep() error {
	p.mu.Lock()
	wanted := p.changes
	p.mu.Unlock()
	p.saving.Lock()
	defer p.saving.Unlock()
	p.mu.Lock()
	if p.saved >= wanted {
		p.mu.Unlock()
		return nil
	}
	book, now := numberBook{Version: numberBookVersion}, p.changes
	for _, n := range p.all {
		book.Numbers = append(book.Numbers, n)
	}
	slices.SortFunc(book.Numbers, func(a, b *podNumber) int { return a.id().Compare(b.id()) })
	data, err := json.MarshalIndent(book, "", " ")
	p.mu.Unlock()
	if err == nil {
		err = p.save(append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("save the book of numbers: %w", err)
	}
	p.mu.Lock()
	p.saved = now
	p.mu.Unlock()
	return nil
}

// hold keeps a number for a pod that is let in. Of more than maxPods, pods are let
// in no more until some end.
func (p *podNumbers) hold(n podNumber, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.all[n.id()]
	if old == nil && len(p.all) >= maxPods {
		return fmt.Errorf("%d pods have numbers or had them a moment ago: wait for some to end", len(p.all))
	}
	n.Until = now.Add(p.times.hold)
	if old != nil && old.Known { // it is known by the certificate that it has already
		n.Known = old.Known
	}
	p.all[n.id()] = &n
	p.changes++
	return nil
}

// mark adds the numbers of other pods of id's site to those that are taken.
func (p *podNumbers) mark(taken map[int]bool, id overlay.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for x, n := range p.all {
		if x.Site == id.Site && x != id {
			taken[n.Index] = true
		}
	}
}

// of returns the note of a node's number.
func (p *podNumbers) of(id overlay.NodeID) (n podNumber, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := p.all[id]; n != nil {
		return *n, true
	}
	return n, false
}

// look brings the book in line with the nodes that are known now, and returns
// whose certificates have to be made void. It says so again until void, which
// reports up to when enrolments of a node are void, agrees.
// first reports whether this issuer is to be first to revoke who has a number:
// others do it should that one not.
func (p *podNumbers) look(seen []seenNode, now time.Time, void func(overlay.NodeID) time.Time, first func(site string, index int) bool) (out []spentNumber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	there := make(map[overlay.NodeID]bool)
	for _, s := range seen {
		if s.pod {
			there[s.id] = true
			p.seeLocked(s, now)
		}
	}
	for id, n := range p.all {
		if n.Known && !there[id] {
			n.Known, n.Until, n.Gone = false, later(n.Until, now), time.Time{}
			p.changes++
		}
		if limit := now.Add(max(p.times.hold, p.times.rest)); n.Until.After(limit) { // the clock went back
			n.Until = limit
		}
		switch over := !now.Before(n.End) || !void(id).Before(n.Enrolled.Truncate(time.Second)); {
		case n.Known && n.Dead:
			out = append(out, spentNumber{id, n.Enrolled, n.End})
		case n.Known && !n.Gone.IsZero():
			wait := p.times.gone
			if !first(id.Site, n.Index) {
				wait += p.times.rest
			}
			if now.Sub(n.Gone) >= wait {
				out = append(out, spentNumber{id, n.Enrolled, n.End})
			}
		case n.Known || now.Before(n.Until):
		case n.Void || n.Gateway:
			delete(p.all, id)
			p.changes++
		case over:
			n.Void, n.Until = true, now.Add(p.times.rest)
			p.changes++
		default:
			out = append(out, spentNumber{id, n.Enrolled, n.End})
		}
	}
	slices.SortFunc(out, func(a, b spentNumber) int { return a.id.Compare(b.id) })
	return out
}

// seeLocked takes note of a pod that is known.
func (p *podNumbers) seeLocked(s seenNode, now time.Time) {
	n := p.all[s.id]
	if n == nil {
		n = &podNumber{Site: s.id.Site, Node: s.id.Node, Index: s.index}
		p.all[s.id] = n
		p.changes++
	}
	if !n.Known || n.Enrolled.Before(s.enrolled) || n.End.Before(s.end) {
		// What was given out last counts, also when what is known is older.
		if !n.Enrolled.After(s.enrolled) {
			n.Index = s.index
		}
		n.Known, n.Void, n.Enrolled, n.End = true, false, later(n.Enrolled, s.enrolled), later(n.End, s.end)
		p.changes++
	}
	if !n.Until.IsZero() && !s.enrolled.Before(n.Enrolled.Truncate(time.Second)) {
		n.Until = time.Time{} // it came with what it was held for
		p.changes++
	}
	switch {
	case !s.withdrawn && !n.Gone.IsZero():
		n.Gone = time.Time{}
		p.changes++
	case s.withdrawn && (n.Gone.IsZero() || n.Gone.After(now)):
		n.Gone = now
		p.changes++
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// A numberConflict is a number that two nodes of a site have.
type numberConflict struct {
	site         string
	index        int
	keeps, loses seenNode
}

// conflicts finds numbers that two nodes have, and which of them loses it: a pod
// before a node that somebody gave its number to, else the one that was let in
// later. Every issuer that knows both decides the same. Nodes that are no pods are
// left to those who gave them their numbers.
func conflicts(seen []seenNode) (out []numberConflict) {
	type place struct {
		site  string
		index int
	}
	holds := make(map[place]seenNode)
	seen = slices.Clone(seen)
	slices.SortFunc(seen, func(a, b seenNode) int {
		first := func(s seenNode) int {
			if s.pod {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(first(a), first(b)), a.enrolled.Compare(b.enrolled), a.id.Compare(b.id))
	})
	for _, s := range seen {
		at := place{s.id.Site, s.index}
		k, taken := holds[at]
		switch {
		case !taken:
			holds[at] = s
		case s.pod && k.id != s.id:
			out = append(out, numberConflict{s.id.Site, s.index, k, s})
		}
	}
	return out
}

// preferred returns which of the issuers gives a number first: by a rendezvous
// hash, so that all of them share the numbers, and most stay with whom they were
// when issuers come and go. Of none it is nobody.
func preferred(issuers []overlay.NodeID, site string, index int) (who overlay.NodeID) {
	best := uint64(0)
	for _, id := range issuers {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", id, site, index))
		if x := binary.BigEndian.Uint64(sum[:8]); who == (overlay.NodeID{}) || x > best || x == best && strings.Compare(id.String(), who.String()) < 0 {
			who, best = id, x
		}
	}
	return who
}

// freeNumber returns the first of count numbers that is not taken and that self is
// to give, else the first that is not taken.
func freeNumber(taken map[int]bool, count int, self overlay.NodeID, issuers []overlay.NodeID, site string) (index int, ok bool) {
	index = -1
	for i := range count {
		if taken[i] {
			continue
		}
		if preferred(issuers, site, i) == self {
			return i, true
		}
		if index < 0 {
			index = i
		}
	}
	return index, index >= 0
}

// counts returns how many pods have a number, how many had it until a moment ago,
// and how many numbers rest or are held.
func (p *podNumbers) counts() (known, gone, waiting int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.all {
		switch {
		case !n.Known:
			waiting++
		case n.Dead || !n.Gone.IsZero():
			gone++
		default:
			known++
		}
	}
	return known, gone, waiting
}
