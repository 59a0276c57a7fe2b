package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A result is one run of one server.
type result struct {
	qps, cpuPerMillion float64 // questions answered a second; CPU seconds
	lost, pacedLost    int
	p50, p99           time.Duration // at 10,000 a second
	idleKiB            int           // resident, with the names, before any question
}

// A load is what dnsperf says.
type load struct {
	qps             float64
	completed, lost int
	p50, p99        time.Duration // with -v
}

var perfLines = regexp.MustCompile(`(?m)^\s+(Queries per second|Queries completed|Queries lost|Response codes):\s+(\S+)( \d+)?(.*)$`)

// dnsperf runs it on the questions and reads what it says. Every answer has to
// be NOERROR.
func dnsperf(dir string, port int, args ...string) (load, error) {
	args = append([]string{"-s", "127.0.0.1", "-p", strconv.Itoa(port), "-d", filepath.Join(dir, "questions"), "-e"}, args...)
	out, err := exec.Command("dnsperf", args...).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("dnsperf: %w: %s", err, out[max(0, len(out)-500):])
	}
	return parseLoad(out)
}

func parseLoad(out []byte) (l load, err error) {
	for _, m := range perfLines.FindAllSubmatch(out, -1) {
		v := string(m[2])
		switch string(m[1]) {
		case "Queries per second":
			l.qps, err = strconv.ParseFloat(v, 64)
		case "Queries completed":
			l.completed, err = strconv.Atoi(v)
		case "Queries lost":
			l.lost, err = strconv.Atoi(v)
		case "Response codes":
			if rest := strings.TrimSpace(string(m[4])); v != "NOERROR" || strings.Contains(rest, ",") {
				return l, fmt.Errorf("dnsperf: other answers than NOERROR: %s%s", v, rest)
			}
		}
		if err != nil {
			return l, fmt.Errorf("dnsperf: %w", err)
		}
	}
	if l.completed == 0 {
		return l, fmt.Errorf("dnsperf: no question was answered: %s", out[max(0, len(out)-500):])
	}
	var took []time.Duration
	for line := range bytes.Lines(out) { // "> NOERROR name A 0.000123"
		f := bytes.Fields(line)
		if len(f) == 5 && string(f[0]) == ">" {
			s, err := strconv.ParseFloat(string(f[4]), 64)
			if err != nil {
				return l, fmt.Errorf("dnsperf: %w", err)
			}
			took = append(took, time.Duration(s*1e9))
		}
	}
	if slices.Sort(took); len(took) > 0 {
		l.p50, l.p99 = took[len(took)/2], took[len(took)*99/100]
	}
	return l, nil
}

// clockTick is USER_HZ, which is 100 on every Linux that there is.
const clockTick = 10 * time.Millisecond

// cpuOf returns the processor time of a process, user and system.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err := strconv.Atoi(f[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(f[12])
	return time.Duration(user+system) * clockTick, err
}

func residentKiB(pid int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	var kib int
	_, err = fmt.Sscan(rest, &kib)
	return kib, err
}

// report prints the median of each figure, and ours by CoreDNS's.
func report(w io.Writer, servers []server, all map[string][]result) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%-10s %10s %14s %12s %12s %10s %6s\n", "server", "qps", "CPU s/million", "p50 at 10k", "p99 at 10k", "idle MiB", "lost")
	mid := make(map[string]result)
	for _, s := range servers {
		r := all[s.name]
		if len(r) == 0 {
			fmt.Fprintf(&b, "%-10s unavailable\n", s.name)
			continue
		}
		m := result{
			qps: median(r, func(r result) float64 { return r.qps }), cpuPerMillion: median(r, func(r result) float64 { return r.cpuPerMillion }),
			p50: median(r, func(r result) time.Duration { return r.p50 }), p99: median(r, func(r result) time.Duration { return r.p99 }),
			idleKiB: median(r, func(r result) int { return r.idleKiB }), lost: median(r, func(r result) int { return r.lost + r.pacedLost }),
		}
		mid[s.name] = m
		fmt.Fprintf(&b, "%-10s %10.0f %14.2f %12v %12v %10.1f %6d\n", s.name, m.qps, m.cpuPerMillion, m.p50, m.p99, float64(m.idleKiB)/1024, m.lost)
	}
	if us, they := mid["slicewire"], mid["coredns"]; us.qps > 0 && they.qps > 0 {
		fmt.Fprintf(&b, "slicewire by coredns: %.2fx CPU per query (goal 0.5), %.2fx qps (goal 1.4), %.2fx p99 (goal 0.5)\n",
			us.cpuPerMillion/they.cpuPerMillion, us.qps/they.qps, float64(us.p99)/float64(they.p99))
	}
	_, err := w.Write(b.Bytes())
	return err
}

func median[T cmp.Ordered](r []result, f func(result) T) T {
	var v []T
	for _, x := range r {
		v = append(v, f(x))
	}
	slices.Sort(v)
	return v[len(v)/2]
}
