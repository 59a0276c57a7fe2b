package shaper

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

const (
	wholePacket = 1480 // bytes charged for one of 1420
	warm        = 2 * time.Second
)

// off is how far got is from want, as a part of it.
func off(got, want float64) float64 { return got/want - 1 }

func TestARateIsKeptInEverySecond(t *testing.T) {
	for _, r := range []Rate{Mbps, 10 * Mbps, 100 * Mbps, 500 * Mbps, 2 * Gbps, 10 * Gbps} {
		for _, late := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond} {
			if r > 2*Gbps && late != time.Millisecond { // millions of packets
				continue
			}
			t.Run(fmt.Sprintf("%d Mbit/s and timers %v late", r/Mbps, late), func(t *testing.T) {
				n := newNode(1, 0)
				n.late, n.busy, n.backlog = late, 0.01, int(float64(r)/8*0.01)+20*wholePacket
				n.add(Plan{Share: Share{Ceiling: r}}, wholePacket, 4, always)
				n.queues[0].tree.classes[0].memMax = math.MaxInt // buffers of 2 KiB each, which here are a few bytes
				n.run(warm)
				for i := range 3 {
					got := n.window(time.Second)[0][0]
					// At 1 Mbit/s a packet is more than 1 % of a second's.
					if allowed := max(0.01, 8*wholePacket/float64(r)*1.01); math.Abs(off(got, float64(r))) > allowed {
						t.Errorf("second %d: %.0f bit/s, %+.2f %%", i, got, 100*off(got, float64(r)))
					}
				}
			})
		}
	}
}

func TestClassesOfASlice(t *testing.T) {
	const g60, g20, all = 60 * Mbps, 20 * Mbps, 100 * Mbps
	for _, tt := range []struct {
		name    string
		classes []Share
		demand  []float64
		want    []float64 // Mbit/s
	}{
		{"share the excess by guarantee", []Share{{g60, all, 0}, {g20, all, 0}}, []float64{always, always}, []float64{75, 25}},
		{"leave it to one alone", []Share{{g60, all, 0}, {g20, all, 0}}, []float64{0, always}, []float64{0, 100}},
		{"leave it to the other alone", []Share{{g60, all, 0}, {g20, all, 0}}, []float64{always, 0}, []float64{100, 0}},
		{"have their guarantee when others flood", []Share{{g60, 0, 7}, {g20, 0, 0}, {0, 0, 0}}, []float64{60e6, always, always}, []float64{60, 20 + 20*20/20.8, 20 * 0.8 / 20.8}},
		{"give the excess to the first priority", []Share{{g60, 0, 1}, {g20, 0, 0}}, []float64{always, always}, []float64{60, 40}},
		{"give the excess to the first priority, wherever it stands", []Share{{g20, 0, 0}, {g60, 0, 1}}, []float64{always, always}, []float64{40, 60}},
		{"stop at their ceilings", []Share{{g60, 65 * Mbps, 0}, {g20, 30 * Mbps, 0}}, []float64{always, always}, []float64{65, 30}},
		{"have what another does not want", []Share{{g60, 0, 0}, {g20, 0, 0}}, []float64{10e6, always}, []float64{10, 90}},
		{"with more guaranteed than there is, share by guarantee", []Share{{90 * Mbps, 0, 0}, {60 * Mbps, 0, 0}}, []float64{always, always}, []float64{60, 40}},
		{"with more guaranteed than there is, go by priority", []Share{{80 * Mbps, 0, 1}, {60 * Mbps, 0, 0}}, []float64{always, always}, []float64{40, 60}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(2, 0)
			n.backlog = 100 * wholePacket
			p := Plan{Share: Share{Ceiling: all}}
			for i, s := range tt.classes {
				p.Classes = append(p.Classes, Class{Name: fmt.Sprint(i), Share: s})
			}
			n.add(p, wholePacket, 4, tt.demand...)
			n.run(warm)
			for range 3 {
				got := n.window(time.Second)[0]
				for i, want := range tt.want {
					if math.Abs(got[i]/1e6-want) > 0.01*want+0.03 { // 30 kbit/s: two packets and a half
						t.Errorf("class %d has %.2f Mbit/s, want %.2f (all: %.2v)", i, got[i]/1e6, want, got)
					}
				}
			}
		})
	}
}

func TestSlicesOfAnUplink(t *testing.T) {
	const all = 200 * Mbps
	n := newNode(3, all)
	n.backlog = 200 * wholePacket
	add := func(s Share, demand float64) { n.add(Plan{Share: s}, wholePacket, 4, demand) }
	add(Share{Guaranteed: 100 * Mbps}, always)
	add(Share{Guaranteed: 20 * Mbps, Ceiling: 30 * Mbps}, always)
	add(Share{Guaranteed: 50 * Mbps}, 40e6)
	add(Share{Guaranteed: 10 * Mbps}, always)
	n.run(warm)
	for range 3 {
		got := n.window(time.Second)
		for i, want := range []float64{100 + 30/1.3, 20 + 6/1.3, 40, 10 + 3/1.3} {
			if x := got[i][0] / 1e6; math.Abs(x-want) > 0.01*want+0.05 {
				t.Errorf("slice %d has %.2f Mbit/s, want %.2f", i, x, want)
			}
		}
	}
	n.uplink.Set(100 * Mbps) // it changes while they send
	n.run(n.now + time.Second)
	got, sum := n.window(time.Second), 0.0
	for i := range got {
		sum += got[i][0]
	}
	if math.Abs(off(sum, 100e6)) > 0.01 {
		t.Errorf("all have %.2f Mbit/s of 100", sum/1e6)
	}
}

func TestFlowsOfAClassAreEqual(t *testing.T) {
	for _, r := range []Rate{10 * Mbps, 100 * Mbps, 2 * Gbps} {
		n := newNode(4, 0)
		n.backlog = 400 * wholePacket
		q := n.add(Plan{Share: Share{Ceiling: r}}, wholePacket, 16, always)
		n.run(warm)
		n.window(2 * time.Second)
		var sum, squares float64
		for _, bytes := range q.feeds[0].flow {
			x := float64(bytes)
			sum, squares = sum+x, squares+x*x
		}
		if j := sum * sum / (16 * squares); j < 0.98 {
			t.Errorf("%d Mbit/s: Jain's index of 16 flows %.4f", r/Mbps, j)
		}
	}
}

// A call of 50 packets a second beside bulk that fills the ceiling, both in one
// class.
func TestASparseFlowHardlyWaitsAtTheCeiling(t *testing.T) {
	for _, r := range []Rate{5120 * Kbps, 10 * Mbps, 100 * Mbps, 500 * Mbps, 2 * Gbps} {
		n := newNode(5, 0)
		n.backlog = 200 * wholePacket
		q := n.add(Plan{Share: Share{Ceiling: r}}, wholePacket, 8, always)
		call := &feed{class: q.tree.classes[0], size: 200, pace: 50 * 200, hashes: []uint32{900}, flow: map[uint32]int{}}
		q.feeds = append(q.feeds, call)
		n.run(warm)
		n.run(n.now + 4*time.Second)
		waited := q.waited[900]
		if len(waited) < 190 {
			t.Fatalf("%d Mbit/s: %d packets of the call left", r/Mbps, len(waited))
		}
		slices.Sort(waited)
		if p95 := waited[len(waited)*95/100]; p95 > 10*time.Millisecond {
			t.Errorf("%d kbit/s: p95 of the wait is %v", r/Kbps, p95)
		}
	}
}

// What waits when the plan changes leaves afterwards: every packet that came has
// left, waits, or is counted as lost to CoDel or to memory.
func TestAPlanChangesWithoutLoss(t *testing.T) {
	n := newNode(6, 0)
	plan := func(ceiling Rate, names ...string) Plan {
		p := Plan{Share: Share{Ceiling: ceiling}}
		for _, name := range names {
			p.Classes = append(p.Classes, Class{Name: name, Share: Share{Guaranteed: Mbps}})
		}
		return p
	}
	q := n.add(plan(50*Mbps, "a", "b"), wholePacket, 4, 10e6, 20e6)
	n.run(warm)
	for i, c := range q.tree.classes { // some of each waits
		for range 10 + i {
			q.put1(q.feeds[i], n.now)
		}
		if c.flows.packets == 0 {
			t.Fatal("nothing waits")
		}
	}
	waits := func() (k int) {
		for _, c := range q.tree.classes {
			k += c.flows.packets
		}
		return k
	}
	before := waits()
	q.Set(plan(30*Mbps, "c", "b")) // a is gone
	if after := waits(); after != before {
		t.Fatalf("%d packets waited, %d do", before, after)
	}
	if n := len(q.drops.Snapshot()); n != 0 {
		t.Errorf("drops: %v", q.drops.Snapshot())
	}
	q.feeds[0].class = q.tree.classes[0]
	n.run(n.now + time.Second)
	n.window(time.Second)
	q.Set(plan(10*Mbps, "c", "b"))
	n.run(n.now + time.Second)
	got := n.window(time.Second)[0]
	if sum := got[0] + got[1]; math.Abs(off(sum, 10e6)) > 0.01 {
		t.Errorf("%.2f Mbit/s with a new ceiling of 10", sum/1e6)
	}
}
