package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	qosWarm   = 2 // s of each run that do not count: TCP's start
	qosCounts = 4 // s that do, each for itself
	qosDevice = "to-b"
	qosPort   = "5298" // of iperf3; slicewire itself listens on the one that other benchmarks use
	qosSecond = "5297" // of a second one
	// What UDP is offered above the rate.
	qosFlood = 1.2
)

// qosRates are the ceilings, in Mbit/s.
const qosRates = "1,10,100,500,2000"

// A qosSystem is a shaper under test: everything leaves site a, which shapes.
type qosSystem struct {
	name string
	lab  *lab
	addr string // of site a, for b
	// overhead is what is charged for a packet beside its IP length, mss the data
	// in a full TCP segment and mtu the longest packet.
	overhead, mss, mtu int
	ceiling            func(mbit int) error
	classes            func() error // 60/20 of 100 Mbit/s, by DSCP EF and AF11; nil: it has none
}

// qosBench measures how exactly slicewire and the kernel's tbf and htb shape, one
// after another at each rate, and prints a table.
func qosBench(ctx context.Context, o options) error {
	tools, err := newToolbox(o.tools)
	if err != nil {
		return err
	}
	say := sayer(time.Now())
	var systems []*qosSystem
	defer func() {
		for _, s := range systems {
			_ = s.lab.close() // what is left is the sandbox's, which ends
		}
	}()
	for _, open := range []func(context.Context, toolbox) (*qosSystem, error){openTBF, openHTB, openShaper} {
		s, err := open(ctx, tools)
		if err != nil {
			return err
		}
		systems = append(systems, s)
		for _, port := range []string{qosPort, qosSecond} {
			// Bound to an IPv4 address: else its socket is IPv6's, and sets no DSCP on IPv4.
			if _, err := s.lab.start("a", "iperf3-"+port, "iperf3", "-s", "-p", port, "-B", s.addr); err != nil {
				return err
			}
		}
	}
	m := describeMachine()
	var out strings.Builder
	fmt.Fprintf(&out, "%s, %d CPUs, load %.1f at the start, %s\n\n| shaper | case | goodput Mbit/s | expected | error, mean | worst second |\n|---|---|---|---|---|---|\n",
		m.Kernel, m.CPUs, m.Load1, time.Now().UTC().Format("2006-01-02"))
	var errs []error
	for _, mbit := range o.qosRates {
		for _, udp := range []bool{false, true} {
			for _, s := range systems {
				row, err := s.accuracy(ctx, mbit, udp)
				if ctx.Err() != nil {
					return errors.New("interrupted")
				}
				if err != nil {
					errs = append(errs, fmt.Errorf("%s at %d Mbit/s: %w", s.name, mbit, err))
					say("%v", errs[len(errs)-1])
					continue
				}
				say("%s", row)
				out.WriteString(row + "\n")
			}
		}
	}
	out.WriteString("\n| shaper | case | figures |\n|---|---|---|\n")
	for _, s := range systems {
		rows, err := s.sharing(ctx)
		errs = append(errs, err)
		for _, row := range rows {
			say("%s", row)
			out.WriteString(row + "\n")
		}
		if err != nil {
			say("%s: %v", s.name, err)
		}
	}
	fmt.Printf("\n%s", out.String())
	if o.results != "" {
		errs = append(errs, os.MkdirAll(o.results, 0o755), os.WriteFile(filepath.Join(o.results, "qos.md"), []byte(out.String()), 0o644))
	}
	return errors.Join(errs...)
}

func openPlain() (*lab, error) {
	l, err := newLab(fmt.Sprintf("q%d-", time.Now().UnixNano()%1e6))
	if err != nil {
		return nil, err
	}
	return l, l.sites()
}

// tc runs tc in site a.
func (l *lab) tc(args string) error {
	return run("tc", append([]string{"-n", l.tag + "a"}, strings.Fields(args)...)...)
}

func openTBF(context.Context, toolbox) (*qosSystem, error) {
	l, err := openPlain()
	if err != nil {
		return nil, err
	}
	return &qosSystem{name: "tbf", lab: l, addr: underlayA, overhead: 14, mss: 1448, mtu: 1500, ceiling: func(mbit int) error {
		return l.tc(fmt.Sprintf("qdisc replace dev %s root tbf rate %dmbit burst %d latency 50ms", qosDevice, mbit, max(8000, mbit*1e6/8/200)))
	}}, nil
}

func openHTB(context.Context, toolbox) (*qosSystem, error) {
	l, err := openPlain()
	if err != nil {
		return nil, err
	}
	commands := func(lines ...string) error {
		_ = run("tc", "-n", l.tag+"a", "qdisc", "del", "dev", qosDevice, "root") // the first time there is none
		for _, line := range lines {
			if err := l.tc(line); err != nil {
				return err
			}
		}
		return nil
	}
	const d = " dev " + qosDevice
	return &qosSystem{name: "htb", lab: l, addr: underlayA, overhead: 14, mss: 1448, mtu: 1500,
		ceiling: func(mbit int) error {
			return commands("qdisc add"+d+" root handle 1: htb default 1", fmt.Sprintf("class add%s parent 1: classid 1:1 htb rate %dmbit ceil %dmbit", d, mbit, mbit))
		},
		classes: func() error {
			return commands("qdisc add"+d+" root handle 1: htb default 20", "class add"+d+" parent 1: classid 1:1 htb rate 100mbit ceil 100mbit",
				"class add"+d+" parent 1:1 classid 1:10 htb rate 60mbit ceil 100mbit", "class add"+d+" parent 1:1 classid 1:20 htb rate 20mbit ceil 100mbit",
				"filter add"+d+" parent 1: protocol ip u32 match ip tos 0xb8 0xfc flowid 1:10")
		}}, nil
}

func openShaper(ctx context.Context, tools toolbox) (*qosSystem, error) {
	l, err := newLab(fmt.Sprintf("q%d-", time.Now().UnixNano()%1e6))
	if err != nil {
		return nil, err
	}
	program := tools.find("slicewire")
	if _, err := startSlicewire(ctx, l, program, 1); err != nil {
		return nil, err
	}
	for _, site := range []string{"a", "b"} {
		if _, err := slicewireAttach(ctx, l, program, site, 1, site); err != nil {
			return nil, err
		}
	}
	said, err := output(inside(ctx, l.tag+"a", "ip", "-4", "-o", "addr", "show", "dev", "sw0"))
	if err != nil {
		return nil, err
	}
	f := strings.Fields(string(said)) // 2: sw0    inet 10.101.0.9/32 ...
	if len(f) < 4 {
		return nil, fmt.Errorf("no address in %q", said)
	}
	addr, _, _ := strings.Cut(f[3], "/")
	// set has the running daemons take another ceiling, and classes.
	set := func(kbit, guaranteed int, classes string) error {
		text := strings.Replace(slicewireManifests(1), "bandwidthCeilingKbps: 10000000, bandwidthGuaranteedKbps: 1000000",
			fmt.Sprintf("bandwidthCeilingKbps: %d, bandwidthGuaranteedKbps: %d", kbit, guaranteed), 1)
		if err := os.WriteFile(filepath.Join(l.path("manifests"), "bench.yaml"), []byte(text+classes), 0o600); err != nil {
			return err
		}
		return errors.Join(run(program, "reload", "--socket", l.path("a.sock")), run(program, "reload", "--socket", l.path("b.sock")))
	}
	return &qosSystem{name: "slicewire", lab: l, addr: addr, overhead: 60, mss: 1368, mtu: 1420,
		ceiling: func(mbit int) error { return set(mbit*1000, mbit*500, "") },
		classes: func() error {
			return set(100000, 80000, `---
apiVersion: slicewire.io/v1alpha1
kind: SliceClasses
metadata: {name: slice-1}
spec:
  slice: slice-1
  classes:
  - {name: gold, dscp: [EF], bandwidthGuaranteedKbps: 60000}
  - {name: rest, bandwidthGuaranteedKbps: 20000}
`)
		}}, nil
}

// pull has site b fetch from a by iperf3 and returns the bits a second of each
// second that counts, and of each stream over all of them.
func (s *qosSystem) pull(ctx context.Context, port string, args ...string) (seconds, streams []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, (qosWarm+qosCounts+20)*time.Second)
	defer cancel()
	args = append([]string{"-c", s.addr, "-p", port, "-R", "-J", "-i", "1", "-t", fmt.Sprint(qosWarm + qosCounts)}, args...)
	text, err := output(inside(ctx, s.lab.tag+"b", "iperf3", args...))
	if err != nil {
		return nil, nil, err
	}
	return parseQoS(text)
}

// parseQoS reads the intervals of iperf3's JSON after qosWarm. A last one that is
// no second is not counted.
func parseQoS(text []byte) (seconds, streams []float64, err error) {
	type part struct {
		Start, Seconds float64
		Bytes          float64
	}
	var r struct {
		Intervals []struct {
			Streams []part
			Sum     part
		}
		Error string
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, nil, fmt.Errorf("iperf3: %w", err)
	}
	if r.Error != "" {
		return nil, nil, fmt.Errorf("iperf3: %s", r.Error)
	}
	for _, i := range r.Intervals {
		if i.Sum.Start < qosWarm-0.1 || i.Sum.Seconds < 0.9 {
			continue
		}
		seconds = append(seconds, i.Sum.Bytes*8/i.Sum.Seconds)
		for j, x := range i.Streams {
			if len(streams) <= j {
				streams = append(streams, 0)
			}
			streams[j] += x.Bytes * 8
		}
	}
	if len(seconds) == 0 {
		return nil, nil, errors.New("iperf3: no second was measured")
	}
	for j := range streams {
		streams[j] /= float64(len(seconds))
	}
	return seconds, streams, nil
}

// accuracy compares the goodput at a ceiling with what the ceiling leaves to data.
func (s *qosSystem) accuracy(ctx context.Context, mbit int, udp bool) (string, error) {
	if err := s.ceiling(mbit); err != nil {
		return "", err
	}
	part, protocol := float64(s.mss)/float64(s.mtu+s.overhead), "TCP"
	var args []string
	if udp {
		size := 1372
		if mbit == 1 {
			size = 400 // else a packet is more than 1 % of a second's
		}
		part, protocol = float64(size)/float64(size+28+s.overhead), "UDP"
		args = []string{"-u", "-l", strconv.Itoa(size), "-b", fmt.Sprintf("%.0f", float64(mbit)*1e6*qosFlood)}
	}
	seconds, _, err := s.pull(ctx, qosPort, args...)
	if err != nil {
		return "", err
	}
	want := float64(mbit) * 1e6 * part
	got, worst := mean(seconds), 0.0
	for _, x := range seconds {
		if e := x/want - 1; math.Abs(e) > math.Abs(worst) {
			worst = e
		}
	}
	return fmt.Sprintf("| %s | %d Mbit/s %s | %.3f | %.3f | %+.2f %% | %+.2f %% |", s.name, mbit, protocol, got/1e6, want/1e6, 100*(got/want-1), 100*worst), nil
}

func mean(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(1, len(x)))
}

// sharing measures what shapers do between classes, flows and packets at 100 Mbit/s.
func (s *qosSystem) sharing(ctx context.Context) ([]string, error) {
	var rows []string
	row := func(format string, args ...any) {
		rows = append(rows, fmt.Sprintf("| %s | "+format+" |", append([]any{s.name}, args...)...))
	}
	if err := s.ceiling(100); err != nil {
		return rows, err
	}
	_, streams, err := s.pull(ctx, qosPort, "-P", "16")
	if err != nil {
		return rows, err
	}
	var sum, squares float64
	for _, x := range streams {
		sum, squares = sum+x, squares+x*x
	}
	row("16 TCP flows | Jain's index %.4f, all %.2f Mbit/s", sum*sum/(float64(len(streams))*squares), sum/1e6)
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
		seconds, _, err := s.pull(ctx, qosSecond, "--dscp", "46")
		gold <- result{mean(seconds), err}
	}()
	seconds, _, err := s.pull(ctx, qosPort)
	g := <-gold
	if err := errors.Join(err, g.err); err != nil {
		return rows, err
	}
	row("60/20 of 100 Mbit/s, one TCP flow each | %.2f and %.2f Mbit/s, %.2f in all", g.rate/1e6, mean(seconds)/1e6, (g.rate+mean(seconds))/1e6)
	if seconds, _, err = s.pull(ctx, qosPort); err != nil {
		return rows, err
	}
	row("the class of 20 alone | %.2f Mbit/s of %.2f", mean(seconds)/1e6, 100*float64(s.mss)/float64(s.mtu+s.overhead))
	return rows, nil
}

// sparse returns the round trips of pings, sorted, in ms, while bulk fills the
// ceiling.
func (s *qosSystem) sparse(ctx context.Context) ([]float64, error) {
	done := make(chan error, 1)
	go func() {
		_, _, err := s.pull(ctx, qosPort, "-P", "4")
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
