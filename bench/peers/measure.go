package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// readyPatience is how long a system may take until the first echo.
const readyPatience = 45 * time.Second

// A runner measures one system in one round.
type runner struct {
	plan
	system system
	round  int
	lab    *lab
	joined *joined
	self   string
	say    func(format string, args ...any)
	fault  error // why nothing more is taken of this system
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

// start starts the system and waits until it answers; its fault says why not.
func (r *runner) start(ctx context.Context, tools toolbox) {
	begin := time.Now()
	if r.lab, r.fault = newLab(r.system.name + "."); r.fault != nil {
		return
	}
	if r.joined, r.fault = r.system.start(ctx, r.lab, tools); r.fault != nil {
		r.fault = fmt.Errorf("start: %w\n%s", r.fault, r.lab.logs())
		return
	}
	r.joined.tag = r.lab.tag
	if r.fault = r.ready(ctx); r.fault != nil {
		r.fault = fmt.Errorf("not ready after %v: %w\n%s", time.Since(begin).Round(time.Millisecond), r.fault, r.lab.logs())
	}
}

// stop ends what start started, whatever came of it.
func (r *runner) stop() error {
	if r.lab == nil {
		return nil
	}
	return r.lab.close()
}

// own returns the system's own form of a test of the run's plan, which may be
// shorter; ok is false if it is not part of what is measured of the system.
func (r *runner) own(t test) (own test, ok bool) {
	if r.fault != nil {
		return test{}, false
	}
	tests := r.tests()
	i := slices.IndexFunc(tests, func(own test) bool { return own.name == t.name })
	if i < 0 {
		return test{}, false
	}
	return tests[i], true
}

// lasts is about how long t takes of the system: no time if it is not taken.
func (r *runner) lasts(t test) time.Duration {
	own, _ := r.own(t)
	return own.lasts
}

// take runs one test. What it could not take is a failure; a daemon that ended
// is a fault.
func (r *runner) take(ctx context.Context, t test) {
	if err := t.take(r, ctx); err != nil && ctx.Err() == nil {
		r.failed = append(r.failed, failure{r.system.name, t.name, r.round, err.Error()})
		r.say("  %-20s %s: %v", r.system.name, t.name, err)
	}
	r.fault = r.lab.anyEnded()
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

func (r *runner) add(name string, value, foreign float64) {
	r.out = append(r.out, sample{r.system.name, name, r.round, value, foreign})
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

func takeTCP(name string, streams int, up bool) func(*runner, context.Context) error {
	return func(r *runner, ctx context.Context) error {
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
		r.say("  %-20s %8.0f Mbit/s %7.2f CPU-s/GB%s", r.system.name, b.mbps(), s.daemons.Seconds()/gigabytes, noisy(s.foreign))
		return nil
	}
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

func takePeak(name string) func(*runner, context.Context) error {
	return func(r *runner, _ context.Context) error {
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
	r.say("  %-20s %8.0f us%s", r.system.name, echo.micros(0.5), noisy(s.foreign))
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

// takeOverload sends as fast as one thread can.
func takeOverload(name string, size int) func(*runner, context.Context) error {
	return func(r *runner, ctx context.Context) error {
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
		r.say("  %-20s %8.1f kpps of %.1f%s", r.system.name, float64(u.Received)/u.Seconds/1e3, float64(u.Sent)/u.Seconds/1e3, noisy(s.foreign))
		return nil
	}
}

// lossMaxPercent is the loss up to which a rate counts as carried.
const lossMaxPercent = 1

// takeLossless searches for the highest rate that is carried.
func takeLossless(name string, size int) func(*runner, context.Context) error {
	return func(r *runner, ctx context.Context) error {
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
		r.say("  %-20s %8.1f kpps at <= %d %% loss%s", r.system.name, best/1e3, lossMaxPercent, noisy(s.foreign))
		return nil
	}
}
