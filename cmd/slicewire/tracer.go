package main

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

const (
	maxWatches     = 16  // traced packets that a node looks out for at once
	maxWatchesPeer = 4   // of those, asked for by one peer
	maxTracedBytes = 128 // of a traced packet
	maxTraceHops   = 4   // nodes that pass the question on
	maxTraceText   = 300 // bytes of what another node says
	tracePatience  = 2 * time.Second
	// watchFor is how long another node looks out: as long as who asks waits
	// before it sends and after.
	watchFor = readyPatience + tracePatience + time.Second
	// readyPatience is how long a packet waits for those who are to look out.
	readyPatience = 700 * time.Millisecond
	askAgain      = 200 * time.Millisecond
	notesQueued   = 64 // notes of peers that wait to be read; more are lost
)

var errTraces = errors.New("16 packets are being traced already: try again in a few seconds")

// A traceWatch looks out for one packet on its way through this node.
type traceWatch struct {
	id, slice string
	pkt       []byte
	src, dst  netip.Addr
	from      string          // peer that asked; empty: this node sends it
	asked     map[string]bool // peers that were asked to look out, too
	next      []string        // those, the likeliest first
	sights    chan overlay.Sight
	notes     chan traceNote // for the one that sends: what those said
}

// sees reports whether pkt is the watched packet: all of it that no router on
// its way changes.
func (w *traceWatch) sees(pkt []byte) bool {
	if len(pkt) < len(w.pkt) || pkt[0]>>4 != w.pkt[0]>>4 {
		return false
	}
	if pkt = pkt[:len(w.pkt)]; pkt[0]>>4 == 6 {
		return bytes.Equal(pkt[4:7], w.pkt[4:7]) && bytes.Equal(pkt[8:], w.pkt[8:])
	}
	return bytes.Equal(pkt[2:6], w.pkt[2:6]) && pkt[9] == w.pkt[9] && bytes.Equal(pkt[12:], w.pkt[12:])
}

// A tracer has a node's watches. As long as there are any it is a tap on the
// packet path.
type tracer struct {
	taps *overlay.Taps
	told chan toldNote
	list atomic.Pointer[[]*traceWatch] // what See looks at
	mu   sync.Mutex                    // of writers of list
	lost atomic.Uint64                 // notes for which there was no room
}

// A toldNote is a note as it came.
type toldNote struct {
	slice, peer string
	body        []byte
}

func newTracer(taps *overlay.Taps) *tracer {
	return &tracer{taps: taps, told: make(chan toldNote, notesQueued)}
}

// take queues a note of a peer. It is called on the packet path.
func (t *tracer) take(slice, peer string, body []byte) {
	select {
	case t.told <- toldNote{slice, peer, body}:
	default:
		t.lost.Add(1)
	}
}

// See implements overlay.Tap.
func (t *tracer) See(s overlay.Sight, pkt []byte) {
	if s.Point == overlay.PointUnderlay {
		return
	}
	l := t.list.Load()
	if l == nil {
		return
	}
	for _, w := range *l {
		if w.slice == s.Slice && w.sees(pkt) {
			select {
			case w.sights <- s:
			default: // somebody plays it again and again
			}
		}
	}
}

// tapped is how many of the taps are the tracer: 0 or 1.
func (t *tracer) tapped() int {
	if t.list.Load() == nil {
		return 0
	}
	return 1
}

// add begins to look out.
func (t *tracer) add(w *traceWatch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*traceWatch
	if l := t.list.Load(); l != nil {
		list = slices.Clone(*l)
	}
	same := 0
	for _, x := range list {
		if x.id == w.id {
			return errors.New("that packet is being traced already")
		}
		if x.from == w.from {
			same++
		}
	}
	if len(list) >= maxWatches || w.from != "" && same >= maxWatchesPeer {
		return errTraces
	}
	if len(list) == 0 && !t.taps.Add(t, maxCaptures+1) {
		return errCaptures
	}
	list = append(list, w)
	t.list.Store(&list)
	return nil
}

func (t *tracer) remove(w *traceWatch) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.list.Load()
	if l == nil {
		return
	}
	list := slices.DeleteFunc(slices.Clone(*l), func(x *traceWatch) bool { return x == w })
	if len(list) == 0 {
		t.list.Store(nil)
		t.taps.Remove(t)
		return
	}
	t.list.Store(&list)
}

// find returns the watch with that id.
func (t *tracer) find(id string) *traceWatch {
	if l := t.list.Load(); l != nil {
		for _, w := range *l {
			if w.id == id {
				return w
			}
		}
	}
	return nil
}

// newTraceWatch checks what is to be looked out for.
func newTraceWatch(id, slice, from string, pkt []byte) (*traceWatch, error) {
	if len(id) != 32 {
		return nil, errors.New("no trace's name")
	}
	w := &traceWatch{
		id: id, slice: slice, from: from, pkt: pkt, asked: make(map[string]bool),
		sights: make(chan overlay.Sight, 16), notes: make(chan traceNote, 32),
	}
	switch {
	case len(pkt) > maxTracedBytes:
	case len(pkt) >= 20 && pkt[0] == 0x45:
		w.src, w.dst = netip.AddrFrom4([4]byte(pkt[12:])), netip.AddrFrom4([4]byte(pkt[16:]))
		return w, nil
	case len(pkt) >= 40 && pkt[0]>>4 == 6:
		w.src, w.dst = netip.AddrFrom16([16]byte(pkt[8:])), netip.AddrFrom16([16]byte(pkt[24:]))
		return w, nil
	}
	return nil, errors.New("no packet that a trace sends")
}

// hops words what was seen. in is the port that the packet came in by, which the
// first sight says.
func (v *sliceView) hops(w *traceWatch, s overlay.Sight, in *string) []api.TraceHop {
	verdict := func() string {
		tr, ok := v.node.router.Trace(*in, w.pkt)
		switch {
		case !ok:
			return "its port is closing"
		case tr.Known:
			return "allowed by " + rules(tr.Policy)
		case !tr.Asked:
			return "the slice has no policy"
		case tr.Policy.Denied != "":
			rule := tr.Policy.Egress
			if tr.Policy.Denied == "ingress" {
				rule = tr.Policy.Ingress
			}
			return tr.Policy.Denied + " is denied by " + rule
		case *in == router.OutsideName && tr.Out == router.OutsideName:
			return "the policy is asked at the packet's ends"
		}
		return "allowed by " + rules(tr.Policy)
	}
	toward := v.peerOf(w.dst)
	switch {
	case s.Point == overlay.PointDrop:
		h := api.TraceHop{Point: dropPoint(s.Drop, s.Port), Result: "dropped as " + s.Drop.String(), Last: true}
		switch s.Drop {
		case overlay.DropPolicy:
			h.Result += ": " + verdict()
		case overlay.DropPoliced:
			h.Result += ": more comes from outside than all other sites may send together"
		}
		return []api.TraceHop{h}
	case s.Point == overlay.PointPort && !s.Out:
		*in = s.Port
		return []api.TraceHop{{Point: "port", Result: "came in by " + s.Port, OK: true}}
	case s.Point == overlay.PointTunnel && !s.Out:
		*in = router.OutsideName
		return []api.TraceHop{{Point: "tunnel", Result: "came in", OK: true}}
	case s.Point == overlay.PointPort:
		return []api.TraceHop{{Point: "router", Result: verdict(), OK: true}, {Point: "port", Result: "went out by " + s.Port, OK: true, Last: true}}
	case s.Point == overlay.PointTunnel:
		return []api.TraceHop{{Point: "router", Result: verdict(), OK: true}}
	case s.Point == overlay.PointShaper:
		return []api.TraceHop{{Point: "shaper", Result: "let go to be encrypted for " + toward, OK: true}}
	}
	return nil
}

// dropPoint is the stage that drops for a reason. port is the one that the drop was
// seen at: a workload's may have any name.
func dropPoint(d overlay.Drop, port string) string {
	switch d {
	case overlay.DropPoliced:
		return "policer" // of what the tunnel hands to the router
	case overlay.DropDelay:
		return "shaper"
	case overlay.DropQueueFull, overlay.DropClosed:
		if port == "shaper" || port == "tunnel" {
			return port
		}
		return "port"
	case overlay.DropNoPeer, overlay.DropCongestion, overlay.DropSendError:
		return "tunnel"
	}
	return "router"
}

// serveTraces reads what peers tell, until ctx ends.
func (d *daemon) serveTraces(ctx context.Context) error {
	var watching sync.WaitGroup
	defer watching.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-d.tracer.told:
			d.hearTrace(ctx, n, &watching)
		}
	}
}
