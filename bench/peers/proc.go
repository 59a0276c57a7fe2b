package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// userHz is the kernel's unit in /proc/stat: the same on every Linux platform
// that Go supports.
const userHz = 100

// parseSchedstat returns the time on a CPU, the first field of a schedstat
// file: sum_exec_runtime in nanoseconds, exact where ticks are sampled.
func parseSchedstat(text string) (time.Duration, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	ns, err := strconv.ParseInt(first, 10, 64)
	if err != nil || ns < 0 {
		return 0, fmt.Errorf("schedstat %q: no time on CPU", text)
	}
	return time.Duration(ns), nil
}

// machineTicks is the first line of /proc/stat, in USER_HZ.
type machineTicks struct{ user, nice, system, idle, iowait, irq, softirq, steal int64 }

// parseStat returns the counters of the whole machine.
func parseStat(text string) (machineTicks, error) {
	line, _, _ := strings.Cut(text, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return machineTicks{}, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var v [8]int64
	for i := range v {
		n, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return machineTicks{}, fmt.Errorf("/proc/stat begins with %q", line)
		}
		v[i] = n
	}
	return machineTicks{v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]}, nil
}

func (t machineTicks) busy() int64 { return t.user + t.nice + t.system + t.irq + t.softirq }

// parsePidStat returns the user ticks of a process and of its children that
// have ended, from /proc/PID/stat. The name of a program may hold anything.
func parsePidStat(text string) (userTicks int64, err error) {
	end := strings.LastIndexByte(text, ')')
	if end < 0 {
		return 0, fmt.Errorf("stat %q: no name", text)
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 15 { // state is the first: utime the 12th, cutime the 14th
		return 0, fmt.Errorf("stat %q: too short", text)
	}
	for _, i := range []int{11, 13} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat %q: %w", text, err)
		}
		userTicks += n
	}
	return userTicks, nil
}

// parseMemory returns resident memory and its highest value so far, in bytes,
// from /proc/PID/status.
func parseMemory(status string) (rss, peak int64, err error) {
	lines := bufio.NewScanner(strings.NewReader(status))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if key != "VmRSS" && key != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("status: %s: %w", key, err)
		}
		if key == "VmRSS" {
			rss = kib << 10
		} else {
			peak = kib << 10
		}
	}
	if peak == 0 {
		return 0, 0, fmt.Errorf("status names no memory")
	}
	return rss, peak, nil
}

// cpuTime returns the time that all threads of a process have had on a CPU. A
// thread that ends takes its time along; the daemons measured here keep theirs.
func cpuTime(pid int) (time.Duration, error) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	read := 0
	for _, t := range tasks {
		text, err := os.ReadFile(t)
		if err != nil {
			continue // the thread has just ended
		}
		d, err := parseSchedstat(string(text))
		if err != nil {
			return 0, err
		}
		sum += d
		read++
	}
	if read == 0 {
		return 0, fmt.Errorf("process %d has no threads", pid)
	}
	return sum, nil
}

// memory returns a process's resident memory now and at most so far.
func memory(pid int) (rss, peak int64, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	return parseMemory(string(text))
}

// A usage is what the machine and some daemons had used at a moment.
type usage struct {
	at      time.Time
	daemons time.Duration
	machine machineTicks
	ourUser int64 // user ticks of everything in this PID namespace, which is all ours
}

// measureUsage reads the counters now.
func measureUsage(daemons []*daemon) (usage, error) {
	u := usage{at: time.Now()}
	for _, d := range daemons {
		t, err := cpuTime(d.pid())
		if err != nil {
			return u, fmt.Errorf("%s: %w", d.name, err)
		}
		u.daemons += t
	}
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return u, err
	}
	if u.machine, err = parseStat(string(text)); err != nil {
		return u, err
	}
	processes, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return u, err
	}
	for _, p := range processes {
		text, err := os.ReadFile(p)
		if err != nil {
			continue // it has just ended
		}
		ticks, err := parsePidStat(string(text))
		if err != nil {
			return u, err
		}
		u.ourUser += ticks
	}
	return u, nil
}

// spent is the difference between two usages.
type spent struct {
	wall    time.Duration
	daemons time.Duration
	machine time.Duration // busy, sampled by ticks
	foreign float64       // CPUs that others used: user time that was not ours
	steal   time.Duration
}

func (u usage) since(before usage) spent {
	s := spent{
		wall:    u.at.Sub(before.at),
		daemons: u.daemons - before.daemons,
		machine: ticks(u.machine.busy() - before.machine.busy()),
		steal:   ticks(u.machine.steal - before.machine.steal),
	}
	theirs := u.machine.user + u.machine.nice - before.machine.user - before.machine.nice - (u.ourUser - before.ourUser)
	if s.wall > 0 && theirs > 0 {
		s.foreign = ticks(theirs).Seconds() / s.wall.Seconds()
	}
	return s
}

func ticks(n int64) time.Duration { return time.Duration(n) * time.Second / userHz }
