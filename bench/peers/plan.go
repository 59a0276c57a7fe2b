package main

import (
	"context"
	"fmt"
	"time"
)

// A plan says what is measured, and for how long.
type plan struct {
	rounds   int
	length   time.Duration // of a TCP run
	streams  []int
	down     bool // measure TCP from server to client as well
	udp      []int
	udpTime  time.Duration
	ndrSteps int // tries of the search for the highest rate with 1 % loss; 0 leaves it out
	pings    int
	streamed bool // the system carries streams only: no pings, no datagrams
}

var (
	fullPlan  = plan{rounds: 5, length: 3 * time.Second, streams: []int{1, 4, 16}, down: true, udp: []int{64, 1200}, udpTime: time.Second, ndrSteps: 7, pings: 200}
	quickPlan = plan{rounds: 3, length: 2 * time.Second, streams: []int{1}, pings: 60}
)

// brief is what is taken of systems that are there for orientation: the same
// tests, fewer and shorter, so that there is time for those compared closely.
func (p plan) brief() plan {
	p.length = min(p.length, 2*time.Second)
	p.streams = p.streams[:1]
	p.udp = p.udp[max(0, len(p.udp)-1):]
	p.pings /= 2
	return p
}

// of is the plan for one system.
func (p plan) of(s system) plan {
	if s.brief {
		p = p.brief()
	}
	if s.streams {
		p.udp, p.streamed = nil, true
	}
	return p
}

// echoTime is how long the echo client asks: as long as the pings take.
func (p plan) echoTime() time.Duration { return time.Duration(p.pings) * 10 * time.Millisecond }

// roundTrips is how long round trips are taken: pings first, where there are any.
func (p plan) roundTrips() time.Duration {
	if p.streamed {
		return p.echoTime()
	}
	return 2 * p.echoTime()
}

// A test takes one or several values of a system at once.
type test struct {
	name  string
	lasts time.Duration // about
	take  func(*runner, context.Context) error
}

// probeStarts is what it takes to start and end the programs of a probe.
const probeStarts = 200 * time.Millisecond

// tests lists what is taken, in order: memory before traffic, delays before
// load, TCP before UDP, so that the TCP peak is TCP's.
func (p plan) tests() []test {
	ts := []test{
		{name: "rss_idle", take: (*runner).takeIdle},
		{name: "rtt_idle", lasts: p.roundTrips() + probeStarts, take: (*runner).takeRTTIdle},
	}
	for _, n := range p.streams {
		ts = append(ts, p.tcp(n, true))
		if p.down {
			ts = append(ts, p.tcp(n, false))
		}
	}
	ts = append(ts,
		test{name: "rtt_load", lasts: loadSettles + p.roundTrips() + time.Second, take: (*runner).takeRTTLoaded},
		test{name: "rss_peak_tcp", take: takePeak("rss_peak_tcp")})
	for _, size := range p.udp {
		ts = append(ts, p.overload(size))
		if p.ndrSteps > 0 {
			ts = append(ts, p.lossless(size))
		}
	}
	if len(p.udp) > 0 {
		ts = append(ts, test{name: "rss_peak", take: takePeak("rss_peak")})
	}
	return ts
}

func (p plan) tcp(streams int, up bool) test {
	way := "down"
	if up {
		way = "up"
	}
	name := fmt.Sprintf("tcp%d_%s", streams, way)
	return test{name: name, lasts: p.length + probeStarts, take: takeTCP(name, streams, up)}
}

func (p plan) overload(size int) test {
	name := fmt.Sprintf("udp%d", size)
	return test{name: name, lasts: p.udpTime + probeStarts, take: takeOverload(name, size)}
}

func (p plan) lossless(size int) test {
	name := fmt.Sprintf("udp%d_ndr", size)
	return test{name: name, lasts: time.Duration(p.ndrSteps) * (p.udpTime + probeStarts), take: takeLossless(name, size)}
}

// startsAtOnce bounds how many systems are started, or stopped, at a time: a
// crowd would make each of them slow enough to run into its own time limits.
const startsAtOnce = 4

// startLasts is about how long one system takes to start and to stop.
const startLasts = 3 * time.Second

// roundLasts is about how long a round of these systems takes.
func (p plan) roundLasts(systems []system) time.Duration {
	d := startsLast(len(systems))
	for _, s := range systems {
		for _, t := range p.of(s).tests() {
			d += t.lasts
		}
	}
	return d
}

func startsLast(systems int) time.Duration {
	return time.Duration((systems+startsAtOnce-1)/startsAtOnce) * startLasts
}

// A schedule says how far a run has come, in time as it was planned.
type schedule struct{ done, rest time.Duration }

// scheduleTrusts is how much has to be done before the pace so far says more
// about the rest than the plan does.
const scheduleTrusts = 20 * time.Second

// left is about how long the rest takes, at the pace so far.
func (s schedule) left(elapsed time.Duration) time.Duration {
	if s.done < scheduleTrusts {
		return s.rest
	}
	return time.Duration(float64(s.rest) * float64(elapsed) / float64(s.done))
}

// percent is how much is done.
func (s schedule) percent() int {
	if s.done+s.rest <= 0 {
		return 0
	}
	return int(100 * s.done / (s.done + s.rest))
}
