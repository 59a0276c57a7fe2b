package main

import (
	"fmt"
	"html"
	"math"
	"strconv"
	"strings"
)

// A plot is a bar chart of one measure: a bar for each system, its length the
// median, a whisker from minimum to maximum.
type plot struct {
	name    string // of the file
	title   string
	measure string
	unit    string
	better  string
}

var plots = []plot{
	{"cpu", "CPU for a gigabyte, TCP, 1 stream", "tcp1_up.cpu_s_per_gb", "CPU-seconds of the daemons of both sites per GB of payload", "less is better"},
	{"tcp1", "TCP, 1 stream", "tcp1_up.mbps", "Mbit/s, both sites on one machine", "more is better"},
	{"tcp4", "TCP, 4 streams", "tcp4_up.mbps", "Mbit/s, both sites on one machine", "more is better"},
	{"udp1200", "UDP, 1200 bytes, at most 1 % loss", "udp1200_ndr.kpps", "thousand packets per second", "more is better"},
	{"rtt", "Round trip while idle", "echo_idle.p50_us", "microseconds, median", "less is better"},
	{"rtt-load", "Round trip beside one TCP stream", "echo_load.p50_us", "microseconds, median", "less is better"},
	{"memory", "Memory after the TCP runs", "rss_peak_tcp.mib", "MiB, largest daemon, peak", "less is better"},
}

// Measures of the drawing, in pixels.
const (
	plotWidth   = 860
	plotLeft    = 170
	plotRight   = 210
	plotTop     = 70
	plotBar     = 18
	plotRow     = 30
	plotFoot    = 62
	plotTicks   = 5
	plotPixels  = plotWidth - plotLeft - plotRight
	oursColour  = "#0b7a75"
	peersColour = "#8a94a6"
)

type bar struct {
	name string
	figure
}

// draw returns the plot as SVG, or nothing when no system has the measure. The
// underlay itself is drawn only where it does not dwarf the rest.
func (p plot) draw(r *results) string {
	var bars []bar
	for _, s := range r.Systems {
		if f, ok := r.Figures[s.Name][p.measure]; ok && f.Max > 0 {
			bars = append(bars, bar{s.Name, f})
		}
	}
	bars, left := withoutOutliers(bars)
	if len(bars) == 0 {
		return ""
	}
	most := 0.0
	for _, b := range bars {
		most = max(most, b.Max)
	}
	step := niceStep(most / plotTicks)
	top := step * math.Ceil(most/step)
	x := func(v float64) float64 { return plotLeft + v/top*plotPixels }
	foot := plotTop + len(bars)*plotRow
	height := foot + plotFoot

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#222">`+"\n", plotWidth, height, plotWidth, height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="#fff"/>`+"\n")
	fmt.Fprintf(&b, `<text x="16" y="28" font-size="18" font-weight="bold">%s</text>`+"\n", html.EscapeString(p.title))
	fmt.Fprintf(&b, `<text x="16" y="49" fill="#555">%s</text>`+"\n", html.EscapeString(p.unit+" ("+p.better+")"))
	for v := 0.0; v <= top+step/2; v += step {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle" fill="#555">%s</text>`+"\n",
			x(v), plotTop-6, x(v), foot, x(v), foot+17, strconv.FormatFloat(v, 'g', 6, 64))
	}
	for i, bar := range bars {
		y := plotTop + i*plotRow
		mid := y + plotBar/2
		colour := peersColour
		if strings.HasPrefix(bar.name, "slicewire") {
			colour = oursColour
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, plotLeft-8, mid+5, html.EscapeString(bar.name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, plotLeft, y, x(bar.Median)-plotLeft, plotBar, colour)
		fmt.Fprintf(&b, `<path d="M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8" stroke="#222" fill="none"/>`, x(bar.Min), mid, x(bar.Max), x(bar.Min), mid-4, x(bar.Max), mid-4)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%s <tspan fill="#777">[%s..%s]</tspan></text>`+"\n", x(bar.Max)+8, mid+5, number(bar.Median), number(bar.Min), number(bar.Max))
	}
	notes := fmt.Sprintf("%s, %s run, %d x %s, Linux %s, slicewire %s", r.Started.Format("2006-01-02"), r.Mode, r.Machine.CPUs, r.Machine.CPU, r.Machine.Kernel, r.Machine.Commit)
	if r.Busy != "" {
		notes = "BUSY MACHINE, not to be quoted. " + notes
	}
	fmt.Fprintf(&b, `<text x="16" y="%d" font-size="11" fill="#777">%s</text>`+"\n", foot+36, html.EscapeString("bars: median, whiskers: min to max"+left))
	fmt.Fprintf(&b, `<text x="16" y="%d" font-size="11" fill="#777">%s</text>`+"\n</svg>\n", foot+52, html.EscapeString(notes))
	return b.String()
}

// outlier is how many times the second largest median a bar may be before it
// would make the others unreadable.
const outlier = 5

// withoutOutliers takes out the bars that are far longer than all others, and
// says which: they are named below the plot, not hidden.
func withoutOutliers(bars []bar) (kept []bar, left string) {
	kept = bars
	for len(kept) > 2 {
		longest, second := 0, 0.0
		for i, b := range kept {
			if b.Median > kept[longest].Median {
				longest = i
			}
		}
		for i, b := range kept {
			if i != longest {
				second = max(second, b.Median)
			}
		}
		l := kept[longest]
		if l.Median <= outlier*second {
			break
		}
		left += fmt.Sprintf("; not drawn: %s, %s", l.name, number(l.Median))
		kept = append(append([]bar(nil), kept[:longest]...), kept[longest+1:]...)
	}
	return kept, left
}

// niceStep returns the smallest of 1, 2 or 5 times a power of ten that is at
// least v.
func niceStep(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*power >= v {
			return m * power
		}
	}
	return 10 * power
}
