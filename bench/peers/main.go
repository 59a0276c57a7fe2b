package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
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
	switch {
	case len(o.stress.scenarios) > 0:
		do = stress
	case o.qos:
		do = qosBench
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
	qos     bool

	qosRates []int // Mbit/s
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
	f.DurationVar(&o.budget, "budget", 0, "begin no test that would end after this time (default 55m, quick 2m50s)")
	f.IntVar(&rounds, "rounds", 0, "number of rounds (default 5, quick 3)")
	f.DurationVar(&o.length, "length", 0, "length of a TCP run (default 3s)")
	f.StringVar(&only, "only", "", "only these systems, separated by commas")
	f.BoolVar(&o.qos, "qos", false, "instead: how exactly slicewire and the kernel's tbf and htb shape, in five minutes")
	var scenario, mtus, rates string
	f.StringVar(&rates, "qos-rates", qosRates, "ceilings of a -qos run, in Mbit/s, separated by commas")
	f.StringVar(&scenario, "stress", "", "instead: put slicewire under stress, by \"overload\", \"mtu\" or \"all\"; exit code 3 if a goal is missed")
	f.DurationVar(&o.stress.overload, "stress-overload", time.Minute, "how long the overload lasts")
	f.StringVar(&mtus, "stress-mtus", waysDefault, "MTUs of the way between the sites, separated by commas; MIDDLE/ENDS where the sites' links are narrow too")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if err := o.stress.set(scenario, mtus); err != nil {
		return o, err
	}
	for text := range strings.SplitSeq(rates, ",") {
		mbit, err := strconv.Atoi(text)
		if err != nil || mbit < 1 || mbit > 100_000 {
			return o, fmt.Errorf("rate %q: not a number of Mbit/s from 1 to 100000", text)
		}
		o.qosRates = append(o.qosRates, mbit)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	length := o.length
	o.plan, o.mode = fullPlan, "full"
	budget := 55 * time.Minute
	if quick {
		o.plan, o.mode, budget = quickPlan, "quick", 170*time.Second
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

// choose returns the systems of a run, and those that lack a program.
func choose(o options, tools toolbox) (chosen []system, missing []absence, err error) {
	all := systems()
	for _, name := range o.only {
		if !slices.ContainsFunc(all, func(s system) bool { return s.name == name }) {
			return nil, nil, fmt.Errorf("no system %q", name)
		}
	}
	for _, s := range all {
		switch none := tools.missing(s); {
		case len(o.only) > 0 && !slices.Contains(o.only, s.name):
		case len(o.only) == 0 && o.mode == "quick" && !s.quick:
		case len(none) > 0:
			missing = append(missing, absence{s.name, "no " + strings.Join(none, ", ")})
		default:
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, missing, errors.New("nothing to measure")
	}
	return chosen, missing, nil
}

// sayer returns what prints a line of progress with the time since began.
func sayer(began time.Time) func(format string, args ...any) {
	return func(format string, args ...any) {
		fmt.Printf("%7.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}
