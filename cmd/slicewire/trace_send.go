package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"slicewire/api"
	"slicewire/router"
)

// sendTrace sends a packet and follows it: on this node by the taps on its way,
// beyond by what the nodes that were asked beforehand tell.
func (d *daemon) sendTrace(ctx context.Context, v *sliceView, out *api.TraceReply, in string, tr router.Trace, pkt []byte, f router.Flow) error {
	if in == router.OutsideName {
		out.Sent = "not sent: its source is not on this node"
		return nil
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	w, err := newTraceWatch(hex.EncodeToString(id), out.Slice, "", pkt)
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	if tr.Out == router.OutsideName {
		w.next = v.peersTo(w.dst)
		for _, p := range w.next {
			w.asked[p] = true
		}
	}
	if err := d.tracer.add(w); err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	defer d.tracer.remove(w)
	silent := d.awaitReady(ctx, w)
	if silent != "" {
		out.Hops = append(out.Hops, api.TraceHop{Node: silent, Point: "watch", Result: fmt.Sprintf("does not answer within %v: what it sees of the packet is not known", readyPatience)})
	}
	before, known := v.node.answers(f)
	if !v.node.router.Inject(in, pkt) {
		out.Sent = "not sent: its port has closed"
		return nil
	}
	d.follow(ctx, v, w, out, func() bool {
		now, ok := v.node.answers(f)
		return ok && (!known || now > before) && now > 0
	})
	return nil
}

// awaitReady asks the peers on the way to look out, and waits until those that
// the packet should pass do. It returns the first that does not say so in time.
func (d *daemon) awaitReady(ctx context.Context, w *traceWatch) (silent string) {
	if len(w.next) == 0 {
		return ""
	}
	over := time.NewTimer(readyPatience)
	defer over.Stop()
	again := time.NewTicker(askAgain)
	defer again.Stop()
	ask := func() {
		for _, p := range w.next {
			d.logTrace(d.tellTrace(w.slice, p, traceNote{Trace: w.id, Watch: &traceAsk{w.pkt, maxTraceHops}}), p)
		}
	}
	ask()
	for missing := w.next[0]; ; {
		select {
		case n := <-w.notes:
			if n.Ready == nil || n.Ready.Node != missing {
				continue
			}
			if len(n.Ready.Next) == 0 {
				return ""
			}
			missing = signed(n.Ready.Next[0], n.Ready.Node)
		case <-again.C:
			ask()
		case <-over.C:
			return missing
		case <-ctx.Done():
			return missing
		}
	}
}

// follow collects what is seen of a packet that was sent until it has arrived and
// was answered, was dropped, or nothing was seen for too long.
func (d *daemon) follow(ctx context.Context, v *sliceView, w *traceWatch, out *api.TraceReply, answered func() bool) {
	self := d.id.authority().ID.String()
	over := time.NewTimer(tracePatience)
	defer over.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	begin := time.Now()
	var last api.TraceHop
	in, arrived := "", false
	note := func(h api.TraceHop) bool {
		out.Hops = append(out.Hops, h)
		last = h
		arrived = arrived || h.Last && h.OK
		out.Arrived = arrived
		return h.Last && !h.OK
	}
	for {
		select {
		case s := <-w.sights:
			for _, h := range v.hops(w, s, &in) {
				if h.Node = self; note(h) {
					out.Sent = fmt.Sprintf("dropped by %s: %s", h.Node, h.Result)
					return
				}
			}
		case n := <-w.notes:
			if n.Seen != nil && len(out.Hops) < maxShownHops && note(*n.Seen) {
				out.Sent = fmt.Sprintf("dropped by %s: %s", n.Seen.Node, n.Seen.Result)
				return
			}
		case <-look.C:
			if (arrived || len(w.next) > 0) && answered() {
				out.Sent = fmt.Sprintf("arrived, and was answered within %v", time.Since(begin).Round(time.Millisecond))
				if out.Arrived = true; !arrived {
					continue // its last hop is still on its way here
				}
				return
			}
		case <-over.C:
			out.Sent = lost(out.Sent, last, arrived)
			return
		case <-ctx.Done():
			out.Sent = lost(out.Sent, last, arrived)
			return
		}
	}
}

// maxShownHops bounds what one trace says: eight nodes and all that they see.
const maxShownHops = 64

// lost says of a packet of which nothing more was seen where that was.
func lost(sent string, last api.TraceHop, arrived bool) string {
	switch {
	case sent != "":
		return sent
	case arrived:
		return fmt.Sprintf("arrived at %s; no answer within %v", last.Node, tracePatience)
	case last.Node == "":
		return fmt.Sprintf("missing: it was seen nowhere within %v", tracePatience)
	}
	return fmt.Sprintf("missing: seen last at %s (%s: %s), and nothing more within %v", last.Node, last.Point, last.Result, tracePatience)
}
