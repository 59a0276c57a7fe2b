package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// readyPatience is how long a system may take until the first echo.
const readyPatience = 45 * time.Second

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
}

var (
	fullPlan  = plan{rounds: 5, length: 3 * time.Second, streams: []int{1, 4, 16}, down: true, udp: []int{64, 1200}, udpTime: time.Second, ndrSteps: 7, pings: 200}
	quickPlan = plan{rounds: 2, length: 2 * time.Second, streams: []int{1}, pings: 100}
)

// estimate is what a round of one system takes, roughly, with start and stop.
func (p plan) estimate() time.Duration {
	directions := 1
	if p.down {
		directions = 2
	}
	d := 4*time.Second + time.Duration(len(p.streams)*directions+1)*(p.length+300*time.Millisecond)
	d += time.Duration(len(p.udp)*(1+p.ndrSteps)) * (p.udpTime + 400*time.Millisecond)
	return d + 2*time.Duration(p.pings)*10*time.Millisecond
}

// A runner measures one system in one round.
type runner struct {
	plan
	system string
	round  int
	lab    *lab
	joined *joined
	self   string
	say    func(format string, args ...any)
	out    []sample
	failed []failure
}

// A failure is a measure that could not be taken.
type failure struct {
	System  string `json:"system"`
	Measure string `json:"measure"`
	Round   int    `json:"round"`
	Error   string `json:"error"`
}

// measureSystem starts s, takes all measures of the plan and stops it. Its
// error says that the system could not be started or that ctx ended.
func measureSystem(ctx context.Context, s system, tools toolbox, p plan, round int, say func(string, ...any)) (r *runner, err error) {
	l, err := newLab()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r = &runner{plan: p, system: s.name, round: round, lab: l, self: tools.self, say: say}
	begin := time.Now()
	if r.joined, err = s.start(ctx, l, tools); err != nil {
		return r, fmt.Errorf("start: %w\n%s", err, l.logs())
	}
	if err := r.ready(ctx); err != nil {
		return r, fmt.Errorf("not ready after %v: %w\n%s", time.Since(begin).Round(time.Millisecond), err, l.logs())
	}
	for _, m := range r.measures() {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		if err := m.take(ctx); err != nil {
			r.failed = append(r.failed, failure{s.name, m.name, round, err.Error()})
			say("  %s: %v", m.name, err)
		}
		if err := l.anyEnded(); err != nil {
			return r, err
		}
	}
	return r, ctx.Err()
}

// ready starts the probes' servers and waits until an echo has come back.
func (r *runner) ready(ctx context.Context) error {
	if _, err := r.lab.start(r.joined.server, "iperf3", "iperf3", "-s", "-p", portIperf); err != nil {
		return err
	}
	if _, err := r.lab.start(r.joined.server, "servers", r.self, "probe-serve"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyPatience)
	defer cancel()
	var last error
	err := poll(ctx, 100*time.Millisecond, func() (bool, error) {
		try, cancel := context.WithTimeout(ctx, 4*time.Second)
		defer cancel()
		_, last = echoes(try, r.joined, r.self, 0)
		return last == nil, r.lab.anyEnded()
	})
	if err != nil {
		return errors.Join(err, last)
	}
	return nil
}

// A measure takes one or several values at once.
type measure struct {
	name string
	take func(context.Context) error
}

// measures lists what is taken, in order: memory before traffic, delays before
// load, TCP before UDP, so that the TCP peak is TCP's.
func (r *runner) measures() []measure {
	ms := []measure{{"rss_idle", r.takeIdle}, {"rtt_idle", r.takeRTTIdle}}
	for _, n := range r.streams {
		ms = append(ms, r.tcp(n, true))
		if r.down {
			ms = append(ms, r.tcp(n, false))
		}
	}
	ms = append(ms, measure{"rtt_load", r.takeRTTLoaded}, measure{"rss_peak", r.takePeak("rss_peak_tcp")})
	if r.joined.udp != "" {
		for _, size := range r.udp {
			ms = append(ms, r.overload(size))
			if r.ndrSteps > 0 {
				ms = append(ms, r.lossless(size))
			}
		}
		if len(r.udp) > 0 {
			ms = append(ms, measure{"rss_peak", r.takePeak("rss_peak")})
		}
	}
	return ms
}

func (r *runner) add(name string, value, foreign float64) {
	r.out = append(r.out, sample{r.system, name, r.round, value, foreign})
}

// during runs do and returns what daemons and machine spent meanwhile.
func (r *runner) during(do func() error) (spent, error) {
	before, err := measureUsage(r.joined.daemons)
	if err != nil {
		return spent{}, err
	}
	errDo := do()
	after, err := measureUsage(r.joined.daemons)
	return after.since(before), errors.Join(errDo, err)
}

func (r *runner) tcp(streams int, up bool) measure {
	name := fmt.Sprintf("tcp%d_down", streams)
	if up {
		name = fmt.Sprintf("tcp%d_up", streams)
	}
	return measure{name, func(ctx context.Context) error {
		var b bulkRun
		s, err := r.during(func() (err error) {
			b, err = bulk(ctx, r.joined, streams, up, r.length)
			return err
		})
		if err != nil {
			return err
		}
		gigabytes := float64(b.bytes) / 1e9
		r.add(name+".cpu_s_per_gb", s.daemons.Seconds()/gigabytes, s.foreign)
		r.add(name+".machine_cpu_s_per_gb", s.machine.Seconds()/gigabytes, s.foreign)
		r.add(name+".client_cpu_s_per_gb", b.client.Seconds()/gigabytes, s.foreign)
		r.add(name+".mbps", b.mbps(), s.foreign)
		r.add(name+".steal_s", s.steal.Seconds(), s.foreign)
		if b.retrans >= 0 {
			r.add(name+".retrans", float64(b.retrans), s.foreign)
		}
		r.say("  %-11s %8.0f Mbit/s %7.2f CPU-s/GB%s", name, b.mbps(), s.daemons.Seconds()/gigabytes, noisy(s.foreign))
		return nil
	}}
}

func noisy(foreign float64) string {
	if foreign <= foreignMax {
		return ""
	}
	return fmt.Sprintf("  (others used %.1f CPUs)", foreign)
}

func (r *runner) takeIdle(context.Context) error {
	largest, _, err := r.memory()
	r.add("rss_idle.mib", largest, 0)
	return err
}

func (r *runner) takePeak(name string) func(context.Context) error {
	return func(context.Context) error {
		_, peak, err := r.memory()
		r.add(name+".mib", peak, 0)
		return err
	}
}

// memory returns the largest daemon's resident memory, now and at most, in MiB.
func (r *runner) memory() (rss, peak float64, err error) {
	for _, d := range r.joined.daemons {
		now, most, err := memory(d.pid())
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", d.name, err)
		}
		rss, peak = max(rss, float64(now)/(1<<20)), max(peak, float64(most)/(1<<20))
	}
	return rss, peak, nil
}

// echoTime is how long the echo client asks: as long as the pings take.
func (r *runner) echoTime() time.Duration { return time.Duration(r.pings) * 10 * time.Millisecond }

func (r *runner) takeRTTIdle(ctx context.Context) error {
	return r.rtt(ctx, "idle")
}

func (r *runner) rtt(ctx context.Context, when string) error {
	var echo, icmp rtts
	s, err := r.during(func() (err error) {
		if r.joined.ping != "" {
			if icmp, err = ping(ctx, r.joined, r.pings); err != nil {
				return err
			}
		}
		echo, err = echoes(ctx, r.joined, r.self, r.echoTime())
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name string
		rtts
	}{{"ping_" + when, icmp}, {"echo_" + when, echo}} {
		if len(p.rtts) > 0 {
			r.add(p.name+".p50_us", p.micros(0.5), s.foreign)
			r.add(p.name+".p95_us", p.micros(0.95), s.foreign)
			r.add(p.name+".p99_us", p.micros(0.99), s.foreign)
		}
	}
	r.say("  rtt_%-7s %8.0f us%s", when, echo.micros(0.5), noisy(s.foreign))
	return nil
}

// loadSettles is how long a stream runs before round trips are taken beside it:
// its first moments are not what fills the queues.
const loadSettles = time.Second

// takeRTTLoaded takes round trips while one TCP stream fills the way.
func (r *runner) takeRTTLoaded(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	probes := r.echoTime()
	if r.joined.ping != "" {
		probes *= 2
	}
	load := make(chan error, 1)
	go func() {
		_, err := bulk(ctx, r.joined, 1, true, (loadSettles + probes + time.Second).Truncate(time.Second))
		load <- err
	}()
	settled := time.NewTimer(loadSettles)
	defer settled.Stop()
	select {
	case err := <-load:
		return errors.Join(err, errors.New("the load ended early"))
	case <-settled.C:
	}
	err := r.rtt(ctx, "load")
	if err != nil {
		cancel() // nobody needs the load any more
	}
	return errors.Join(err, <-load)
}

// overload sends as fast as one thread can.
func (r *runner) overload(size int) measure {
	name := fmt.Sprintf("udp%d", size)
	return measure{name, func(ctx context.Context) error {
		var u udpRun
		s, err := r.during(func() (err error) {
			u, err = udpStream(ctx, r.joined, r.self, size, 0, r.udpTime)
			return err
		})
		if err != nil {
			return err
		}
		r.add(name+".sent_kpps", float64(u.Sent)/u.Seconds/1e3, s.foreign)
		r.add(name+".kpps", float64(u.Received)/u.Seconds/1e3, s.foreign)
		r.add(name+".loss_percent", u.lossPercent(), s.foreign)
		if u.Received > 0 {
			r.add(name+".cpu_s_per_mpkt", s.daemons.Seconds()/(float64(u.Received)/1e6), s.foreign)
		}
		r.say("  %-11s %8.1f kpps of %.1f%s", name, float64(u.Received)/u.Seconds/1e3, float64(u.Sent)/u.Seconds/1e3, noisy(s.foreign))
		return nil
	}}
}

// lossMaxPercent is the loss up to which a rate counts as carried.
const lossMaxPercent = 1

// lossless searches for the highest rate that is carried.
func (r *runner) lossless(size int) measure {
	name := fmt.Sprintf("udp%d_ndr", size)
	return measure{name, func(ctx context.Context) error {
		var best float64
		s, err := r.during(func() (err error) {
			best, err = highestRate(20e3, lossMaxPercent, r.ndrSteps, func(rate float64) (float64, error) {
				u, err := udpStream(ctx, r.joined, r.self, size, rate, r.udpTime)
				if err == nil && float64(u.Sent) < 0.97*rate*u.Seconds {
					return 100, nil // the sender cannot keep up: not a rate of the system
				}
				return u.lossPercent(), err
			})
			return err
		})
		if err != nil {
			return err
		}
		r.add(name+".kpps", best/1e3, s.foreign)
		r.say("  %-11s %8.1f kpps at <= %d %% loss%s", name, best/1e3, lossMaxPercent, noisy(s.foreign))
		return nil
	}}
}
