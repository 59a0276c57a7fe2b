package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

// exampleResults are two rounds of three systems, with a failure.
func exampleResults() *results {
	r := &results{
		Mode: "quick", Started: time.Date(2026, 11, 20, 13, 0, 0, 0, time.UTC),
		Machine:     machine{CPU: "A & B <CPU>", CPUs: 2, MemoryGiB: 24, Kernel: "6.18", Go: "go1.26", Commit: "abc", Load1: 0.1},
		Systems:     []described{{"raw", "the underlay"}, {"slicewire-forward", "ours"}, {"tailscale-user", "theirs"}, {"pasta", "away"}},
		Unavailable: []absence{{"pasta", "no pasta"}},
	}
	for round := range 2 {
		f := float64(round)
		r.Samples = append(r.Samples,
			sample{"raw", "tcp1_up.mbps", round, 50000 + f, 0},
			sample{"slicewire-forward", "tcp1_up.mbps", round, 2000 + 100*f, 0},
			sample{"slicewire-forward", "tcp1_up.cpu_s_per_gb", round, 4 + f, 0},
			sample{"tailscale-user", "tcp1_up.mbps", round, 1000, 0},
			sample{"tailscale-user", "tcp1_up.cpu_s_per_gb", round, 8, 0},
			sample{"raw", "udp64.kpps", round, 500, 0})
	}
	r.Failures = []failure{{"tailscale-user", "rtt_load", 1, "no answer\nmore"}}
	r.summarize()
	return r
}

func TestMarkdown(t *testing.T) {
	r := exampleResults()
	got := markdown(r)
	for _, want := range []string{
		"| slicewire-forward | 4.50 [4.00..5.00] | 2050 [2000..2100] | - | - | - | - |\n",
		"| slicewire-forward | tailscale-user | tcp1_up.cpu_s_per_gb | 0.56 [0.50..0.62] |  |\n",
		"- **raw**: the underlay\n", "- **pasta**: away (unavailable: no pasta)\n", "| pasta | unavailable: no pasta | - | - | - | - | - |\n", "- tailscale-user, rtt_load, round 2: no answer\n", "2 x A & B <CPU>", "slicewire abc",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %q in\n%s", want, got)
		}
	}
	for _, never := range []string{"busy machine", "UDP, 1200 bytes", "n=2"} {
		if strings.Contains(got, never) {
			t.Errorf("says %q", never)
		}
	}
	r.Samples = append(r.Samples, sample{"raw", "x", 0, 1, 2})
	r.summarize()
	if !strings.Contains(markdown(r), "busy machine, not to be quoted") || !strings.Contains(terminal(r), "BUSY") {
		t.Error("a busy machine is not said")
	}
}

func TestNumbersKeepThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.123: "0.12", 9.876: "9.88", 12.34: "12.3", 123.4: "123", 65432: "65432"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}

func TestPlotsAreWellFormedAndSayEverything(t *testing.T) {
	r := exampleResults()
	drawn := 0
	for _, p := range plots {
		svg := p.draw(r)
		if svg == "" {
			continue
		}
		drawn++
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v\n%s", p.name, err, svg)
			}
		}
		for _, want := range []string{p.title, p.better, "slicewire-forward", "tailscale-user", "A &amp; B &lt;CPU&gt;", "median", "slicewire abc"} {
			if !strings.Contains(svg, want) {
				t.Errorf("%s lacks %q", p.name, want)
			}
		}
	}
	if drawn != 2 {
		t.Errorf("%d plots of 2 measures", drawn)
	}
}

func TestAnOutlierIsNamedNotDrawn(t *testing.T) {
	bars := []bar{{"raw", figure{Median: 100}}, {"x", figure{Median: 10}}, {"y", figure{Median: 9}}}
	kept, left := withoutOutliers(bars)
	if len(kept) != 2 || !strings.Contains(left, "raw, 100") || len(bars) != 3 || bars[0].name != "raw" {
		t.Errorf("%v, %q", kept, left)
	}
	if kept, left := withoutOutliers(bars[1:]); len(kept) != 2 || left != "" {
		t.Errorf("%v, %q", kept, left)
	}
}

func TestNiceStep(t *testing.T) {
	for v, want := range map[float64]float64{0.9: 1, 1: 1, 1.1: 2, 3: 5, 6: 10, 720: 1000, 0.03: 0.05} {
		if got := niceStep(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
}

func TestResultsAreWrittenAndCanBeReadAgain(t *testing.T) {
	files, err := writeResults(exampleResults(), t.TempDir())
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var r results
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if f := r.Figures["slicewire-forward"]["tcp1_up.mbps"]; f != (figure{2050, 2000, 2100, 2}) {
		t.Errorf("%+v", f)
	}
}
