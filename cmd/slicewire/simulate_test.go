package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slicewire/simulate"
)

const exampleScenario = "../../docs/scenarios/two-gateways.yaml"

// simulated runs a scenario file and returns what it printed as JSON.
func simulated(t *testing.T, args ...string) (simulate.Report, string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), append([]string{"simulate", "-o", "json"}, args...), &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	var r simulate.Report
	if err := json.Unmarshal(stdout.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r, stdout.String()
}

// writeScenario writes a scenario beside the example's manifests.
func writeScenario(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	manifests, err := os.ReadFile(filepath.Join(filepath.Dir(exampleScenario), "manifests.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"manifests.yaml": manifests, "scenario.yaml": []byte(text)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "scenario.yaml")
}

// dark is how long two nodes could not talk in all between two times, in ms.
func dark(r *simulate.Report, pair string, from, to float64) (sum float64) {
	for _, o := range r.Outages {
		for _, p := range o.Pairs {
			if p == pair && o.FromMs >= from && o.FromMs < to {
				sum += o.ToMs - o.FromMs
			}
		}
	}
	return sum
}

func TestTheExampleScenario(t *testing.T) {
	r, first := simulated(t, exampleScenario)
	if len(r.Events) != 7 {
		t.Errorf("%d events, want 7", len(r.Events))
	}
	for _, tt := range []struct {
		what, pair string
		from, to   float64
		min, max   float64
	}{
		{"before anything happens", "north/app - south/app-2", 0, 5000, 0, 0},
		{"a killed gateway", "north/app - south/app-2", 5000, 15000, 300, 500},
		{"those of the other gateway", "north/app - south/app-1", 5000, 15000, 0, 0},
		{"its return, until all know", "north/app - south/app-2", 15000, 30000, 0, 50},
		{"a drain, until all know", "north/app - south/app-1", 30000, 40000, 0, 50},
		{"a cut of one of two", "north/app - south/app-1", 45000, 50000, 300, 500},
		{"two in whose way nothing is", "south/app-1 - west/gw", 0, 1e9, 0, 0},
		{"a stall that nobody stands in for", "north/app - south/app-1", 70000, 71000, 2000, 2000},
	} {
		if got := dark(&r, tt.pair, tt.from, tt.to); got < tt.min || got > tt.max {
			t.Errorf("%s: %s dark for %v ms, want %v to %v", tt.what, tt.pair, got, tt.min, tt.max)
		}
	}
	for _, m := range r.Moves {
		if m.AtMs < 5000 {
			t.Errorf("a path moved before anything happened: %+v", m)
		}
	}
	for range 3 {
		if _, again := simulated(t, exampleScenario); again != first {
			t.Fatal("the same scenario and seed, another report")
		}
	}
}

func TestASiteWithOneGatewayIsCutOff(t *testing.T) {
	r, _ := simulated(t, writeScenario(t, `
manifests: [manifests.yaml]
sites:
- name: north
  nodes: [{name: gw, gateway: true}, {name: app}]
- name: south
  nodes: [{name: gw, gateway: true}]
events:
- {at: 1s, cut: [north, south], oneWay: true}
- {at: 2s, heal: [north, south]}
- {at: 6s, kill: north/gw}
`))
	if got := dark(&r, "north/app - south/gw", 0, 5000); got < 1000 || got > 4000 {
		t.Errorf("cut one way for a second: dark for %v ms", got)
	}
	// Whoever is down himself is missed by nobody.
	if got := dark(&r, "north/gw - south/gw", 5000, 1e9); got != 0 {
		t.Errorf("the killed node is counted: %v ms", got)
	}
	last := r.Outages[len(r.Outages)-1]
	if !last.Lasting || last.FromMs != 6000 || last.ToMs != 16000 {
		t.Errorf("the rest of the site: %+v", last)
	}
}

func TestANodeThatJoinsIsKnownWhenGossipSaysSo(t *testing.T) {
	file := writeScenario(t, `
manifests: [manifests.yaml]
duration: 4s
sites:
- name: north
  nodes: [{name: gw, gateway: true}, {name: app}]
- name: south
  nodes: [{name: gw, gateway: true}, {name: app}]
events:
- {at: 500ms, join: south/app}
- {at: 2s, kill: north/app}
- {at: 2500ms, restart: north/app}
`)
	r, _ := simulated(t, "--gossip", file)
	if len(r.News) != 2 {
		t.Fatalf("news %+v", r.News)
	}
	for i, of := range []string{"south/app", "north/app"} {
		n := r.News[i]
		if n.Of != of || n.Missing != 0 || n.LastMs < n.FirstMs || n.LastMs <= 0 || n.LastMs > 1500 {
			t.Errorf("news %+v", n)
		}
	}
	if got := dark(&r, "north/app - south/app", 0, 2000); got < r.News[0].FirstMs/2 || got > 1500 {
		t.Errorf("dark for %v ms after the join, known after %v to %v ms", got, r.News[0].FirstMs, r.News[0].LastMs)
	}
}

func TestTablesOfASimulation(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), []string{"simulate", exampleScenario}, &stdout, &stderr); code != exitOK {
		t.Fatalf("exit %d: %s", code, stderr.String())
	}
	for _, want := range []string{"kill south/gw-1", "north/gw: 10.190.", "by south/gw-2, before south/gw-1", "UNREACHABLE"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("nothing says %q", want)
		}
	}
	stdout.Reset()
	quiet := writeScenario(t, "manifests: [manifests.yaml]\nsites:\n- {name: north, nodes: [{name: gw, gateway: true}]}\n- {name: west, nodes: [{name: gw, gateway: true}]}\n")
	if code := execute(t.Context(), []string{"simulate", quiet}, &stdout, &stderr); code != exitOK || !strings.Contains(stdout.String(), "could talk to everybody") {
		t.Errorf("exit %d: %s", code, stdout.String())
	}
}

// A site without a gateway is most likely a slip: the scenario is told, and what
// ends with a node's life is not told as an end of the outage.
func TestASiteWithoutAGatewayIsSaid(t *testing.T) {
	path := writeScenario(t, "manifests: [manifests.yaml]\nsites:\n- {name: north, nodes: [{name: app}]}\n"+
		"- {name: west, nodes: [{name: gw, gateway: true}]}\nevents: [{at: 5s, kill: north/app}]\n")
	var stdout, stderr bytes.Buffer
	code := execute(t.Context(), []string{"simulate", path}, &stdout, &stderr)
	if code != exitOK || !strings.Contains(stderr.String(), "site north has no node with gateway: true") ||
		!strings.Contains(stdout.String(), "not for 5s, until one is gone: north/app - west/gw") || strings.Contains(stdout.String(), "again") {
		t.Errorf("exit %d: %s%s", code, stderr.String(), stdout.String())
	}
}

func TestScenariosThatAreRefused(t *testing.T) {
	const sites = "sites:\n- {name: north, nodes: [{name: gw, gateway: true}, {name: app}]}\n- {name: south, nodes: [{name: gw, gateway: true}]}\n"
	const good = "manifests: [manifests.yaml]\n" + sites
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown field", good + "speed: 1\n", "speed"},
		{"no manifests", sites, "manifests"},
		{"no sites", "manifests: [x]\n", "0 nodes"},
		{"a site twice", good + "- {name: north, nodes: [{name: x}]}\n", "twice"},
		{"a node twice", "manifests: [x]\nsites:\n- {name: a, nodes: [{name: x}, {name: x}]}\n", "no other node's"},
		{"a name that is none", "manifests: [x]\nsites:\n- {name: a, nodes: [{name: 'x y'}]}\n", "DNS label"},
		{"a delay without a unit", good + "link: {delay: 20}\n", "duration"},
		{"a negative delay", good + "link: {delay: -1s}\n", "negative"},
		{"a share of two", good + "link: {loss: 2}\n", "between 0 and 1"},
		{"a link to nobody", good + "links: [{between: [north, east]}]\n", "east"},
		{"a link with one end", good + "links: [{between: [north]}]\n", "two ends"},
		{"nothing happens", good + "events: [{at: 1s}]\n", "exactly one"},
		{"two things happen", good + "events: [{at: 1s, kill: north/gw, drain: north/gw}]\n", "exactly one"},
		{"it happens to nobody", good + "events: [{at: 1s, kill: north/x}]\n", "no such node"},
		{"it happens to a site", good + "events: [{at: 1s, kill: north}]\n", "no such node"},
		{"a cut with one end", good + "events: [{at: 1s, cut: [north]}]\n", "two sites"},
		{"a stall for no time", good + "events: [{at: 1s, stall: north/gw}]\n", "for"},
		{"a restart of what is up", good + "events: [{at: 1s, restart: north/gw}]\n", "not killed"},
		{"killed twice", good + "events: [{at: 2s, kill: north/gw}, {at: 1s, kill: north/gw}]\n", "events[0]: kill north/gw: it is not there"},
		{"a join twice", good + "events: [{at: 1s, join: north/app}, {at: 2s, join: north/app}]\n", "there already"},
		{"a cut of one from itself", good + "events: [{at: 1s, cut: [north, north]}]\n", "two sites"},
		{"at no time", good + "events: [{kill: north/gw}]\n", "events[0]: no `at`"},
		{"an undrain of what takes traffic", good + "events: [{at: 1s, undrain: north/gw}]\n", "not drained"},
		{"no mapping", "hello\n", "the file: a string does not belong there"},
		{"a text where a list belongs", good + "events: later\n", "events: a string does not belong there"},
		{"a share of two on one link", good + "links: [{between: [north, south], loss: 2}]\n", "links[0]: a share"},
		{"after the end", good + "duration: 1s\nevents: [{at: 2s, kill: north/gw}]\n", "duration"},
		{"too long", good + "duration: 48h\n", "24h"},
		{"a site of no slice", "manifests: [manifests.yaml]\nsites:\n- {name: east, nodes: [{name: gw, gateway: true}]}\n", "no slice of the manifests has this site: water has "},
	} {
		var stdout, stderr bytes.Buffer
		if code := execute(t.Context(), []string{"simulate", writeScenario(t, tt.text)}, &stdout, &stderr); code != exitFailure || !strings.Contains(stderr.String(), tt.want) {
			t.Errorf("%s: exit %d, %q, want %q", tt.name, code, stderr.String(), tt.want)
		}
	}
}
