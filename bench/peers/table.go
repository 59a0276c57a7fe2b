package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A column is one measure in a table.
type column struct{ title, measure string }

// A table has a row for each system that has any of its measures.
type table struct {
	title   string
	columns []column
}

var tables = buildTables()

func buildTables() []table {
	var ts []table
	for _, t := range []struct{ title, measure string }{
		{"TCP, 1 stream, client to server", "tcp1_up"}, {"TCP, 4 streams, client to server", "tcp4_up"}, {"TCP, 16 streams, client to server", "tcp16_up"},
		{"TCP, 1 stream, server to client", "tcp1_down"}, {"TCP, 4 streams, server to client", "tcp4_down"}, {"TCP, 16 streams, server to client", "tcp16_down"},
	} {
		ts = append(ts, table{t.title, []column{
			{"daemon CPU-s/GB", t.measure + ".cpu_s_per_gb"}, {"Mbit/s", t.measure + ".mbps"},
			{"machine CPU-s/GB", t.measure + ".machine_cpu_s_per_gb"}, {"client CPU-s/GB", t.measure + ".client_cpu_s_per_gb"},
			{"retransmits", t.measure + ".retrans"}, {"steal s", t.measure + ".steal_s"},
		}})
	}
	for _, size := range []string{"64", "1200"} {
		m := "udp" + size
		ts = append(ts, table{"UDP, " + size + " bytes", []column{
			{"kpps at <= 1 % loss", m + "_ndr.kpps"}, {"overload: delivered kpps", m + ".kpps"}, {"sent kpps", m + ".sent_kpps"},
			{"loss %", m + ".loss_percent"}, {"daemon CPU-s/Mpkt", m + ".cpu_s_per_mpkt"},
		}})
	}
	return append(ts,
		table{"Round trip, us (echo: 64 bytes over TCP)", []column{
			{"echo idle p50", "echo_idle.p50_us"}, {"p99", "echo_idle.p99_us"}, {"echo under load p50", "echo_load.p50_us"}, {"p95", "echo_load.p95_us"},
			{"ping idle p50", "ping_idle.p50_us"}, {"p99", "ping_idle.p99_us"}, {"ping under load p50", "ping_load.p50_us"}, {"p95", "ping_load.p95_us"},
		}},
		table{"Memory of the largest daemon, MiB", []column{
			{"idle", "rss_idle.mib"}, {"peak after TCP", "rss_peak_tcp.mib"}, {"peak after UDP overload", "rss_peak.mib"},
		}})
}

// markdown returns the whole report.
func markdown(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# slicewire beside its peers, %s (%s run)\n\n%s.\n\n", r.Started.Format("2006-01-02"), r.Mode, r.Machine)
	if r.Busy != "" {
		fmt.Fprintf(&b, "**Taken on a busy machine, not to be quoted:** %s.\n\n", r.Busy)
	}
	if r.Cut != "" {
		fmt.Fprintf(&b, "Not all rounds: %s.\n\n", r.Cut)
	}
	b.WriteString("Two sites as network namespaces of one machine, veth underlay with MTU 1500 and offloads on. In each round all systems are up at once, and\n" +
		"idle but for the one that is measured; each test is taken of one system right after the other, in the reverse order every other round.\n" +
		"Median [min..max], with n where it is not the number of rounds. CPU-s/GB: time of the daemons of both sites on a CPU for each 1e9 bytes of\n" +
		"payload that arrived. Both sites share the CPUs, so Mbit/s is less than two machines would show; CPU-s/GB carries over.\n" +
		"Where curl is the client, Mbit/s counts until the last of its streams has ended.\n\n")
	b.WriteString(ratioTable(r))
	for _, t := range tables {
		b.WriteString(t.markdown(r))
	}
	b.WriteString("## Systems\n\n")
	for _, s := range r.Systems {
		fmt.Fprintf(&b, "- **%s**: %s", s.Name, s.About)
		if why := r.unavailable(s.Name); why != "" {
			fmt.Fprintf(&b, " (unavailable: %s)", why)
		}
		b.WriteByte('\n')
	}
	if len(r.Failures) > 0 {
		b.WriteString("\n## Not measured\n\n")
		for _, f := range r.Failures {
			fmt.Fprintf(&b, "- %s, %s, round %d: %s\n", f.System, f.Measure, f.Round+1, firstLine(errors.New(f.Error)))
		}
	}
	return b.String()
}

func ratioTable(r *results) string {
	if len(r.Ratios) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("## Ratios, round by round\n\n| ratio of | to | measure | median [min..max] | bar |\n|---|---|---|---|---|\n")
	for _, x := range r.Ratios {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", x.Of, x.To, x.Measure, cell(x.figure, r.rounds()), x.verdict())
	}
	b.WriteByte('\n')
	return b.String()
}

// rounds is the number of rounds that any sample belongs to.
func (r *results) rounds() int {
	n := 0
	for _, s := range r.Samples {
		n = max(n, s.Round+1)
	}
	return n
}

// markdown returns the table, or nothing when no system has its measures. The
// first one says what is unavailable as well.
func (t table) markdown(r *results) string {
	first := t.title == tables[0].title
	var rows strings.Builder
	for _, s := range r.Systems {
		cells, any := make([]string, len(t.columns)), false
		for i, c := range t.columns {
			cells[i] = "-"
			if f, ok := r.Figures[s.Name][c.measure]; ok {
				cells[i], any = cell(f, r.rounds()), true
			}
		}
		if why := r.unavailable(s.Name); why != "" && !any {
			cells[0], any = "unavailable: "+why, first
		}
		if any {
			fmt.Fprintf(&rows, "| %s | %s |\n", s.Name, strings.Join(cells, " | "))
		}
	}
	if rows.Len() == 0 {
		return ""
	}
	titles := make([]string, len(t.columns))
	for i, c := range t.columns {
		titles[i] = c.title
	}
	return fmt.Sprintf("## %s\n\n| system | %s |\n|---%s|\n%s\n", t.title, strings.Join(titles, " | "), strings.Repeat("|---", len(titles)), rows.String())
}

func cell(f figure, rounds int) string {
	s := fmt.Sprintf("%s [%s..%s]", number(f.Median), number(f.Min), number(f.Max))
	if f.N != rounds {
		s += fmt.Sprintf(" n=%d", f.N)
	}
	return s
}

// number writes v with as many digits as mean anything: about three.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || a == 0:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

// terminal is what the terminal shows at the end.
func terminal(r *results) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", r.Machine)
	if r.Busy != "" {
		fmt.Fprintf(&b, "BUSY: %s; do not quote these figures\n", r.Busy)
	}
	fmt.Fprintf(&b, "\n%-20s %16s %10s %13s %13s %10s\n", "TCP, 1 stream", "daemon CPU-s/GB", "Mbit/s", "idle RTT us", "loaded RTT us", "peak MiB")
	for _, s := range r.Systems {
		f := r.Figures[s.Name]
		fmt.Fprintf(&b, "%-20s", s.Name)
		if why := r.unavailable(s.Name); why != "" {
			fmt.Fprintf(&b, "  unavailable: %s\n", why)
			continue
		}
		for i, m := range []string{"tcp1_up.cpu_s_per_gb", "tcp1_up.mbps", "echo_idle.p50_us", "echo_load.p50_us", "rss_peak_tcp.mib"} {
			value := "-"
			if x, ok := f[m]; ok {
				value = number(x.Median)
			}
			fmt.Fprintf(&b, " %*s", []int{16, 10, 13, 13, 10}[i], value)
		}
		b.WriteByte('\n')
	}
	if len(r.Ratios) > 0 {
		b.WriteString("\nratios, round by round\n")
	}
	for _, x := range r.Ratios {
		fmt.Fprintf(&b, "  %-20s / %-18s %-22s %6s [%s..%s]  %s\n", x.Of, x.To, x.Measure, number(x.Median), number(x.Min), number(x.Max), x.verdict())
	}
	fmt.Fprintf(&b, "\ntook %v\n", time.Since(r.Started).Round(time.Second))
	return b.String()
}
