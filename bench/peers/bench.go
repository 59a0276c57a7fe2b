package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A bench is one run over all systems.
type bench struct {
	options
	tools   toolbox
	systems []system // that can still be measured
	res     *results
	began   time.Time
	pace    schedule
	say     func(format string, args ...any)
}

// benchmark measures all systems round by round and writes the results.
func benchmark(ctx context.Context, o options) error {
	tools, err := newToolbox(o.tools)
	if err != nil {
		return err
	}
	chosen, missing, err := choose(o, tools)
	if err != nil {
		return err
	}
	b := &bench{options: o, tools: tools, systems: chosen, began: time.Now()}
	b.say = sayer(b.began)
	b.res = &results{Mode: o.mode, Started: b.began.UTC(), Machine: describeMachine(), Unavailable: missing}
	for _, s := range systems() {
		if slices.ContainsFunc(chosen, func(c system) bool { return c.name == s.name }) || b.res.unavailable(s.name) != "" {
			b.res.Systems = append(b.res.Systems, described{s.name, s.about})
		}
	}
	for _, m := range missing {
		b.say("%s is unavailable: %s", m.Name, m.Why)
	}
	b.say("%d systems, %d rounds, about %v, at most %v", len(chosen), o.rounds, (time.Duration(o.rounds) * o.roundLasts(chosen)).Round(time.Second), o.budget)
	if m := b.res.Machine; m.Load1 > float64(m.CPUs)*foreignMax {
		b.say("the machine is busy: load %.2f on %d CPUs. Runs with more than %.2f CPUs of foreign work are marked.", m.Load1, m.CPUs, foreignMax)
	}
	for n := 0; n < o.rounds && b.res.Cut == ""; n++ {
		b.round(ctx, n)
		if ctx.Err() != nil {
			return errors.New("interrupted: everything was removed, no results are written")
		}
	}
	return b.finish()
}

// round starts all systems, takes each test of one after the other, and stops
// them. What is compared is measured within seconds, not minutes, of each
// other: a shared machine's speed drifts. Systems that wait cost nothing that
// is counted: CPU time is each daemon's own.
func (b *bench) round(ctx context.Context, n int) {
	runners := make([]*runner, len(b.systems))
	for i, s := range b.systems {
		runners[i] = &runner{plan: b.of(s), system: s, round: n, self: b.tools.self, say: b.say}
	}
	b.say("round %d of %d: starting %d systems", n+1, b.rounds, len(runners))
	together(runners, func(r *runner) { r.start(ctx, b.tools) })
	b.pace.done += startsLast(len(runners))
	if ctx.Err() == nil {
		b.leaveOut(runners, n)
		b.tests(ctx, inTurn(runners, n), n)
	}
	var mu sync.Mutex // guards stopped
	var stopped []failure
	together(runners, func(r *runner) {
		if err := r.stop(); err != nil {
			mu.Lock()
			defer mu.Unlock()
			stopped = append(stopped, failure{r.system.name, "stop", n, err.Error()})
		}
	})
	for _, r := range runners {
		b.res.Samples = append(b.res.Samples, r.out...)
		b.res.Failures = append(b.res.Failures, r.failed...)
	}
	b.res.Failures = append(b.res.Failures, stopped...)
}

// inTurn returns the order of round n. Every other round goes the other way,
// A B B A: a drift of the machine then favours nobody.
func inTurn(runners []*runner, n int) []*runner {
	turn := slices.Clone(runners)
	if n%2 == 1 {
		slices.Reverse(turn)
	}
	return turn
}

// tests takes every test of every system, until the time is up.
func (b *bench) tests(ctx context.Context, runners []*runner, n int) {
	tests := b.plan.tests()
	for i, t := range tests {
		lasts, elapsed := testsLast(tests[i:i+1], runners), time.Since(b.began)
		b.pace.rest = testsLast(tests[i:], runners) + time.Duration(b.rounds-n-1)*b.roundLasts(b.systems)
		if elapsed+lasts > b.budget {
			b.res.Cut = fmt.Sprintf("ended by its time limit of %v before %s of round %d", b.budget, t.name, n+1)
			b.say("%s", b.res.Cut)
			return
		}
		left := b.pace.left(elapsed)
		b.say("%s (round %d of %d; %d %% done, about %v left, until %s)", t.name, n+1, b.rounds,
			b.pace.percent(), left.Round(time.Second), time.Now().Add(left).Format("15:04:05"))
		for _, r := range runners {
			if ctx.Err() != nil {
				return
			}
			own, ok := r.own(t)
			if !ok {
				continue
			}
			r.take(ctx, own)
			if r.fault != nil && ctx.Err() == nil {
				b.leaveOut(runners, n)
			}
		}
		b.pace.done += lasts
	}
}

// testsLast is about how long these tests take of the systems that are left.
func testsLast(tests []test, runners []*runner) (d time.Duration) {
	for _, t := range tests {
		for _, r := range runners {
			d += r.lasts(t)
		}
	}
	return d
}

// leaveOut takes the systems with a fault out of the run. A peer that cannot be
// started at all is unavailable here; anything else is a failure of the run.
func (b *bench) leaveOut(runners []*runner, n int) {
	for _, r := range runners {
		i := slices.IndexFunc(b.systems, func(s system) bool { return s.name == r.system.name })
		if r.fault == nil || i < 0 {
			continue
		}
		b.systems = slices.Delete(b.systems, i, i+1)
		b.say("%s: %v", r.system.name, r.fault)
		if n == 0 && len(r.out) == 0 && !r.system.ours() {
			b.res.Unavailable = append(b.res.Unavailable, absence{r.system.name, firstLine(r.fault)})
			continue
		}
		b.res.Failures = append(b.res.Failures, failure{r.system.name, "start", n, r.fault.Error()})
	}
}

// firstLine is the first line of what err says, and the next one where the first
// announces it.
func firstLine(err error) string {
	line, rest, _ := strings.Cut(err.Error(), "\n")
	if strings.HasSuffix(line, ":") {
		next, _, _ := strings.Cut(rest, "\n")
		line += " " + next
	}
	return line
}

// together does something with all runners, a few at a time, and waits.
func together(runners []*runner, do func(*runner)) {
	var all sync.WaitGroup
	slots := make(chan struct{}, startsAtOnce)
	for _, r := range runners {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			do(r)
		})
	}
	all.Wait()
}

// finish summarizes, prints and writes the results. A run in which anything of
// what was asked for could not be measured fails, after that.
func (b *bench) finish() error {
	res := b.res
	res.summarize()
	fmt.Printf("\n%s", terminal(res))
	if b.results != "" {
		files, err := writeResults(res, b.results)
		if err != nil {
			return err
		}
		for _, f := range files {
			b.say("written: %s", f)
		}
	}
	if n := len(res.Failures); n > 0 {
		return fmt.Errorf("%d measures could not be taken; the first: %s %s: %s", n, res.Failures[0].System, res.Failures[0].Measure, res.Failures[0].Error)
	}
	return nil
}
