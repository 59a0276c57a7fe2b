package main

import (
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"
)

// failoverTrials is how often each failure is tried; the figures of a release
// come from 30.
var failoverTrials = flag.Int("failover-trials", 1, "trials of each failure of a gateway")

// calmFor is how long packets have to come steadily before a trial is over.
const calmFor = time.Second

// fewTrials have no median that says anything.
const fewTrials = 5

// A failure takes a gateway that carries traffic out of order.
type failure struct {
	short string
	name  string
	tries int // on a clean road, at least
	do    func(t *testing.T, l *pathLab, active *labNode)
	most  time.Duration                                   // dark, at the worst
	half  time.Duration                                   // at the median
	lost  int                                             // packets each way at most, on a clean road; 0: not judged
	back  func(t *testing.T, l *pathLab, active *labNode) // puts it in order again; nil: not tried
	hubs  []string
	sites []labSite
	at    string // the node whose peer it happens to
	ends  bool   // its daemon ends; the trial is not over before
	stays bool   // the same gateway carries on
}

var (
	// twoGateways is a site with two gateways and one other node, and another site.
	twoGateways = []labSite{{name: "a", gateways: 2, nodes: 3}, {name: "b", gateways: 1, nodes: 1}}
	oneGateway  = []labSite{{name: "a", gateways: 1, nodes: 2}, {name: "b", gateways: 1, nodes: 1}}
	// twoHubs are two sites that join two others, one of which has a node that is
	// no gateway.
	twoHubs = []labSite{{name: "h", gateways: 1, nodes: 1}, {name: "k", gateways: 1, nodes: 1}, {name: "a", gateways: 1, nodes: 2}, {name: "b", gateways: 1, nodes: 1}}
)

// outcome is what one trial measured.
type outcome struct {
	dark        time.Duration // the longer of both ways
	lost        int
	late, twice int
}

// both is the worse of two ways.
func both(there, back passage) outcome {
	return outcome{max(there.dark, back.dark), max(there.lost, back.lost), there.late + back.late, there.twice + back.twice}
}

// worker is the node of site a that is no gateway.
func (l *pathLab) worker() *labNode {
	if n := l.node("a/g3"); n != nil {
		return n
	}
	return l.node("a/g2")
}

// A road is an underlay for each trial. A clean one loses nothing, and keeps the
// order.
type road struct {
	lay   func(*testing.T) underlay
	clean bool
}

var onLoopback = road{func(t *testing.T) underlay { return newCable(t) }, true}

func trial(t *testing.T, f failure, r road) outcome {
	l := layLab(t, r.lay(t), f.hubs, f.sites...)
	l.start()
	l.until("all links are up", l.settled)
	chooser, worker := l.node(f.at), l.worker()
	addr := l.echoAddr(worker)
	s := l.stream(worker, netip.AddrPortFrom(addr, 7000))
	l.until("packets go both ways", func() bool { return l.echo.came.count() > 50 && s.came.count() > 50 })
	active := l.carrier(chooser, addr)
	phase := time.NewTimer(rand.N(probeEvery * 10))
	<-phase.C
	begin := time.Now()
	f.do(t, l, active)
	if f.ends {
		l.ended(active)
	}
	done := time.Now() // an end takes its time, and packets flow meanwhile
	l.until("packets come steadily", func() bool { return l.echo.came.calm(done, calmFor) && s.came.calm(done, calmFor) })
	there, back := l.echo.came.since(begin), s.came.since(begin)
	o := both(there, back)
	if now := l.carrier(chooser, addr); now == active != f.stays {
		t.Errorf("%v carried, %v carries now", active.id, now)
	}
	if f.back != nil {
		begin := time.Now()
		f.back(t, l, active)
		l.until("it carries again what it carried", func() bool { return l.carrier(chooser, addr) == active })
		took := time.Since(begin)
		l.until("packets come steadily", func() bool { return l.echo.came.calm(begin, calmFor/2) && s.came.calm(begin, calmFor/2) })
		again := both(l.echo.came.since(begin), s.came.since(begin))
		t.Logf("it carries again after %v; lost %d at most", took, again.lost)
		if r.clean && again.lost > slack*5 {
			t.Error("its return lost more than 5 packets one way")
		}
		o.late, o.twice = o.late+again.late, o.twice+again.twice
	}
	s.stop()
	if bad := l.echo.came.since(begin).bad + s.came.since(begin).bad; bad > 0 {
		t.Errorf("%d packets came that were never sent", bad)
	}
	t.Logf("dark %v there, %v back; lost %d and %d, late %d, twice %d", there.dark, back.dark, there.lost, back.lost, o.late, o.twice)
	return o
}

// measure tries a failure again and again, each time on new nodes and a new
// underlay.
func measure(t *testing.T, f failure, r road) {
	n := *failoverTrials
	if r.clean {
		n = max(n, f.tries)
	}
	var dark []time.Duration
	var lost []int
	for range n {
		t.Run("trial", func(t *testing.T) {
			o := trial(t, f, r)
			dark, lost = append(dark, o.dark), append(lost, o.lost)
			if o.twice > 0 || r.clean && o.late > 0 {
				t.Errorf("%d packets out of order, %d twice", o.late, o.twice)
			}
		})
	}
	if len(dark) < n {
		t.FailNow()
	}
	slices.Sort(dark)
	slices.Sort(lost)
	t.Logf("%s, %d trials: dark median %v, worst %v; lost median %d, worst %d", f.name, n, dark[n/2], dark[n-1], lost[n/2], lost[n-1])
	if n >= fewTrials && dark[n/2] > slack*f.half {
		t.Errorf("dark median %v, want at most %v", dark[n/2], f.half)
	}
	if dark[n-1] > slack*f.most {
		t.Errorf("dark at worst %v, want at most %v", dark[n-1], f.most)
	}
	if r.clean && f.lost > 0 && lost[n-1] > slack*f.lost {
		t.Errorf("lost at worst %d packets one way, want at most %d", lost[n-1], f.lost)
	}
}

// The failures, in the order of docs/paths.md.
var (
	killed = failure{
		short: "kill", name: "kill -9 of the active of two gateways", tries: 5, half: 500 * time.Millisecond, most: time.Second,
		sites: twoGateways, at: "a/g3",
		do: func(t *testing.T, _ *pathLab, active *labNode) { active.kill(t) },
		back: func(t *testing.T, _ *pathLab, active *labNode) {
			if err := active.start(); err != nil {
				t.Fatal(err)
			}
		},
	}
	killedHub = failure{
		short: "hub", name: "kill -9 of the one of two hubs at which two spokes meet", half: 500 * time.Millisecond, most: time.Second,
		hubs: []string{"h", "k"}, sites: twoHubs, at: "a/g1",
		do: func(t *testing.T, _ *pathLab, active *labNode) { active.kill(t) },
	}
	frozen = failure{
		short: "freeze", name: "SIGSTOP of the active of two gateways", half: 1500 * time.Millisecond, most: 1500 * time.Millisecond,
		sites: twoGateways, at: "a/g3",
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
	}
	deaf = failure{
		short: "deaf", name: "one direction cut between the active of two gateways and the other site", half: 1500 * time.Millisecond, most: 1500 * time.Millisecond,
		sites: twoGateways, at: "a/g3",
		do: func(_ *testing.T, l *pathLab, active *labNode) { l.under.cut(l.node("b/g1"), active) },
	}
	drained = failure{
		short: "drain", name: "drain of the active of two gateways", half: 200 * time.Millisecond, most: 200 * time.Millisecond, lost: 5,
		sites: twoGateways, at: "a/g3", ends: true,
		do: func(_ *testing.T, l *pathLab, active *labNode) {
			l.in(active, "drain", "--socket", active.socket)
			active.interrupt()
		},
	}
	ended = failure{
		short: "end", name: "SIGTERM of the active of two gateways", half: 200 * time.Millisecond, most: 200 * time.Millisecond, lost: 5,
		sites: twoGateways, at: "a/g3", ends: true,
		do: func(_ *testing.T, _ *pathLab, active *labNode) { active.interrupt() },
	}
	restarted = failure{
		short: "restart", name: "restart in place of the only gateway", half: 500 * time.Millisecond, most: 2 * time.Second,
		sites: oneGateway, at: "a/g2", stays: true,
		do: func(t *testing.T, l *pathLab, active *labNode) {
			active.interrupt()
			l.ended(active)
			if err := active.start(); err != nil {
				t.Fatal(err)
			}
		},
	}
)

var failures = []failure{killed, killedHub, frozen, deaf, drained, ended, restarted}

// TestFailuresOnLoopback tries every failure of a gateway where nothing else
// loses packets.
func TestFailuresOnLoopback(t *testing.T) {
	for _, f := range failures {
		t.Run(f.short, func(t *testing.T) { measure(t, f, onLoopback) })
	}
}
