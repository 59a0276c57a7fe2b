package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
	"slicewire/shaper"
)

func tracedPacket(t *testing.T, src, dst string) []byte {
	t.Helper()
	return tracePacket(netip.MustParseAddr(src), netip.MustParseAddr(dst), overlay.ProtoUDP, 1, 2)
}

func watchOf(t *testing.T, n int, from string, pkt []byte) *traceWatch {
	t.Helper()
	w, err := newTraceWatch(fmt.Sprintf("%032x", n), "blue", from, pkt)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// A traced packet is known by all that no router changes, and no other is taken
// for it.
func TestATracedPacketIsRecognised(t *testing.T) {
	for _, ends := range [][2]string{{"10.1.0.2", "10.1.1.2"}, {"fd00:1::2", "fd00:1::3"}} {
		for _, proto := range []uint8{overlay.ProtoTCP, overlay.ProtoUDP, overlay.ProtoGRE, 58} {
			src, dst := netip.MustParseAddr(ends[0]), netip.MustParseAddr(ends[1])
			pkt := tracePacket(src, dst, proto, 1, 2)
			w := watchOf(t, 1, "", pkt)
			ttl, class := 8, 1
			if src.Is6() {
				ttl, class = 7, 1
			}
			onItsWay := slices.Clone(pkt)
			onItsWay[ttl]--
			onItsWay[class] ^= 0x10
			if src.Is4() {
				onItsWay[10] ^= 0xff
			}
			if !w.sees(onItsWay) {
				t.Errorf("protocol %d, %v: not known after a router", proto, ends)
			}
			if w.sees(tracePacket(src, dst, proto, 1, 2)) {
				t.Errorf("protocol %d, %v: the next trace's packet is taken for this one's", proto, ends)
			}
			for i := range pkt {
				other := slices.Clone(pkt)
				other[i] ^= 0x10
				may := i == ttl || i == class || src.Is4() && (i == 0 || i == 6 || i == 7 || i == 10 || i == 11) || src.Is6() && i < 4 && i > 0
				if i != 0 && w.sees(other) != may {
					t.Errorf("protocol %d, %v: byte %d changed: seen %v", proto, ends, i, !may)
				}
				if w.sees(pkt[:i]) {
					t.Fatalf("protocol %d, %v: seen in %d bytes", proto, ends, i)
				}
			}
		}
	}
}

// Watches are bounded, in all and for each peer, and the tap goes with the last.
func TestTraceWatchesAreBounded(t *testing.T) {
	var taps overlay.Taps
	tr := newTracer(&taps)
	pkt := tracedPacket(t, "10.1.0.2", "10.1.1.2")
	var all []*traceWatch
	for i := range maxWatches + 4 {
		w := watchOf(t, i, fmt.Sprint("peer ", i%5), pkt)
		if err := tr.add(w); (err == nil) != (i < maxWatches) {
			t.Fatalf("watch %d: %v", i, err)
		} else if err == nil {
			all = append(all, w)
		}
	}
	tr.remove(all[0])
	if err := tr.add(watchOf(t, 100, "peer 1", pkt)); err != nil {
		t.Errorf("there is room again: %v", err)
	}
	if err := tr.add(watchOf(t, 1, "peer 4", pkt)); err == nil {
		t.Error("two watches have one name")
	}
	tr.remove(all[1])
	tr.remove(all[2])
	for i := range 3 {
		if err := tr.add(watchOf(t, 200+i, "peer 3", pkt)); (err == nil) != (i < maxWatchesPeer-3) {
			t.Errorf("peer 3 has %d watches: %v", 3+i, err)
		}
	}
	for range 100 {
		tr.See(overlay.Sight{Slice: "blue", Point: overlay.PointTunnel}, pkt)
		tr.See(overlay.Sight{Slice: "red", Point: overlay.PointTunnel}, pkt)
	}
	if n := len(all[3].sights); n != cap(all[3].sights) {
		t.Errorf("%d sights wait, want %d", n, cap(all[3].sights))
	}
	for l := tr.list.Load(); l != nil; l = tr.list.Load() {
		tr.remove((*l)[0])
	}
	if taps.Load() != nil || tr.tapped() != 0 {
		t.Error("the tap is still there")
	}
}

// Only who was asked may say what it saw, and it cannot speak for another.
func TestANodeSpeaksForItselfInATrace(t *testing.T) {
	var taps overlay.Taps
	d := &daemon{tracer: newTracer(&taps)}
	w := watchOf(t, 7, "", tracedPacket(t, "10.1.0.2", "10.1.1.2"))
	w.asked["s/b"] = true
	if err := d.tracer.add(w); err != nil {
		t.Fatal(err)
	}
	hear := func(slice, peer string, n traceNote) (heard traceNote, ok bool) {
		body, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		d.hearTrace(context.Background(), toldNote{slice, peer, body}, nil)
		select {
		case heard = <-w.notes:
			return heard, true
		default:
			return heard, false
		}
	}
	seen := func(id, node string) traceNote {
		return traceNote{Trace: id, Seen: &api.TraceHop{Node: node, Point: "port", Result: strings.Repeat("x", 5000)}}
	}
	if n, ok := hear("blue", "s/b", seen(w.id, "")); !ok || n.Seen.Node != "s/b" || len(n.Seen.Result) != maxTraceText {
		t.Errorf("who was asked: %v %+v", ok, n.Seen)
	}
	if n, ok := hear("blue", "s/b", seen(w.id, "s/c")); !ok || n.Seen.Node != "s/c (says s/b)" {
		t.Errorf("what it says of another: %v %+v", ok, n.Seen)
	}
	for name, n := range map[string]func() (traceNote, bool){
		"another peer":  func() (traceNote, bool) { return hear("blue", "s/x", seen(w.id, "")) },
		"another slice": func() (traceNote, bool) { return hear("red", "s/b", seen(w.id, "")) },
		"another trace": func() (traceNote, bool) { return hear("blue", "s/b", seen(fmt.Sprintf("%032x", 8), "")) },
		"an empty note": func() (traceNote, bool) { return hear("blue", "s/b", traceNote{Trace: w.id}) },
		"what is no note": func() (traceNote, bool) {
			d.hearTrace(context.Background(), toldNote{"blue", "s/b", []byte("{")}, nil)
			return traceNote{}, len(w.notes) > 0
		},
	} {
		if _, ok := n(); ok {
			t.Errorf("%s is heard", name)
		}
	}
	for range 10 * notesQueued {
		d.tracer.take("blue", "s/b", nil)
	}
	if got := d.tracer.lost.Load(); got != 9*notesQueued {
		t.Errorf("%d notes are lost, want %d", got, 9*notesQueued)
	}
}

// What the policer drops comes from the tunnel and never gets to the router.
func TestATraceEndsAtThePolicer(t *testing.T) {
	var taps overlay.Taps
	tr := newTracer(&taps)
	q := shaper.New(nil)
	q.Drops().Watch(&taps, "blue", "shaper")
	r, err := router.New(router.Config{Slice: "blue", MTU: 1420, Outlet: q, Taps: &taps})
	if err != nil {
		t.Fatal(err)
	}
	p := shaper.NewPolicer(r.Outside(), q.Drops())
	p.Set(shaper.Kbps)
	w := watchOf(t, 1, "worker-2/gw", tracedPacket(t, "10.1.1.2", "10.1.0.2"))
	if err := tr.add(w); err != nil {
		t.Fatal(err)
	}
	flood := append(make([]byte, overlay.Headroom), tracePacket(netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.0.2"), overlay.ProtoUDP, 1, 2)...)
	for i := 0; q.Drops().Get(overlay.DropPoliced) == 0; i++ {
		if i > 1_000_000 {
			t.Fatal("the policer drops nothing")
		}
		if err := p.Write([][]byte{slices.Clone(flood)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Write([][]byte{append(make([]byte, overlay.Headroom), w.pkt...)}); err != nil {
		t.Fatal(err)
	}
	v, in := &sliceView{node: &sliceNode{router: r}}, router.OutsideName
	select {
	case s := <-w.sights:
		want := api.TraceHop{Point: "policer", Result: "dropped as policed: more comes from outside than all other sites may send together", Last: true}
		if got := v.hops(w, s, &in); len(got) != 1 || got[0] != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	default:
		t.Error("the drop was not seen")
	}
}

func TestADropIsSaidOfTheStageThatDrops(t *testing.T) {
	for _, c := range []struct {
		drop overlay.Drop
		port string
		want string
	}{
		{overlay.DropPolicy, "shaper", "router"}, // a workload of that name
		{overlay.DropTTL, "run-1", "router"},
		{overlay.DropDelay, "shaper", "shaper"},
		{overlay.DropQueueFull, "shaper", "shaper"},
		{overlay.DropQueueFull, "run-1", "port"},
		{overlay.DropClosed, "tunnel", "tunnel"},
		{overlay.DropNoPeer, "tunnel", "tunnel"},
	} {
		if got := dropPoint(c.drop, c.port); got != c.want {
			t.Errorf("%v at %s: %s, want %s", c.drop, c.port, got, c.want)
		}
	}
}
