package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A stressPlan says which scenarios are played, and how.
type stressPlan struct {
	scenarios []string // none: this is no stress run
	overload  time.Duration
	mtus      []int
	stream    time.Duration // of TCP at each MTU
}

// errGoalsMissed says that everything was measured and that some of it is not
// as good as it has to be.
var errGoalsMissed = errors.New("a goal is missed")

// The smallest MTU that IPv4 allows is 68; below the minimum that every host
// takes, 576, nobody has a link. The largest is that of jumbo frames.
const (
	pathMTUMin = 576
	pathMTUMax = jumboMTU
)

// set reads the scenarios and the MTUs of the command line.
func (p *stressPlan) set(scenario, mtus string) error {
	all := []string{"overload", "mtu"}
	switch {
	case scenario == "":
		return nil
	case scenario == "all":
		p.scenarios = all
	case slices.Contains(all, scenario):
		p.scenarios = []string{scenario}
	default:
		return fmt.Errorf("no scenario %q", scenario)
	}
	if p.overload < time.Second {
		return fmt.Errorf("an overload of %v is too short", p.overload)
	}
	for text := range strings.SplitSeq(mtus, ",") {
		mtu, err := strconv.Atoi(text)
		if err != nil || mtu < pathMTUMin || mtu > pathMTUMax {
			return fmt.Errorf("MTU %q is not between %d and %d", text, pathMTUMin, pathMTUMax)
		}
		p.mtus = append(p.mtus, mtu)
	}
	return nil
}

// A goal is a limit that a figure must not exceed.
type goal struct {
	Scenario string  `json:"scenario"`
	What     string  `json:"what"`
	Value    float64 `json:"value"`
	Limit    float64 `json:"limit"`
	Unit     string  `json:"unit"`
	Met      bool    `json:"met"`
}

func newGoal(scenario, what string, value, limit float64, unit string) goal {
	return goal{scenario, what, value, limit, unit, value <= limit}
}

// stress plays the scenarios of the plan and writes what they found.
func stress(ctx context.Context, o options) error {
	tools, err := newToolbox(o.tools)
	if err != nil {
		return err
	}
	report := &stressReport{Started: time.Now().UTC(), Machine: describeMachine()}
	say := sayer(time.Now())
	var errs []error
	for _, name := range o.stress.scenarios {
		switch name {
		case "overload":
			var found *overloadReport
			found, err = overloadSlices(ctx, tools, o.stress.overload, say)
			report.Overload = found
		case "mtu":
			var found *mtuReport
			found, err = climbMTUs(ctx, tools, o.stress.mtus, o.stress.stream, say)
			report.MTU = found
		}
		if ctx.Err() != nil {
			return errors.New("interrupted: everything was removed, no results are written")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(append(errs, report.finish(o, say))...)
}
