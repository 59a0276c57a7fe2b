package main

import (
	"encoding/binary"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const sharedKbps = 20_000 // the ceiling of the lab's slice in this test

// overload sends more than the ceiling from a node to the echo service until stop.
func (l *pathLab) overload(n *labNode, to netip.AddrPort) (stop func()) {
	l.t.Helper()
	control, relay := l.associate(n, n.proxy)
	conn := l.dialHere(n, "udp", relay)
	head := append([]byte{0, 0, 0, 1}, to.Addr().AsSlice()...)
	packet := append(binary.BigEndian.AppendUint16(head, to.Port()), make([]byte, 1200)...)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				for range 16 { // 31 Mbit/s
					_, _ = conn.Write(packet)
				}
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); wait.Wait(); conn.Close(); control.Close() })
	l.t.Cleanup(stop)
	return stop
}

// A sentSample is what gateways had sent together, and between when that was read.
type sentSample struct {
	before, after time.Time
	bytes         uint64
	parts         []int // of the ceiling, kbit/s
}

// sampleSent reads it from the gateways' status.
func (l *pathLab) sampleSent(gateways []*labNode) (s sentSample, ok bool) {
	s.before = time.Now()
	for _, n := range gateways {
		x, ok := l.status(n)
		if !ok {
			return s, false
		}
		for _, c := range x.Shaping.Classes {
			s.bytes += c.SentBytes
		}
		s.parts = append(s.parts, x.Shaping.CeilingKbps)
	}
	s.after = time.Now()
	return s, true
}

// Two gateways of a site share the slice's ceiling by what each would send, and
// together never send more than it, however that changes.
func TestGatewaysShareACeilingByUse(t *testing.T) {
	l := layLab(t, newCable(t), nil, labSite{name: "north", gateways: 2, nodes: 2}, labSite{name: "south", gateways: 1, nodes: 1})
	path := filepath.Join(l.dir, "manifests", "lab.yaml")
	text, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(text), "bandwidthCeilingKbps: 500000") {
		t.Fatalf("the lab's slice has another ceiling: %v", err)
	}
	l.write("manifests/lab.yaml", strings.Replace(string(text), "bandwidthCeilingKbps: 500000", "bandwidthCeilingKbps: 20000", 1))
	l.start()
	gateways := []*labNode{l.node("north/g1"), l.node("north/g2")}
	l.until("the service is known", func() bool {
		return l.echoAddr(gateways[0]).IsValid() && l.echoAddr(gateways[1]).IsValid()
	})
	echo := netip.AddrPortFrom(l.echoAddr(gateways[0]), 7000)
	var samples []sentSample
	// until samples until the gateways' parts are what ok wants, and a second more.
	until := func(what string, ok func(first, second int) bool) {
		t.Helper()
		var since time.Time
		l.until(what, func() bool {
			if n := len(samples); n > 0 && time.Since(samples[n-1].after) < 40*time.Millisecond {
				return false
			}
			s, read := l.sampleSent(gateways)
			if !read {
				return false
			}
			samples = append(samples, s)
			if !ok(s.parts[0], s.parts[1]) {
				since = time.Time{}
			} else if since.IsZero() {
				since = time.Now()
			}
			return !since.IsZero() && time.Since(since) > 1500*time.Millisecond
		})
		from := slices.IndexFunc(samples, func(s sentSample) bool { return s.before.After(since) })
		first, last := samples[from], samples[len(samples)-1]
		t.Logf("%s: parts %v, %.2f Mbit/s together", what, last.parts, float64(last.bytes-first.bytes)*8/last.before.Sub(first.after).Seconds()/1e6)
	}
	const half, most, least = sharedKbps / 2, sharedKbps * 39 / 40, sharedKbps / 40
	stopFirst := l.overload(gateways[0], echo)
	until("one sends and has nearly all", func(first, second int) bool { return first == most && second == least })
	l.overload(gateways[1], echo)
	until("both send and have half each", func(first, second int) bool { return first == half && second == half })
	stopFirst()
	until("the other sends and has nearly all", func(first, second int) bool { return first == least && second == most })
	windows, i := 0, 0
	for j, end := range samples {
		for i < j && end.before.Sub(samples[i+1].after) >= time.Second {
			i++
		}
		begin := samples[i]
		if end.before.Sub(begin.after) < time.Second {
			continue
		}
		windows++
		const packets = 3 * (1200 + 28 + 60 + 15) // what one more or less is for each
		if may := sharedKbps*1000/8*1.01*end.after.Sub(begin.before).Seconds() + packets; float64(end.bytes-begin.bytes) > may {
			t.Errorf("%d bytes in %v, with a ceiling of %.0f; parts were %v and are %v", end.bytes-begin.bytes, end.after.Sub(begin.before), may, begin.parts, end.parts)
		}
	}
	if windows < 20 {
		t.Errorf("only %d windows of a second", windows)
	}
}
