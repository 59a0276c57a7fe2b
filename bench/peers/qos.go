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
	"syscall"
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
	name    string
	lab     *lab
	addr    string // of site a, for b
	control string // TCP's congestion control
	// overhead is what is charged for a packet beside its IP length, mss the data
	// in a full TCP segment and mtu the longest packet.
	overhead, mss, mtu int
	fills              bool // packets below 1280 bytes are filled up to a multiple of 16, and that is charged
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
	for _, x := range []struct {
		name string
		open func(context.Context, toolbox, int) (*qosSystem, error)
	}{{"tbf", openTBF}, {"htb", openHTB}, {"slicewire", openShaper}} {
		if len(o.only) > 0 && !slices.Contains(o.only, x.name) {
			continue
		}
		s, err := x.open(ctx, tools, o.qosNice)
		if err != nil {
			return err
		}
		s.control = o.qosControl
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
	fmt.Fprintf(&out, "%s, %d CPUs, load %.1f at the start, %s\n\n| shaper | case | goodput Mbit/s | expected | error, mean | worst second | resent | timers late: p99, max | CPUs busy, others' |\n|---|---|---|---|---|---|---|---|---|\n",
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
		if !o.qosSharing {
			break
		}
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

func openTBF(context.Context, toolbox, int) (*qosSystem, error) {
	l, err := openPlain()
	if err != nil {
		return nil, err
	}
	return &qosSystem{name: "tbf", lab: l, addr: underlayA, overhead: 14, mss: 1448, mtu: 1500, ceiling: func(mbit int) error {
		return l.tc(fmt.Sprintf("qdisc replace dev %s root tbf rate %dmbit burst %d latency 50ms", qosDevice, mbit, max(8000, mbit*1e6/8/200)))
	}}, nil
}

func openHTB(context.Context, toolbox, int) (*qosSystem, error) {
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

func openShaper(ctx context.Context, tools toolbox, nice int) (*qosSystem, error) {
	l, err := newLab(fmt.Sprintf("q%d-", time.Now().UnixNano()%1e6))
	if err != nil {
		return nil, err
	}
	program := tools.find("slicewire")
	daemons, err := startSlicewire(ctx, l, program, 1, guardUsual)
	if err != nil {
		return nil, err
	}
	if nice != 0 {
		for _, d := range daemons {
			if err := d.renice(nice); err != nil {
				return nil, err
			}
		}
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
		text := strings.Replace(slicewireManifests(1, guardUsual), "bandwidthCeilingKbps: 10000000, bandwidthGuaranteedKbps: 1000000",
			fmt.Sprintf("bandwidthCeilingKbps: %d, bandwidthGuaranteedKbps: %d", kbit, guaranteed), 1)
		if err := os.WriteFile(filepath.Join(l.path("manifests"), "bench.yaml"), []byte(text+classes), 0o600); err != nil {
			return err
		}
		return errors.Join(run(program, "reload", "--socket", l.path("a.sock")), run(program, "reload", "--socket", l.path("b.sock")))
	}
	return &qosSystem{name: "slicewire", lab: l, addr: addr, overhead: 60, mss: 1368, mtu: 1420, fills: true,
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

// A qosRun is what one run of iperf3 said.
type qosRun struct {
	seconds []float64 // bits a second of each second that counts
	streams []float64 // the same of each stream over all of them
	resent  int       // TCP segments that were sent again in all of it
}

// renice gives a daemon, all its threads, another priority for the CPU.
func (d *daemon) renice(nice int) error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", d.pid()))
	for _, t := range threads {
		tid, e := strconv.Atoi(filepath.Base(t))
		err = errors.Join(err, e, syscall.Setpriority(syscall.PRIO_PROCESS, tid, nice))
	}
	return err
}

// pull has site b fetch from a by iperf3.
func (s *qosSystem) pull(ctx context.Context, port string, args ...string) (qosRun, error) {
	ctx, cancel := context.WithTimeout(ctx, (qosWarm+qosCounts+20)*time.Second)
	defer cancel()
	args = append([]string{"-c", s.addr, "-p", port, "-R", "-J", "-i", "1", "-t", fmt.Sprint(qosWarm + qosCounts)}, args...)
	if !slices.Contains(args, "-u") {
		args = append(args, "-C", s.control)
	}
	text, err := output(inside(ctx, s.lab.tag+"b", "iperf3", args...))
	if err != nil {
		return qosRun{}, err
	}
	return parseQoS(text)
}

// parseQoS reads the intervals of iperf3's JSON after qosWarm. A last one that is
// no second is not counted.
func parseQoS(text []byte) (out qosRun, err error) {
	type part struct {
		Start, Seconds float64
		Bytes          float64
	}
	var r struct {
		Intervals []struct {
			Streams []part
			Sum     part
		}
		End struct {
			Sent struct{ Retransmits int } `json:"sum_sent"`
		}
		Error string
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return out, fmt.Errorf("iperf3: %w", err)
	}
	if r.Error != "" {
		return out, fmt.Errorf("iperf3: %s", r.Error)
	}
	for _, i := range r.Intervals {
		if i.Sum.Start < qosWarm-0.1 || i.Sum.Seconds < 0.9 {
			continue
		}
		out.seconds = append(out.seconds, i.Sum.Bytes*8/i.Sum.Seconds)
		for j, x := range i.Streams {
			if len(out.streams) <= j {
				out.streams = append(out.streams, 0)
			}
			out.streams[j] += x.Bytes * 8
		}
	}
	if len(out.seconds) == 0 {
		return out, errors.New("iperf3: no second was measured")
	}
	for j := range out.streams {
		out.streams[j] /= float64(len(out.seconds))
	}
	out.resent = r.End.Sent.Retransmits
	return out, nil
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
		packet := size + 28
		if s.fills && packet < 1280 {
			packet = (packet + 15) &^ 15
		}
		part, protocol = float64(size)/float64(packet+s.overhead), "UDP"
		args = []string{"-u", "-l", strconv.Itoa(size), "-b", fmt.Sprintf("%.0f", float64(mbit)*1e6*qosFlood)}
	}
	before, err := measureUsage(nil)
	if err != nil {
		return "", err
	}
	late := watchLateness()
	run, err := s.pull(ctx, qosPort, args...)
	p99, longest := late.end()
	after, err2 := measureUsage(nil)
	if err := errors.Join(err, err2); err != nil {
		return "", err
	}
	want := float64(mbit) * 1e6 * part
	got, worst := mean(run.seconds), 0.0
	for _, x := range run.seconds {
		if e := x/want - 1; math.Abs(e) > math.Abs(worst) {
			worst = e
		}
	}
	return fmt.Sprintf("| %s | %d Mbit/s %s | %.3f | %.3f | %+.2f %% | %+.2f %% | %d | %.1f, %.1f ms | %s |",
		s.name, mbit, protocol, got/1e6, want/1e6, 100*(got/want-1), 100*worst, run.resent, ms(p99), ms(longest), describeSpent(after.since(before))), nil
}

func mean(x []float64) (sum float64) {
	for _, v := range x {
		sum += v
	}
	return sum / float64(max(1, len(x)))
}
