package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sharing measures what shapers do between classes, flows and packets at 100 Mbit/s.
func (s *qosSystem) sharing(ctx context.Context) ([]string, error) {
	var rows []string
	row := func(format string, args ...any) {
		rows = append(rows, fmt.Sprintf("| %s | "+format+" |", append([]any{s.name}, args...)...))
	}
	if err := s.ceiling(100); err != nil {
		return rows, err
	}
	run, err := s.pull(ctx, qosPort, "-P", "16")
	if err != nil {
		return rows, err
	}
	var sum, squares float64
	for _, x := range run.streams {
		sum, squares = sum+x, squares+x*x
	}
	row("16 TCP flows | Jain's index %.4f, all %.2f Mbit/s", sum*sum/(float64(len(run.streams))*squares), sum/1e6)
	delays, err := s.sparse(ctx)
	if err != nil {
		return rows, err
	}
	row("ping beside 4 TCP flows at the ceiling | p50 %.2f ms, p95 %.2f ms, max %.2f ms of %d", delays[len(delays)/2], delays[len(delays)*95/100], delays[len(delays)-1], len(delays))
	if s.classes == nil {
		return rows, nil
	}
	if err := s.classes(); err != nil {
		return rows, err
	}
	type result struct {
		rate float64
		err  error
	}
	gold := make(chan result, 1)
	go func() {
		run, err := s.pull(ctx, qosSecond, "--dscp", "46")
		gold <- result{mean(run.seconds), err}
	}()
	run, err = s.pull(ctx, qosPort)
	g, rest := <-gold, mean(run.seconds)
	if err := errors.Join(err, g.err); err != nil {
		return rows, err
	}
	row("60/20 of 100 Mbit/s, one TCP flow each | %.2f and %.2f Mbit/s, %.2f in all", g.rate/1e6, rest/1e6, (g.rate+rest)/1e6)
	if run, err = s.pull(ctx, qosPort); err != nil {
		return rows, err
	}
	row("the class of 20 alone | %.2f Mbit/s of %.2f", mean(run.seconds)/1e6, 100*float64(s.mss)/float64(s.mtu+s.overhead))
	return rows, nil
}

// sparse returns the round trips of pings, sorted, in ms, while bulk fills the
// ceiling.
func (s *qosSystem) sparse(ctx context.Context) ([]float64, error) {
	done := make(chan error, 1)
	go func() {
		_, err := s.pull(ctx, qosPort, "-P", "4")
		done <- err
	}()
	// Its exit code says only that some were lost.
	text, _ := output(inside(ctx, s.lab.tag+"b", "ping", "-n", "-i", "0.02", "-c", "250", "-w", "6", s.addr))
	if err := <-done; err != nil {
		return nil, err
	}
	var out []float64
	for line := range strings.Lines(string(text)) {
		if _, after, ok := strings.Cut(line, "time="); ok {
			if ms, err := strconv.ParseFloat(strings.Fields(after)[0], 64); err == nil {
				out = append(out, ms)
			}
		}
	}
	if len(out) < 50 {
		return nil, fmt.Errorf("%d pings were answered", len(out))
	}
	out = out[len(out)/5:] // the bulk's start
	slices.Sort(out)
	return out, nil
}
