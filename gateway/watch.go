package gateway

import (
	"context"
	"time"

	"slicewire/overlay"
)

// watchPause is the least time between two looks at all links that timers ask
// for: what is due within it is done together.
const watchPause = 2 * time.Millisecond

// news says that the watch should look now.
func (g *Gateway) news() {
	select {
	case g.probed <- struct{}{}:
	default: // it is about to
	}
}

// watch probes links and moves prefixes as these go down and up, until ctx ends.
func (g *Gateway) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.probed:
		case <-timer.C:
		}
		now := g.mux.now()
		next := now + time.Hour
		moved := false
		if all := g.watching.Load(); all != nil {
			for _, k := range *all {
				dirty, at := k.probes.step()
				if dirty {
					g.reroute(k)
					moved = true
				}
				next = min(next, at)
			}
		}
		if moved && g.cfg.Relinked != nil {
			g.cfg.Relinked()
		}
		timer.Reset(max(next-g.mux.now(), watchPause))
	}
}

func (g *Gateway) reroute(k *trunk) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range k.tunnels { // none if the slice has ended meanwhile
		if err := t.reroute(); err != nil {
			g.cfg.Log.Error("paths are not as they should be", "slice", k.slice, "err", err)
		}
	}
}

// SetDemand says what this node would send of a slice's ceiling. The peers beside it on
// the slice are told at once, and with each probe.
func (g *Gateway) SetDemand(slice string, d overlay.Demand) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, t := range g.running {
		if id.slice == slice {
			t.trunk.probes.setDemand(d)
			return // both tunnels of a slice have one prober
		}
	}
}

// SetLeaving says whether other gateways should carry what this one carries for
// its site, where there are any. Peers are told at once.
func (g *Gateway) SetLeaving(leaving bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaving = leaving
	for _, k := range g.trunks {
		k.probes.setLeaving(leaving)
	}
}

// drainFor is how long what peers have sent may take through queues, besides the
// way.
const drainFor = 50 * time.Millisecond

// drainPoll is how often WaitTold asks.
const drainPoll = 2 * time.Millisecond

// WaitTold waits until every peer that can be reached knows what this node says
// of itself, or ctx ends.
func (g *Gateway) WaitTold(ctx context.Context) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for !g.told() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// Drain waits like WaitTold and then until what was sent before that has passed.
func (g *Gateway) Drain(ctx context.Context) error {
	if err := g.WaitTold(ctx); err != nil {
		return err
	}
	passed := time.NewTimer(drainFor + 2*g.farthest())
	defer passed.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-passed.C:
		return nil
	}
}

// farthest returns the longest round trip to any peer.
func (g *Gateway) farthest() (rtt time.Duration) {
	for _, s := range g.Status() {
		for _, p := range s.Peers {
			if p.Up {
				rtt = max(rtt, p.RTT)
			}
		}
	}
	return rtt
}

func (g *Gateway) told() bool {
	all := g.watching.Load()
	if all == nil {
		return true
	}
	for _, k := range *all {
		if !k.probes.told() {
			return false
		}
	}
	return true
}
