package main

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// failoverTrials is how often each failure is tried; the figures of a release
// come from 30.
var failoverTrials = flag.Int("failover-trials", 3, "trials of each failure of a gateway")

// watchAfter is how long a trial goes on after its failure.
const watchAfter = 2500 * time.Millisecond

// A failure takes a gateway that carries traffic out of order.
type failure struct {
	name string
	do   func(t *testing.T, l *pathLab, active *labNode)
	most time.Duration // dark, at the 99th percentile
	half time.Duration // at the median
	lost int           // packets each way at most; 0: not judged
}

// outcome is what one trial measured.
type outcome struct {
	dark time.Duration // the longer of both ways
	lost int
	odd  int
}

func trial(t *testing.T, f failure) outcome {
	l := newPathLab(t, "", labSite{"a", 2, 3}, labSite{"b", 1, 1})
	l.until("all links are up", l.settled)
	worker := l.node("a/g3")
	addr := l.echoAddr(worker)
	s := l.stream(worker, netip.AddrPortFrom(addr, 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	active := l.carrier(worker, addr)
	phase := time.NewTimer(rand.N(probeEvery * 10))
	<-phase.C
	begin := time.Now()
	f.do(t, l, active)
	rest := time.NewTimer(watchAfter)
	<-rest.C
	there, lost1, odd1 := l.echo.came.since(begin)
	back, lost2, odd2 := s.came.since(begin)
	s.stop()
	if now := l.carrier(worker, addr); now == active {
		t.Errorf("%v still carries what it carried", active.id)
	}
	t.Logf("dark %v there, %v back; lost %d and %d, out of order %d and %d", there, back, lost1, lost2, odd1, odd2)
	return outcome{max(there, back), max(lost1, lost2), odd1 + odd2}
}

func measure(t *testing.T, f failure) {
	var dark []time.Duration
	var lost []int
	for range *failoverTrials {
		t.Run("trial", func(t *testing.T) {
			o := trial(t, f)
			dark, lost = append(dark, o.dark), append(lost, o.lost)
			if o.odd > 0 {
				t.Errorf("%d packets out of order or twice", o.odd)
			}
		})
	}
	if len(dark) < *failoverTrials {
		t.FailNow()
	}
	slices.Sort(dark)
	slices.Sort(lost)
	n := len(dark)
	t.Logf("%s, %d trials: dark median %v, worst %v; lost median %d, worst %d", f.name, n, dark[n/2], dark[n-1], lost[n/2], lost[n-1])
	if dark[n/2] > f.half {
		t.Errorf("dark median %v, want at most %v", dark[n/2], f.half)
	}
	if dark[n-1] > f.most {
		t.Errorf("dark at worst %v, want at most %v", dark[n-1], f.most)
	}
	if f.lost > 0 && lost[n-1] > f.lost {
		t.Errorf("lost at worst %d packets one way, want at most %d", lost[n-1], f.lost)
	}
}

func TestAKilledGatewayIsReplaced(t *testing.T) {
	measure(t, failure{
		name: "kill -9 of the active of two gateways", half: 500 * time.Millisecond, most: time.Second,
		do: func(t *testing.T, _ *pathLab, active *labNode) { active.kill(t) },
	})
}
