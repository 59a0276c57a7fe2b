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
	ways      []way
	stream    time.Duration // of TCP at each MTU
}

// errGoalsMissed says that everything was measured and that some of it is not
// as good as it has to be.
var errGoalsMissed = errors.New("a goal is missed")

// A way between two sites is as wide as its narrowest link.
type way struct {
	between int // MTU of the link between the routers
	ends    int // MTU of the sites' own links
}

func (w way) String() string {
	if w.ends == jumboMTU {
		return strconv.Itoa(w.between)
	}
	return fmt.Sprintf("%d/%d", w.between, w.ends)
}

// parseWay reads the MTU of the middle, and that of the ends if it follows.
func parseWay(text string) (way, error) {
	between, ends, two := strings.Cut(text, "/")
	if !two {
		ends = strconv.Itoa(jumboMTU)
	}
	var w way
	var errBetween, errEnds error
	w.between, errBetween = strconv.Atoi(between)
	w.ends, errEnds = strconv.Atoi(ends)
	if err := errors.Join(errBetween, errEnds); err != nil {
		return w, fmt.Errorf("MTU %q: %w", text, err)
	}
	if min(w.between, w.ends) < pathMTUMin || max(w.between, w.ends) > jumboMTU {
		return w, fmt.Errorf("MTU %q: not between %d and %d", text, pathMTUMin, jumboMTU)
	}
	return w, nil
}

// pathMTUMin is what every host takes over IPv4; nobody has a narrower link.
const pathMTUMin = 576

// waysDefault are the minima of IPv4 and IPv6, of PPPoE, of clouds and tunnels,
// and a site whose own link is narrow, as that of a pod is.
const waysDefault = "576,1000,1280,1400,1420,1492,1500,9000,1400/1400"

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
	if p.overload < overloadMin {
		return fmt.Errorf("an overload of %v is too short", p.overload)
	}
	for text := range strings.SplitSeq(mtus, ",") {
		w, err := parseWay(text)
		if err != nil {
			return err
		}
		p.ways = append(p.ways, w)
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
			found, err = climbMTUs(ctx, tools, o.stress.ways, o.stress.stream, say)
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
