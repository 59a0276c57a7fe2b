package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStressFindsItsFigures(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("CI has to be root: a TUN in a namespace of the sandbox needs it")
		}
		t.Skip("a TUN in a namespace of the sandbox is for root; CI is root")
	}
	dir := buildSlicewire(t)
	out, code := sandboxed(t, nil, "-stress", "all", "-stress-overload", "500ms", "-stress-mtus", "1280", "-length", "1s", "-tools", dir, "-results", dir)
	t.Log(out)
	if code != 0 && code != 3 { // a goal may be missed on a machine that is busy with tests
		t.Fatalf("exit %d", code)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*-stress.*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	data, err := os.ReadFile(files[0]) // .json comes before .md
	if err != nil {
		t.Fatal(err)
	}
	var r stressReport
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	o := r.Overload
	if o == nil || o.Sent <= 0 || o.Delivered <= 0 || o.Delivered > o.Sent || o.CarriesKpps <= 0 || o.Senders < 1 || o.DeadEndKpps <= 0 || len(o.PeakMiB) != 2 {
		t.Fatalf("overload: %+v", o)
	}
	for i, name := range []string{"idle", "dead end", "overload"} {
		p := o.Phases[i]
		if p.Name != name || len(p.Slice) != overloadCount-1 || p.All.N == 0 || p.All.P50 <= 0 || p.All.P99 < p.All.P50 || p.All.Max < p.All.P99 {
			t.Errorf("%s: %+v", name, p)
		}
	}
	if r.MTU == nil || len(r.MTU.Rungs) != 1 {
		t.Fatalf("mtu: %+v", r.MTU)
	}
	if g := r.MTU.Rungs[0]; g.Error != "" || g.Way != "1280" || g.Mbps <= 0 || g.Bytes <= 0 {
		t.Errorf("mtu: %+v", g)
	}
	if n := len(r.goals()); n != 5 {
		t.Errorf("%d goals", n)
	}
}

func TestStressPlan(t *testing.T) {
	o, err := parseOptions([]string{"-stress", "all"})
	if p := o.stress; err != nil || len(p.scenarios) != 2 || p.overload != time.Minute || len(p.ways) != 9 || p.stream != mtuStream {
		t.Errorf("%+v, %v", p, err)
	}
	o, err = parseOptions([]string{"-stress", "mtu", "-stress-mtus", "576,9000,1400/1300", "-length", "2s"})
	if p := o.stress; err != nil || p.scenarios[0] != "mtu" || p.ways[1] != (way{9000, 9000}) || p.ways[2] != (way{1400, 1300}) || p.stream != 2*time.Second {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"-stress flood", "-stress mtu -stress-mtus 575", "-stress mtu -stress-mtus 9001", "-stress mtu -stress-mtus x", "-stress mtu -stress-mtus 1400/", "-stress mtu -stress-mtus 1400/500", "-stress overload -stress-overload 1ms"} {
		if _, err := parseOptions(strings.Fields(bad)); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
}

func TestParseIntervals(t *testing.T) {
	const tenth = `{"sum": {"seconds": 0.1, "bytes": 5}}`
	const none = `{"sum": {"seconds": 0.1, "bytes": 0}}`
	for _, tt := range []struct {
		name, intervals, after string
		want                   intervals
		ok                     bool
	}{
		{"bytes in every interval", tenth + "," + tenth, ``, intervals{10, 200 * time.Millisecond, 0}, true},
		{"a pause in the middle", tenth + "," + none + "," + none + "," + tenth, ``, intervals{10, 400 * time.Millisecond, 200 * time.Millisecond}, true},
		{"a pause to the end is one", tenth + "," + none, ``, intervals{5, 200 * time.Millisecond, 100 * time.Millisecond}, true},
		{"two pauses are not added", none + "," + tenth + "," + none, ``, intervals{5, 300 * time.Millisecond, 100 * time.Millisecond}, true},
		{"an interrupted one says what was", tenth, `, "error": "interrupted"`, intervals{5, 100 * time.Millisecond, 0}, false},
		{"nothing arrived", none, ``, intervals{0, 100 * time.Millisecond, 100 * time.Millisecond}, false},
		{"no intervals", "", ``, intervals{}, false},
		{"endless", `{"sum": {"seconds": 1e300, "bytes": 5}}`, ``, intervals{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := parseIntervals([]byte(`{"intervals": [` + tt.intervals + `]` + tt.after + `}`))
			if v != tt.want || (err == nil) != tt.ok {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
	if _, err := parseIntervals([]byte("iperf3: error")); err == nil {
		t.Error("what is not JSON is no error")
	}
}

func TestSendersFor(t *testing.T) {
	for _, tt := range []struct {
		wanted, one float64
		want        int
	}{{100, 1000, 1}, {1000, 1000, 1}, {1001, 1000, 2}, {1e9, 1000, overloadSenders}, {1000, 0, overloadSenders}, {0, 0, 1}} {
		if got := sendersFor(tt.wanted, tt.one); got != tt.want {
			t.Errorf("%v by %v: %d", tt.wanted, tt.one, got)
		}
	}
}

func TestAMissedGoalIsTold(t *testing.T) {
	r := stressReport{Overload: &overloadReport{
		Phases: []rttPhase{{Name: "idle", Slice: map[int]rttFigures{2: {9, 1, 2, 3}}}},
		Goals:  []goal{newGoal("overload", "memory of x", 1, 2, "MiB"), newGoal("overload", "p99", 3, 2, "us")},
	}}
	err := r.finish(options{}, func(string, ...any) {})
	if err == nil || !strings.Contains(err.Error(), "overload: p99 is 3.00 us, not at most 2.00") || strings.Contains(err.Error(), "memory") {
		t.Errorf("%v", err)
	}
}
