package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// results are everything that a run found, as they are written to JSON.
type results struct {
	Mode        string                       `json:"mode"`
	Started     time.Time                    `json:"started"`
	Machine     machine                      `json:"machine"`
	Busy        string                       `json:"busy,omitempty"` // why the figures are not to be quoted
	Cut         string                       `json:"cut,omitempty"`  // why there are fewer rounds than planned
	Unavailable []absence                    `json:"unavailable,omitempty"`
	Systems     []described                  `json:"systems"`
	Figures     map[string]map[string]figure `json:"figures"` // by system and measure
	Ratios      []ratio                      `json:"ratios"`
	Failures    []failure                    `json:"failures,omitempty"`
	Samples     []sample                     `json:"samples"`
}

type described struct {
	Name  string `json:"name"`
	About string `json:"about"`
}

// An absence is a system that could not be measured on this machine.
type absence struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// unavailable says why a system is, or nothing.
func (r *results) unavailable(name string) string {
	for _, a := range r.Unavailable {
		if a.Name == name {
			return a.Why
		}
	}
	return ""
}

// machine is where the figures are from.
type machine struct {
	CPU        string  `json:"cpu"`
	CPUs       int     `json:"cpus"`
	MemoryGiB  float64 `json:"memory_gib"`
	Kernel     string  `json:"kernel"`
	Go         string  `json:"go"`
	Commit     string  `json:"commit"`
	Congestion string  `json:"congestion_control"`
	Load1      float64 `json:"load1_at_start"`
}

func (m machine) String() string {
	return fmt.Sprintf("%d x %s, %.0f GiB, Linux %s, %s, TCP %s, slicewire %s, load at start %.2f", m.CPUs, m.CPU, m.MemoryGiB, m.Kernel, m.Go, m.Congestion, m.Commit, m.Load1)
}

// describeMachine reads what it can; what it cannot read stays empty or zero.
func describeMachine() machine {
	m := machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), Commit: "unknown", CPU: "unknown CPU"}
	text := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	m.Kernel = text("/proc/sys/kernel/osrelease")
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	if kib, err := strconv.ParseFloat(memTotalKiB(text("/proc/meminfo")), 64); err == nil {
		m.MemoryGiB = kib / (1 << 20)
	}
	if load, _, ok := strings.Cut(text("/proc/loadavg"), " "); ok {
		if v, err := strconv.ParseFloat(load, 64); err == nil {
			m.Load1 = v
		}
	}
	if out, err := output(exec.Command("git", "-c", "safe.directory=*", "describe", "--always", "--dirty", "--tags")); err == nil {
		m.Commit = strings.TrimSpace(string(out))
	}
	m.Congestion = fmt.Sprintf("%s (iperf3), %s (others)", iperfCongestion(text("/proc/sys/net/ipv4/tcp_available_congestion_control")), relayCongestion)
	return m
}

func memTotalKiB(meminfo string) string {
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			return strings.TrimSuffix(strings.TrimSpace(rest), " kB")
		}
	}
	return ""
}

// A headline is a pair that a reader looks for: ours, and the nearest peer that
// gets an application to another site in the same way. A bar is what the ratio
// of a measure has to keep below.
type headline struct {
	of, to string
	bars   map[string]float64
}

var headlines = []headline{
	{of: "slicewire-tun", to: "wireguard-go"},
	{of: "slicewire-tun", to: "nebula"},
	{of: "slicewire-tun", to: "tailscale"},
	{of: "slicewire-tun", to: "kubeslice-chain"},
	{of: "slicewire-tun-5", to: "slicewire-tun"},
	{of: "slicewire-run", to: "slicewire-tun"},
	{of: "slicewire-socks", to: "wireguard-netstack", bars: map[string]float64{"tcp1_up.cpu_s_per_gb": 0.25}},
	{of: "slicewire-socks", to: "tailscale-user"},
	{of: "slicewire-forward", to: "tailscale-user"},
	{of: "slicewire-forward", to: "kubeslice-chain"},
	{of: "slicewire-forward-5", to: "slicewire-forward"},
	{of: "kubeslice-chain", to: "openvpn"},
	{of: "tailscale", to: "wireguard-go"},
	{of: "nebula", to: "wireguard-go"},
}

// headlineMeasures are what the pairs are compared by.
var headlineMeasures = []string{"tcp1_up.cpu_s_per_gb", "tcp1_up.mbps", "echo_idle.p50_us", "echo_load.p50_us", "rss_peak_tcp.mib"}

// summarize computes the figures and ratios, and says when the machine was busy.
func (r *results) summarize() {
	busy := 0
	r.Figures, busy = figures(r.Samples)
	r.Ratios = nil
	for _, h := range headlines {
		for _, x := range ratios(r.Samples, h.of, h.to, headlineMeasures) {
			x.Bar = h.bars[x.Measure]
			r.Ratios = append(r.Ratios, x)
		}
	}
	if busy > 0 {
		r.Busy = fmt.Sprintf("%d of %d values were taken while other programs used more than %.2f CPUs", busy, len(r.Samples), foreignMax)
	}
}

// writeResults writes the JSON document, the tables and the plots, named by
// day, mode and commit, and returns their paths.
func writeResults(r *results, dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	document, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return nil, fmt.Errorf("encode results: %w", err)
	}
	base := filepath.Join(dir, r.Started.Format("2006-01-02T1504")+"-"+r.Mode)
	if r.Busy != "" {
		base += "-busy"
	}
	files := []struct {
		name string
		data []byte
	}{{base + ".json", append(document, '\n')}, {base + ".md", []byte(markdown(r))}}
	for _, p := range plots {
		if svg := p.draw(r); svg != "" {
			files = append(files, struct {
				name string
				data []byte
			}{base + "-" + p.name + ".svg", []byte(svg)})
		}
	}
	var names []string
	var errs []error
	for _, f := range files {
		errs = append(errs, os.WriteFile(f.name, f.data, 0o644))
		names = append(names, f.name)
	}
	return names, errors.Join(errs...)
}
