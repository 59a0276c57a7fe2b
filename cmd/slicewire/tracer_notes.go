package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"slicewire/api"
	"slicewire/router"
)

// How nodes trace a packet together. Who sends one asks the peers that it may go
// to, inside the tunnels, to look out for it; they ask those behind them, and
// each tells the one that asked it that it is ready and what it saw. A note's
// sender is who has the tunnel's key. A node looks out only for packets that the
// peer that asks could send it anyway, and is told of nothing but that packet;
// nobody else can ask.

// A traceNote is one note between daemons. One of its parts is there.
type traceNote struct {
	Trace string        `json:"trace"` // 32 hexadecimal digits that nobody can guess
	Watch *traceAsk     `json:"watch,omitempty"`
	Ready *traceReady   `json:"ready,omitempty"`
	Seen  *api.TraceHop `json:"seen,omitempty"`
}

// A traceAsk has a node look out for a packet.
type traceAsk struct {
	Packet []byte `json:"packet"` // as it is sent
	Hops   int    `json:"hops"`   // how often the question may be passed on
}

// A traceReady says that a node looks out.
type traceReady struct {
	Node string   `json:"node"` // empty: whose note it is
	Next []string `json:"next"` // those that it has asked, too
}

// signed puts the name of whose note it is on what the note says: the peer, or
// what the peer says of another.
func signed(node, peer string) string {
	if node == "" {
		return peer
	}
	if len(node) > maxTraceText {
		node = node[:maxTraceText]
	}
	return fmt.Sprintf("%s (says %s)", node, peer)
}

func (d *daemon) tellTrace(slice, peer string, n traceNote) error {
	body, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return d.gateway.Tell(slice, peer, body)
}

// peersTo lists the peers that packets to an address may go to: first the one
// that has it, then the other gateways of its site.
func (v *sliceView) peersTo(a netip.Addr) []string {
	first := v.peerOf(a)
	if first == "" {
		return nil
	}
	out := []string{first}
	site := ""
	for _, p := range v.view.Peers {
		if p.ID.String() == first {
			site = p.ID.Site
		}
	}
	for _, p := range v.view.Peers {
		if name := p.ID.String(); p.ID.Site == site && name != first && len(out) < maxTraceHops {
			out = append(out, name)
		}
	}
	return out
}

// maySend reports whether packets from an address may come from a peer: from
// those, that is, that packets to it may go to.
func (v *sliceView) maySend(peer string, a netip.Addr) bool {
	for _, p := range v.peersTo(a) {
		if p == peer {
			return true
		}
	}
	return false
}

// hearTrace does what a note says. What is no note of ours, or from somebody
// whom nothing was asked, is ignored.
func (d *daemon) hearTrace(ctx context.Context, told toldNote, watching *sync.WaitGroup) {
	var n traceNote
	if err := json.Unmarshal(told.body, &n); err != nil {
		return
	}
	if n.Watch != nil {
		d.watchForPeer(ctx, told, n, watching)
		return
	}
	w := d.tracer.find(n.Trace)
	if w == nil || w.slice != told.slice || !w.asked[told.peer] {
		return
	}
	switch {
	case n.Ready != nil:
		n.Ready.Node = signed(n.Ready.Node, told.peer)
	case n.Seen != nil:
		n.Seen.Node = signed(n.Seen.Node, told.peer)
		n.Seen.Result = n.Seen.Result[:min(len(n.Seen.Result), maxTraceText)]
		n.Seen.Point = n.Seen.Point[:min(len(n.Seen.Point), 16)]
	default:
		return
	}
	if w.from == "" {
		select {
		case w.notes <- n:
		default:
		}
		return
	}
	d.logTrace(d.tellTrace(w.slice, w.from, n), w.from)
}

func (d *daemon) logTrace(err error, peer string) {
	if err != nil {
		d.log.Debug("trace is not told", "peer", peer, "err", err)
	}
}

// watchForPeer looks out for a packet because a peer asks, and answers it.
func (d *daemon) watchForPeer(ctx context.Context, told toldNote, n traceNote, watching *sync.WaitGroup) {
	v, err := d.sliceFor(told.slice)
	if err != nil || told.slice == "" {
		return
	}
	if w := d.tracer.find(n.Trace); w != nil && w.from == told.peer { // it did not hear the answer
		d.logTrace(d.tellTrace(w.slice, w.from, traceNote{Trace: w.id, Ready: &traceReady{Next: w.next}}), w.from)
		return
	}
	w, err := newTraceWatch(n.Trace, told.slice, told.peer, n.Watch.Packet)
	if err != nil || !v.maySend(told.peer, w.src) {
		return
	}
	var next []string
	if tr, ok := v.node.router.Trace(router.OutsideName, w.pkt); ok && tr.Out == router.OutsideName && n.Watch.Hops > 0 {
		for _, p := range v.peersTo(w.dst) {
			if p != told.peer {
				w.asked[p] = true
				next = append(next, p)
			}
		}
	}
	w.next = next
	if err := d.tracer.add(w); err != nil {
		return
	}
	ask := traceNote{Trace: w.id, Watch: &traceAsk{w.pkt, min(n.Watch.Hops, maxTraceHops) - 1}}
	for _, p := range next {
		d.logTrace(d.tellTrace(w.slice, p, ask), p)
	}
	d.logTrace(d.tellTrace(w.slice, w.from, traceNote{Trace: w.id, Ready: &traceReady{Next: next}}), w.from)
	watching.Go(func() {
		defer d.tracer.remove(w)
		d.reportTrace(ctx, v, w)
	})
}

// reportTrace tells who asked what is seen, until it is time.
func (d *daemon) reportTrace(ctx context.Context, v *sliceView, w *traceWatch) {
	over := time.NewTimer(watchFor)
	defer over.Stop()
	in := router.OutsideName
	for {
		select {
		case <-ctx.Done():
			return
		case <-over.C:
			return
		case s := <-w.sights:
			for _, h := range v.hops(w, s, &in) {
				d.logTrace(d.tellTrace(w.slice, w.from, traceNote{Trace: w.id, Seen: &h}), w.from)
			}
		}
	}
}
