package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	// The sandbox ends with the thread that made it (PDEATHSIG): this one, which
	// lives as long as the program.
	runtime.LockOSThread()
	if known, err := runProbe(os.Args[1:]); known {
		exitWith(1, err)
	}
	o, err := parseOptions(os.Args[1:])
	if err != nil {
		exitWith(2, err)
	}
	if !inSandbox() {
		code, err := runSandboxed(os.Args[1:])
		if err != nil {
			exitWith(1, err)
		}
		os.Exit(code)
	}
	ctx, stop := untilInterrupted()
	defer stop()
	do := benchmark
	if len(o.stress.scenarios) > 0 {
		do = stress
	}
	err = errors.Join(enterSandbox(), do(ctx, o))
	if errors.Is(err, errGoalsMissed) {
		exitWith(3, err)
	}
	exitWith(1, err)
}

func exitWith(code int, err error) {
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, "peers:", err)
	os.Exit(code)
}

// options are the command line.
type options struct {
	plan
	mode    string
	tools   string
	results string
	budget  time.Duration
	only    []string
	stress  stressPlan
}

func parseOptions(args []string) (options, error) {
	var o options
	var quick bool
	var rounds int
	var only string
	f := flag.NewFlagSet("peers", flag.ContinueOnError)
	f.BoolVar(&quick, "quick", false, "the headline ratios, in three minutes")
	f.StringVar(&o.tools, "tools", ".cache/peers/bin:bin", "folders of the peers' programs and of slicewire")
	f.StringVar(&o.results, "results", "bench/results", "folder for the results; empty writes none")
	f.DurationVar(&o.budget, "budget", 0, "begin no system after this time (default 90m, quick 2m30s)")
	f.IntVar(&rounds, "rounds", 0, "number of rounds (default 5, quick 2)")
	f.DurationVar(&o.length, "length", 0, "length of a TCP run (default 3s)")
	f.StringVar(&only, "only", "", "only these systems, separated by commas")
	var scenario, mtus string
	f.StringVar(&scenario, "stress", "", "instead: put slicewire under stress, by \"overload\", \"mtu\" or \"all\"; exit code 3 if a goal is missed")
	f.DurationVar(&o.stress.overload, "stress-overload", time.Minute, "how long the overload lasts")
	f.StringVar(&mtus, "stress-mtus", waysDefault, "MTUs of the way between the sites, separated by commas; MIDDLE/ENDS where the sites' links are narrow too")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if err := o.stress.set(scenario, mtus); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	length := o.length
	o.plan, o.mode = fullPlan, "full"
	budget := 90 * time.Minute
	if quick {
		o.plan, o.mode, budget = quickPlan, "quick", 150*time.Second
	}
	if rounds > 0 {
		o.rounds = rounds
	}
	o.stress.stream = mtuStream
	if length > 0 {
		o.length = max(length.Round(time.Second), time.Second) // iperf3 knows seconds
		o.stress.stream = o.length
	}
	if o.budget == 0 {
		o.budget = budget
	}
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	return o, nil
}

// choose returns the systems of a run, and why the others are left out.
func choose(o options, tools toolbox) (chosen []system, left []string, err error) {
	all := systems()
	for _, name := range o.only {
		if !slices.ContainsFunc(all, func(s system) bool { return s.name == name }) {
			return nil, nil, fmt.Errorf("no system %q", name)
		}
	}
	for _, s := range all {
		switch missing := tools.missing(s); {
		case len(o.only) > 0 && !slices.Contains(o.only, s.name):
		case len(o.only) == 0 && o.mode == "quick" && !s.quick:
		case len(missing) > 0:
			left = append(left, fmt.Sprintf("%s: no %s", s.name, strings.Join(missing, ", ")))
		default:
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, left, errors.New("nothing to measure")
	}
	return chosen, left, nil
}

// benchmark measures all systems in interleaved rounds and writes the results.
func benchmark(ctx context.Context, o options) error {
	tools, err := newToolbox(o.tools)
	if err != nil {
		return err
	}
	chosen, left, err := choose(o, tools)
	if err != nil {
		return err
	}
	began := time.Now()
	say := sayer(began)
	res := &results{Mode: o.mode, Started: began.UTC(), Machine: describeMachine(), Left: left}
	for _, s := range chosen {
		res.Systems = append(res.Systems, described{s.name, s.about})
	}
	for _, l := range left {
		say("left out: %s", l)
	}
	say("%d systems, %d rounds, about %v, at most %v", len(chosen), o.rounds,
		(time.Duration(len(chosen)*o.rounds) * o.estimate()).Round(time.Second), o.budget)
	if m := res.Machine; m.Load1 > float64(m.CPUs)*foreignMax {
		say("the machine is busy: load %.2f on %d CPUs. Runs with more than %.2f CPUs of foreign work are marked.", m.Load1, m.CPUs, foreignMax)
	}
	broken := make(map[string]bool)
	for round := range o.rounds {
		for _, s := range chosen {
			if broken[s.name] {
				continue
			}
			if time.Since(began)+o.estimate() > o.budget {
				say("the time is up before %s of round %d", s.name, round+1)
				res.Cut = fmt.Sprintf("ended by its time limit of %v before %s of round %d", o.budget, s.name, round+1)
				return finish(res, o, say)
			}
			say("round %d of %d: %s", round+1, o.rounds, s.name)
			r, err := measureSystem(ctx, s, tools, o.plan, round, say)
			if ctx.Err() != nil {
				return errors.New("interrupted: everything was removed, no results are written")
			}
			if r != nil {
				res.Samples = append(res.Samples, r.out...)
				res.Failures = append(res.Failures, r.failed...)
			}
			if err != nil {
				say("%s: %v", s.name, err)
				res.Failures = append(res.Failures, failure{s.name, "start", round, err.Error()})
				broken[s.name] = true
			}
		}
	}
	return finish(res, o, say)
}

// sayer returns what prints a line of progress with the time since began.
func sayer(began time.Time) func(format string, args ...any) {
	return func(format string, args ...any) {
		fmt.Printf("%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// finish summarizes, prints and writes the results. A run in which anything of
// what was asked for could not be measured fails, after that.
func finish(res *results, o options, say func(string, ...any)) error {
	res.summarize()
	fmt.Printf("\n%s", headline(res))
	if o.results != "" {
		files, err := writeResults(res, o.results)
		if err != nil {
			return err
		}
		for _, f := range files {
			say("written: %s", f)
		}
	}
	if n := len(res.Failures); n > 0 {
		return fmt.Errorf("%d measures could not be taken; the first: %s %s: %s", n, res.Failures[0].System, res.Failures[0].Measure, res.Failures[0].Error)
	}
	return nil
}
