package main

import (
	"context"
	"slices"
	"time"

	"slicewire/overlay"
)

// An issuer asks its own cluster whether pods that it let in are still there: who
// is killed, or loses its machine, says nothing. It asks about podsAsked of them
// in each podsAskEvery, whom it asked about longest ago first.
const (
	podsAskEvery = 10 * time.Second
	podsAsked    = 10
)

// askForPods does so until ctx ends.
func (d *daemon) askForPods(ctx context.Context) error {
	tick := time.NewTicker(podsAskEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			d.askAbout(ctx, d.issue.numbers.toAsk(podsAsked, time.Now()))
		case <-ctx.Done():
			return nil
		}
	}
}

// askAbout notes which of the pods have ended. Without an answer nothing is known.
func (d *daemon) askAbout(ctx context.Context, list []podNumber) {
	for _, n := range list {
		if d.cluster == nil { // it was in one before
			return
		}
		uid, err := d.cluster.podUID(ctx, n.Namespace, n.Pod)
		if err != nil {
			d.log.Debug("whether a pod is there is not known", "node", n.id().String(), "err", err)
			return
		}
		if uid != n.UID && d.issue.numbers.died(n.id(), n.UID) {
			d.log.Info("pod ended without a word", "node", n.id().String())
		}
	}
}

// toAsk returns up to count pods that are taken to be there, those first that were
// returned longest ago.
func (p *podNumbers) toAsk(count int, now time.Time) (out []podNumber) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.all {
		if n.Reviewed && !n.Dead && !n.Void {
			out = append(out, *n)
		}
	}
	slices.SortFunc(out, func(a, b podNumber) int {
		if c := a.asked.Compare(b.asked); c != 0 {
			return c
		}
		return a.id().Compare(b.id())
	})
	out = out[:min(len(out), count)]
	for _, n := range out {
		p.all[n.id()].asked = now
	}
	return out
}

// died takes note that the pod of that UID is gone, and reports whether it still
// was the one with the number.
func (p *podNumbers) died(id overlay.NodeID, uid string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.all[id]
	if n == nil || n.UID != uid || n.Dead {
		return false
	}
	n.Dead, n.Until = true, time.Time{}
	p.changes++
	return true
}
