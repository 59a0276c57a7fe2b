package main

import (
	"bytes"
	"cmp"
	"flag"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// failoverTrials is how often each failure is tried; the figures of a release
// come from 30.
var failoverTrials = flag.Int("failover-trials", 0, "trials of each failure of a gateway (0: five of a kill, one of the others)")

// trials returns the number of trials of a failure that is tried so often when
// nobody asks for more.
func trials(usual int) int { return cmp.Or(*failoverTrials, usual) }

// watchAfter is how long a trial goes on after its failure.
const watchAfter = 2500 * time.Millisecond

// A failure takes a gateway that carries traffic out of order.
type failure struct {
	name string
	n    int // trials, unless the flag says otherwise
	do   func(t *testing.T, l *pathLab, active *labNode)
	most time.Duration                                   // dark, at the 99th percentile
	half time.Duration                                   // at the median
	lost int                                             // packets each way at most; 0: not judged
	back func(t *testing.T, l *pathLab, active *labNode) // puts it in order again; nil: not tried
	lab  func(t *testing.T) *pathLab
	at   string // the node whose peer it happens to
}

// twoGateways is a site with two gateways and one other node, and another site.
func twoGateways(t *testing.T) *pathLab {
	return newPathLab(t, nil, labSite{"a", 2, 3}, labSite{"b", 1, 1})
}

// twoHubs are two sites that join two others, one of which has a node that is no
// gateway.
func twoHubs(t *testing.T) *pathLab {
	return newPathLab(t, []string{"h", "k"}, labSite{"h", 1, 1}, labSite{"k", 1, 1}, labSite{"a", 1, 2}, labSite{"b", 1, 1})
}

// outcome is what one trial measured.
type outcome struct {
	dark time.Duration // the longer of both ways
	lost int
	odd  int
}

func trial(t *testing.T, f failure) outcome {
	l := f.lab(t)
	l.until("all links are up", l.settled)
	chooser := l.node(f.at)
	worker := l.node("a/g3")
	if worker == nil {
		worker = l.node("a/g2")
	}
	addr := l.echoAddr(worker)
	s := l.stream(worker, netip.AddrPortFrom(addr, 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	active := l.carrier(chooser, addr)
	phase := time.NewTimer(rand.N(probeEvery * 10))
	<-phase.C
	begin := time.Now()
	f.do(t, l, active)
	rest := time.NewTimer(watchAfter)
	<-rest.C
	there, lost1, odd1 := l.echo.came.since(begin)
	back, lost2, odd2 := s.came.since(begin)
	if now := l.carrier(chooser, addr); now == active {
		t.Errorf("%v still carries what it carried", active.id)
	}
	if f.back != nil {
		begin := time.Now()
		f.back(t, l, active)
		l.until("it carries again what it carried", func() bool { return l.carrier(chooser, addr) == active })
		took := time.Since(begin)
		settle := time.NewTimer(300 * time.Millisecond)
		<-settle.C
		_, lost3, odd3 := l.echo.came.since(begin)
		_, lost4, odd4 := s.came.since(begin)
		t.Logf("it carries again after %v; lost %d there, %d back", took, lost3, lost4)
		if max(lost3, lost4) > slack*5 {
			t.Error("its return lost more than 5 packets one way")
		}
		odd1, odd2 = odd1+odd3, odd2+odd4
	}
	s.stop()
	t.Logf("dark %v there, %v back; lost %d and %d, out of order %d and %d", there, back, lost1, lost2, odd1, odd2)
	return outcome{max(there, back), max(lost1, lost2), odd1 + odd2}
}

func measure(t *testing.T, f failure) {
	var dark []time.Duration
	var lost []int
	for range trials(f.n) {
		t.Run("trial", func(t *testing.T) {
			o := trial(t, f)
			dark, lost = append(dark, o.dark), append(lost, o.lost)
			if o.odd > 0 {
				t.Errorf("%d packets out of order or twice", o.odd)
			}
		})
	}
	if len(dark) < trials(f.n) {
		t.FailNow()
	}
	slices.Sort(dark)
	slices.Sort(lost)
	n := len(dark)
	t.Logf("%s, %d trials: dark median %v, worst %v; lost median %d, worst %d", f.name, n, dark[n/2], dark[n-1], lost[n/2], lost[n-1])
	if dark[n/2] > slack*f.half {
		t.Errorf("dark median %v, want at most %v", dark[n/2], f.half)
	}
	if dark[n-1] > slack*f.most {
		t.Errorf("dark at worst %v, want at most %v", dark[n-1], f.most)
	}
	if f.lost > 0 && lost[n-1] > slack*f.lost {
		t.Errorf("lost at worst %d packets one way, want at most %d", lost[n-1], f.lost)
	}
}

func TestAKilledGatewayIsReplaced(t *testing.T) {
	measure(t, failure{
		name: "kill -9 of the active of two gateways", n: 5, half: 500 * time.Millisecond, most: time.Second,
		lab: twoGateways, at: "a/g3",
		do: func(t *testing.T, _ *pathLab, active *labNode) { active.kill(t) },
		back: func(t *testing.T, _ *pathLab, active *labNode) {
			if err := active.start(); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestAKilledHubIsReplaced(t *testing.T) {
	measure(t, failure{
		name: "kill -9 of the one of two hubs at which two spokes meet", n: 1, half: 500 * time.Millisecond, most: time.Second,
		lab: twoHubs, at: "a/g1",
		do: func(t *testing.T, _ *pathLab, active *labNode) { active.kill(t) },
	})
}

func TestAFrozenGatewayIsReplaced(t *testing.T) {
	measure(t, failure{
		name: "SIGSTOP of the active of two gateways", n: 1, half: 1500 * time.Millisecond, most: 1500 * time.Millisecond,
		lab: twoGateways, at: "a/g3",
		do: func(t *testing.T, _ *pathLab, active *labNode) {
			if err := active.process.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = active.process.Process.Signal(syscall.SIGCONT) }) // so that it can end
		},
		back: func(t *testing.T, _ *pathLab, active *labNode) {
			if err := active.process.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
		},
	})
}

func TestAGatewayThatIsHeardButHearsNothingIsReplaced(t *testing.T) {
	measure(t, failure{
		name: "one direction cut between the active of two gateways and the other site", n: 1, half: 1500 * time.Millisecond, most: 1500 * time.Millisecond,
		lab: twoGateways, at: "a/g3",
		do: func(_ *testing.T, l *pathLab, active *labNode) { l.cable.cut("b/g1", active.id.String()) },
	})
}

func TestADrainedGatewayLosesNothing(t *testing.T) {
	measure(t, failure{
		name: "drain of the active of two gateways", n: 1, half: 200 * time.Millisecond, most: 200 * time.Millisecond, lost: 5,
		lab: twoGateways, at: "a/g3",
		do: func(t *testing.T, l *pathLab, active *labNode) {
			if out, errs, code := program(t, "drain", "--socket", active.socket); code != 0 {
				t.Errorf("drain: exit %d, %s%s", code, out, errs)
			}
			active.interrupt()
		},
	})
}

func TestAnEndedGatewayDrainsByItself(t *testing.T) {
	measure(t, failure{
		name: "SIGTERM of the active of two gateways", n: 1, half: 200 * time.Millisecond, most: 200 * time.Millisecond, lost: 5,
		lab: twoGateways, at: "a/g3",
		do: func(_ *testing.T, _ *pathLab, active *labNode) { active.interrupt() },
	})
}

func TestHeldConnectionsSurviveAKilledGateway(t *testing.T) {
	l := newPathLab(t, nil, labSite{"a", 2, 3}, labSite{"b", 1, 1})
	l.until("all links are up", l.settled)
	worker := l.node("a/g3")
	addr := l.echoAddr(worker)
	const held = 200
	conns := make([]net.Conn, held)
	for i := range conns {
		conns[i] = l.dial(worker, netip.AddrPortFrom(addr, 7001))
		defer conns[i].Close()
	}
	exchange := func(round byte) {
		t.Helper()
		var wait sync.WaitGroup
		for i, c := range conns {
			wait.Go(func() {
				_ = c.SetDeadline(time.Now().Add(patience))
				want := []byte{round, byte(i), 1, 2, 3}
				got := make([]byte, len(want))
				_, err := c.Write(want)
				if err == nil {
					_, err = io.ReadFull(c, got)
				}
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("round %d, connection %d: % x, %v", round, i, got, err)
				}
			})
		}
		wait.Wait()
	}
	exchange(1)
	l.carrier(worker, addr).kill(t)
	begin := time.Now()
	exchange(2)
	t.Logf("%d connections went on within %v of the kill", held, time.Since(begin))
	exchange(3)
}

func TestAGatewayRestartedInPlaceIsBackSoon(t *testing.T) {
	var dark []time.Duration
	for range trials(1) {
		l := newPathLab(t, nil, labSite{"a", 1, 2}, labSite{"b", 1, 1})
		l.until("all links are up", l.settled)
		worker, only := l.node("a/g2"), l.node("a/g1")
		s := l.stream(worker, netip.AddrPortFrom(l.echoAddr(worker), 7000))
		l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
		begin := time.Now()
		only.interrupt()
		l.ended(only)
		ended := time.Since(begin)
		if err := only.start(); err != nil {
			t.Fatal(err)
		}
		rest := time.NewTimer(watchAfter)
		<-rest.C
		there, lost1, _ := l.echo.came.since(begin)
		back, lost2, _ := s.came.since(begin)
		t.Logf("ended after %v; dark %v there, %v back; lost %d and %d", ended, there, back, lost1, lost2)
		dark = append(dark, max(there, back))
		s.stop()
	}
	slices.Sort(dark)
	t.Logf("restart in place, %d trials: dark median %v, worst %v", len(dark), dark[len(dark)/2], dark[len(dark)-1])
	if dark[len(dark)/2] > slack*500*time.Millisecond {
		t.Error("longer than 500 ms")
	}
}

func TestTwoGatewaysShareTheLoadOfFourBlocks(t *testing.T) {
	l := newPathLab(t, nil, labSite{"a", 2, 6}, labSite{"b", 1, 1})
	l.until("all links are up", l.settled)
	far := l.node("b/g1")
	before := l.carried(far)
	addr := l.echoAddr(l.node("a/g3"))
	var streams []*stream
	for _, name := range []string{"a/g3", "a/g4", "a/g5", "a/g6"} {
		streams = append(streams, l.stream(l.node(name), netip.AddrPortFrom(addr, 7000)))
	}
	l.until("packets of all came", func() bool { return l.echo.came.count() > 1000 })
	for _, s := range streams {
		s.stop()
	}
	after := l.carried(far)
	one, two := after["a/g1"]-before["a/g1"], after["a/g2"]-before["a/g2"]
	share := float64(one) / float64(one+two)
	t.Logf("one gateway carried %d bytes, the other %d", one, two)
	if share < 0.3 || share > 0.7 {
		t.Errorf("one gateway carried %.0f %%", 100*share)
	}
}

func TestSpokesMeetAtTheHubOnly(t *testing.T) {
	l := newPathLab(t, []string{"h"}, labSite{"a", 1, 2}, labSite{"h", 1, 1}, labSite{"b", 1, 2})
	worker := l.node("a/g2")
	l.until("the service is known", func() bool { return l.echoAddr(worker).IsValid() })
	s := l.stream(worker, netip.AddrPortFrom(l.echoAddr(worker), 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	for name, want := range map[string][]string{"a/g1": {"a/g2", "h/g1"}, "a/g2": {"a/g1"}, "h/g1": {"a/g1", "b/g1"}, "b/g1": {"b/g2", "h/g1"}} {
		st, _ := l.status(l.node(name))
		var got []string
		for _, p := range st.Peers {
			got = append(got, p.Site+"/"+p.Node)
		}
		if !slices.Equal(got, want) {
			t.Errorf("the peers of %s are %v, want %v", name, got, want)
		}
	}
	if n := l.carried(l.node("h/g1")); n["a/g1"] == 0 || n["b/g1"] == 0 {
		t.Errorf("the hub carried %v", n)
	}
	if _, _, odd := s.came.since(time.Time{}); odd > 0 {
		t.Errorf("%d packets out of order", odd)
	}
}

func TestACordonHoldsOverARestart(t *testing.T) {
	l := newPathLab(t, nil, labSite{"a", 2, 3}, labSite{"b", 1, 1})
	l.until("all links are up", l.settled)
	worker := l.node("a/g3")
	addr := l.echoAddr(worker)
	active := l.carrier(worker, addr)
	if out, errs, code := program(t, "cordon", "--socket", active.socket); code != 0 || out != "" {
		t.Fatalf("cordon: exit %d, %s%s", code, out, errs)
	}
	l.until("the other gateway carries", func() bool { return l.carrier(worker, addr) != active })
	active.interrupt()
	l.ended(active)
	if err := active.start(); err != nil {
		t.Fatal(err)
	}
	l.until("all links are up again and the other carries", func() bool {
		c := l.carrier(worker, addr)
		return l.settled() && c != nil && c != active
	})
	if s, err := newClient(active.socket).status(t.Context()); err != nil || !s.Cordoned {
		t.Errorf("status: %v, %v", s.Cordoned, err)
	}
	if _, errs, code := program(t, "uncordon", "--socket", active.socket); code != 0 {
		t.Errorf("uncordon: exit %d, %s", code, errs)
	}
	l.until("it carries again", func() bool { return l.carrier(worker, addr) == active })

	only := l.node("b/g1")
	if out, _, code := program(t, "drain", "--socket", only.socket); code != exitDegraded || !strings.Contains(out, "no other gateway") {
		t.Errorf("drain of the only gateway: exit %d, %q", code, out)
	}
	l.until("the only gateway still carries", func() bool { return l.carrier(worker, addr) != nil })
}
