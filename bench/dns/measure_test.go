package main

import (
	"strings"
	"testing"
	"time"
)

const said = `DNS Performance Testing Tool
> NOERROR a.b A 0.000100
> NOERROR a.b A 0.000300
> NOERROR a.b A 0.000200

Statistics:

  Queries sent:         120
  Queries completed:    118 (98.33%)
  Queries lost:         2 (1.67%)

  Response codes:       NOERROR 118 (100.00%)
  Average packet size:  request 51, response 67
  Queries per second:   4321.500000
`

func TestWhatDnsperfSaysIsRead(t *testing.T) {
	l, err := parseLoad([]byte(said))
	want := load{qps: 4321.5, completed: 118, lost: 2, p50: 200 * time.Microsecond, p99: 300 * time.Microsecond}
	if err != nil || l != want {
		t.Errorf("got %+v, %v", l, err)
	}
	for _, bad := range []string{"NXDOMAIN 118 (100.00%)", "NOERROR 110 (93%), SERVFAIL 8 (7%)"} {
		if _, err := parseLoad([]byte(strings.Replace(said, "NOERROR 118 (100.00%)", bad, 1))); err == nil {
			t.Errorf("%s passes for a good run", bad)
		}
	}
	if _, err := parseLoad([]byte("dnsperf: cannot")); err == nil {
		t.Error("nothing passes for a good run")
	}
}

func TestWhoIsNotThereIsSaid(t *testing.T) {
	var b strings.Builder
	if err := report(&b, []server{{name: "slicewire"}, {name: "coredns"}}, map[string][]result{"slicewire": {{qps: 1}}}); err != nil || !strings.Contains(b.String(), "coredns    unavailable") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
