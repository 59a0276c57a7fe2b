package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"slices"
	"time"

	"slicewire/overlay"
)

// own is what this node has to say and in which version it says it. It is
// guarded by Gossip.mu.
type own struct {
	told   bool // Set was called
	gone   bool // Withdraw was called
	facts  map[overlay.Key]overlay.Record
	epoch  uint64
	dirty  bool        // the ledger holds a record of this node that it did not just sign
	healed time.Time   // when dirty was last dealt with
	lost   string      // the last error that was logged
	signer fingerprint // that was used last, since a time
	since  time.Time

	// What time alone asks for: when reconcileLocked has something to do next at
	// the earliest, with the certificate that it saw. Zero: at once.
	looked, next time.Time
	certified    fingerprint
}

// healEvery bounds how often this node answers somebody who speaks in its name:
// two clones must not outbid each other without end.
const healEvery = 10 * time.Second

// Set says everything that this node has to tell, whole: facts that are the
// same keep their version, new and changed ones get a new one, and what is no
// longer there is withdrawn. Version, lifetime and origin of the records are
// Set's business and need not be given. The error tells which records the node's
// own certificate does not permit; the others are said.
//
// Call it again when the Signer has another chain. After Withdraw it does nothing.
func (g *Gossip) Set(facts []overlay.Record) error {
	g.mu.Lock()
	if g.own.gone {
		g.mu.Unlock()
		return nil
	}
	g.own.told = true
	g.own.facts = make(map[overlay.Key]overlay.Record, len(facts))
	for _, f := range facts {
		g.own.facts[f.Key] = f
	}
	changed, err := g.reconcileLocked()
	g.mu.Unlock()
	g.publish(changed)
	return err
}

// Withdraw takes back everything that this node has told, for good: Set does
// nothing afterwards. Others know within moments that the node has gone, see
// Withdrawn. Call it before Run is ended, which still sends what Withdraw signed.
func (g *Gossip) Withdraw() error {
	err := g.Set(nil)
	g.mu.Lock()
	g.own.gone = true
	g.mu.Unlock()
	return err
}

// reconcileLocked signs what has to be signed so that the ledger holds exactly
// what this node wants to say, and returns the sealed bytes. It is the one place
// where this node signs: for changes, for what grows old, after a restart, after
// a certificate was renewed and after somebody spoke in this node's name.
func (g *Gossip) reconcileLocked() ([][]byte, error) {
	if !g.own.told {
		return nil, nil
	}
	now := g.cfg.Now()
	c, fp := g.ownChain()
	g.own.looked, g.own.next, g.own.certified = now, time.Time{}, fp
	authority, err := g.cfg.Verifier.Authority(c, now)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	end := now.Add(g.cfg.Life).Truncate(time.Second)
	if end.After(authority.NotAfter) {
		end = authority.NotAfter.Truncate(time.Second)
	}
	seq := g.nextSeqLocked()
	held := make(map[overlay.Key]overlay.Held)
	for _, h := range g.ledger.Of(g.cfg.Self) {
		held[h.Record.Key] = h
	}
	var changed [][]byte
	var errs []error
	say := func(r overlay.Record, end time.Time) {
		r.Origin, r.NotAfter, r.Version = g.cfg.Self, end, overlay.Version{Epoch: g.own.epoch, Seq: seq}
		raw, err := g.signLocked(r, c, fp, authority, now)
		if err != nil {
			errs = append(errs, err)
			return
		}
		seq++
		changed = append(changed, raw)
	}
	for _, k := range sortedKeys(g.own.facts) {
		r := g.own.facts[k]
		h, ok := held[k]
		if ok && h.Record.Version.Epoch == g.own.epoch && signerOf(h.Raw) == fp && sameFact(h.Record, r) && !g.due(h.Record, end, now) {
			continue
		}
		r.Deleted = false
		say(r, end)
	}
	for _, k := range sortedKeys(held) {
		h := held[k]
		if _, wanted := g.own.facts[k]; wanted {
			continue
		}
		if !h.Record.Deleted {
			say(overlay.Record{Key: k, Deleted: true}, end)
		} else if signerOf(h.Raw) != fp && now.Before(h.Record.NotAfter) {
			// It lives no longer for it, but the certificate before has signed nothing any more.
			say(overlay.Record{Key: k, Deleted: true}, earlier(end, h.Record.NotAfter))
		}
	}
	if len(errs) > 0 {
		return changed, errors.Join(errs...)
	}
	g.own.next = g.dueLocked(now, authority.NotAfter.Truncate(time.Second))
	return changed, nil
}

// dueLocked returns when the first own record has lived half its life. One that
// lives as long as the certificate is not signed again with it.
func (g *Gossip) dueLocked(now, certificate time.Time) time.Time {
	next := now.Add(g.cfg.Life / 2)
	for _, h := range g.ledger.Of(g.cfg.Self) {
		if at := h.Record.NotAfter.Add(-g.cfg.Life / 2); !h.Record.Deleted && h.Record.NotAfter.Before(certificate) && at.Before(next) {
			next = at
		}
	}
	return next
}

// idleLocked reports whether reconcileLocked would find nothing to do: of
// thousands of records, it takes memory to look at each.
func (g *Gossip) idleLocked(now time.Time) bool {
	if g.own.dirty || !now.Before(g.own.next) || now.Before(g.own.looked) { // or the clock was put back
		return false
	}
	_, fp := g.ownChain()
	return fp == g.own.certified
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// nextSeqLocked moves this node past every version that was ever seen of it, and
// returns the next sequence number in its epoch.
func (g *Gossip) nextSeqLocked() uint64 {
	newest := g.ledger.Newest(g.cfg.Self)
	if newest.Epoch > g.own.epoch {
		g.log.Warn("a later life of this node is known: its epoch moves on", "node", g.cfg.Self.String(), "epoch", newest.Epoch)
		g.own.epoch = newest.Epoch
		if newest.Epoch < math.MaxUint64 {
			g.own.epoch++
		}
	}
	if newest.Epoch == g.own.epoch {
		return newest.Seq + 1
	}
	return 1
}

// due reports whether a record has lived half its life and would live longer if
// it were signed now: it would not if the certificate ends first.
func (g *Gossip) due(r overlay.Record, end, now time.Time) bool {
	return end.After(r.NotAfter) && r.NotAfter.Sub(now) < g.cfg.Life/2
}

func (g *Gossip) signLocked(r overlay.Record, c chain, fp fingerprint, a overlay.Authority, now time.Time) ([]byte, error) {
	if err := a.Permits(r, now); err != nil {
		return nil, fmt.Errorf("own record of kind %d, slice %q, name %q: %w", r.Key.Kind, r.Key.Slice, r.Key.Name, err)
	}
	body, err := encodeBody(r, fp)
	if err != nil {
		return nil, err
	}
	// What is kept is what the bytes say, as it is for everybody else's records.
	if r, _, err = decodeBody(body); err != nil {
		return nil, err
	}
	raw := seal(body, g.cfg.Signer.Sign(signRecord, body))
	if v := g.ledger.Offer(r, raw); v != overlay.New {
		return nil, fmt.Errorf("own record of kind %d, slice %q, name %q: no room (verdict %d)", r.Key.Kind, r.Key.Slice, r.Key.Name, v)
	}
	g.keepChainLocked(fp, c)
	return raw, nil
}

// sameFact reports whether two records say the same, whenever they say it.
func sameFact(held, wanted overlay.Record) bool {
	fp := fingerprint{}
	wanted.Origin, wanted.Version, wanted.NotAfter, wanted.Deleted = held.Origin, held.Version, held.NotAfter, false
	if held.Deleted {
		return false
	}
	a, errA := encodeBody(held, fp)
	b, errB := encodeBody(wanted, fp)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func sortedKeys[T any](m map[overlay.Key]T) []overlay.Key {
	keys := make([]overlay.Key, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, overlay.Key.Compare)
	return keys
}

// maintain does what time asks for: it drops what has expired and signs again
// what grows old. It returns what was signed.
func (g *Gossip) maintain() [][]byte {
	now := g.cfg.Now()
	g.mu.Lock()
	gone := g.ledger.Expire(now)
	if gone > 0 {
		gone += g.enforceLocked()
	}
	if gone > 0 || now.Sub(g.pruned).Abs() > pruneEvery {
		g.pruned = now
		g.pruneChainsLocked()
	}
	g.forgetLocked()
	if gone == 0 && g.idleLocked(now) {
		g.mu.Unlock()
		return nil
	}
	if g.own.dirty && now.Sub(g.own.healed).Abs() < healEvery {
		g.mu.Unlock()
		if gone > 0 {
			g.signal()
		}
		return nil
	}
	if g.own.dirty {
		g.own.dirty, g.own.healed = false, now
	}
	changed, err := g.reconcileLocked()
	text := ""
	if err != nil {
		text = err.Error()
	}
	news := text != "" && text != g.own.lost
	g.own.lost = text
	g.mu.Unlock()
	if news {
		g.log.Warn("own records cannot be said", "err", err)
	}
	if gone > 0 || len(changed) > 0 {
		g.signal()
	}
	return changed
}
