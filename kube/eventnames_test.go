package kube

import (
	"os"
	"strings"
	"testing"
)

func TestEventsAreKubeSlices(t *testing.T) {
	text, err := os.ReadFile("testdata/kubeslice-events.txt")
	if err != nil {
		t.Fatal(err)
	}
	theirs := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 {
			continue // the heading
		}
		who, name, kind, reason := f[0], f[1], f[2], f[3]
		theirs[name] = true
		if !KnownEvent(name) || EventType(name) != kind {
			t.Errorf("%s of the %s is %s, here %q (known: %v)", name, who, kind, EventType(name), KnownEvent(name))
		}
		if got := EventReason(name); got != reason {
			t.Errorf("%s of the %s: reason %q, want %q", name, who, got, reason)
		}
	}
	if len(theirs) < 150 {
		t.Fatalf("only %d events read: the list is broken", len(theirs))
	}
	for name := range eventTypes {
		if !theirs[name] && !strings.Contains(ownEvents, name) {
			t.Errorf("%s is none of KubeSlice's and not listed as ours", name)
		}
	}
}

func TestLabelValuesAreValid(t *testing.T) {
	for in, want := range map[string]string{
		"iperf-slice":            "iperf-slice",
		"a\nb":                   "a-b",
		"<b>x</b>":               "b-x--b",
		strings.Repeat("x", 100): strings.Repeat("x", 63),
		"--":                     "",
	} {
		if got := label(in); got != want {
			t.Errorf("label(%q) = %q, want %q", in, got, want)
		}
	}
	if got := cut("aé", 2); got != "a" {
		t.Errorf("a character was cut in two: %q", got)
	}
}
