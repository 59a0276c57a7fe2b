package main

import (
	"os"
	"reflect"
	"testing"
	"time"
)

func TestParseIperf(t *testing.T) {
	data, err := os.ReadFile("testdata/iperf3-tcp.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseIperf(data)
	if err != nil || b.bytes != 1456209920 || b.retrans != 17 || b.elapsed.Round(time.Millisecond) != 1002*time.Millisecond {
		t.Errorf("%+v, %v", b, err)
	}
	for name, text := range map[string]string{
		"an error":             `{"error": "unable to connect"}`,
		"nothing received":     `{"end": {"sum_received": {"seconds": 1, "bytes": 0}}}`,
		"no time":              `{"end": {"sum_received": {"seconds": 0, "bytes": 5}}}`,
		"endless":              `{"end": {"sum_received": {"seconds": 1e300, "bytes": 5}}}`,
		"what is not JSON":     `iperf3: error`,
		"what ends too early":  `{"end": {`,
		"the end of the input": ``,
	} {
		if b, err := parseIperf([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, b)
		}
	}
	if b, err := parseIperf([]byte(`{"end": {"sum_received": {"seconds": 2, "bytes": 1000000}}}`)); err != nil || b.retrans != -1 || b.mbps() != 4 {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestParseProc(t *testing.T) {
	if d, err := parseSchedstat("7035913 22033 12\n"); err != nil || d != 7035913 {
		t.Errorf("schedstat: %v, %v", d, err)
	}
	s, err := parseStat("cpu  401886 30019 84965 855418 1587 3 6798 205 0 0\ncpu0 1 2\n")
	if err != nil || s != (machineTicks{401886, 30019, 84965, 855418, 1587, 3, 6798, 205}) || s.busy() != 401886+30019+84965+3+6798 {
		t.Errorf("stat: %+v, %v", s, err)
	}
	user, err := parsePidStat("42 (a ) b (c)) S 1 42 42 0 -1 4194560 5 6 7 8 11 12 13 14 20 0 1 0 100 0 0")
	if err != nil || user != 11+13 {
		t.Errorf("pid stat: %d, %v", user, err)
	}
	rss, peak, err := parseMemory("Name:\tx\nVmPeak:\t  999 kB\nVmHWM:\t    8 kB\nVmRSS:\t    4 kB\n")
	if err != nil || rss != 4096 || peak != 8192 {
		t.Errorf("status: %d, %d, %v", rss, peak, err)
	}
	for _, text := range []string{"", "x", "-1 2 3", "cpu", "cpu 1 2 3", "cpu a b c d e f g h i", "1 (x", "1 (x) S 1", "VmRSS: many kB\n", "VmHWM: 0 kB\n"} {
		_, err1 := parseSchedstat(text)
		_, err2 := parseStat(text)
		_, err3 := parsePidStat(text)
		_, _, err4 := parseMemory(text)
		if text != "1 (x" && text != "1 (x) S 1" && err1 == nil || err2 == nil || err3 == nil || err4 == nil {
			t.Errorf("%q: %v, %v, %v, %v", text, err1, err2, err3, err4)
		}
	}
}

func TestThisProcessUsesTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for x := 0; ; x++ {
		after, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			break
		}
	}
	if rss, peak, err := memory(os.Getpid()); err != nil || rss <= 0 || peak < rss {
		t.Errorf("%d, %d, %v", rss, peak, err)
	}
}

func TestForeignWorkIsUserTimeThatIsNotOurs(t *testing.T) {
	at := time.Now()
	before := usage{at: at, machine: machineTicks{user: 100, nice: 10, system: 50, steal: 1}, ourUser: 30}
	after := usage{at: at.Add(2 * time.Second), daemons: time.Second, machine: machineTicks{user: 250, nice: 60, system: 80, steal: 3}, ourUser: 130}
	s := after.since(before)
	if s.foreign != 0.5 || s.machine != 2300*time.Millisecond || s.daemons != time.Second || s.steal != 20*time.Millisecond {
		t.Errorf("%+v", s)
	}
	after.ourUser = 1000 // ours is scaled, the machine's is sampled: it may be more
	if s := after.since(before); s.foreign != 0 {
		t.Errorf("%+v", s)
	}
}

func TestParseRoundTrips(t *testing.T) {
	r, err := parsePing("PING 10.0.0.2 (10.0.0.2) 56(84) bytes of data.\n64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.054 ms\n64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=1.2 ms\n\n--- statistics ---\nrtt min/avg/max/mdev = 0.054/0.6/1.2/0 ms\n")
	if err != nil || !reflect.DeepEqual(r, rtts{54 * time.Microsecond, 1200 * time.Microsecond}) {
		t.Errorf("%v, %v", r, err)
	}
	if _, err := parsePing("2 packets transmitted, 0 received"); err == nil {
		t.Error("silence is no error")
	}
	if r, err := parseEchoes("5\n7\n"); err != nil || !reflect.DeepEqual(r, rtts{5, 7}) {
		t.Errorf("%v, %v", r, err)
	}
	for _, bad := range []string{"", "x\n", "-3\n"} {
		if r, err := parseEchoes(bad); err == nil {
			t.Errorf("%q: %v", bad, r)
		}
	}
	many := rtts{9000, 1000, 5000, 3000, 7000}
	if many.micros(0.5) != 5 || many.micros(0) != 1 || many.micros(1) != 9 || rtts(nil).micros(0.5) != 0 || many[0] != 9000 {
		t.Errorf("quantiles: %v %v %v", many.micros(0.5), many.micros(0), many.micros(1))
	}
}

func TestParseCurl(t *testing.T) {
	if b, err := parseCurl("1000000 2.0"); err != nil || b.bytes != 1000000 || b.elapsed != 2*time.Second || b.retrans != -1 {
		t.Errorf("%+v, %v", b, err)
	}
	for _, bad := range []string{"", "5", "0 1", "5 0", "x 1", "5 x", "5 NaN", "5 1 1", "-1 1"} {
		if b, err := parseCurl(bad); err == nil {
			t.Errorf("%q: %+v", bad, b)
		}
	}
}

// FuzzParse gives every parser the same bytes: none may panic, and what one
// accepts must make sense.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		`{"end": {"sum_sent": {"retransmits": 3}, "sum_received": {"seconds": 2, "bytes": 1000000}}}`, "7035913 22033 12\n",
		"cpu  401886 30019 84965 855418 1587 3 6798 205 0 0\n", "42 (a) S 1 42 42 0 -1 4194560 5 6 7 8 11 12 13 14 20",
		"VmHWM:\t    8 kB\nVmRSS:\t    4 kB\n", "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.054 ms\n", "5\n7\n", "1000000 2.0",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := parseIperf(data); err == nil && (b.bytes <= 0 || b.elapsed < 0) {
			t.Errorf("iperf3: %+v", b)
		}
		if b, err := parseCurl(string(data)); err == nil && (b.bytes <= 0 || b.elapsed < 0) {
			t.Errorf("curl: %+v", b)
		}
		if d, err := parseSchedstat(string(data)); err == nil && d < 0 {
			t.Errorf("schedstat: %v", d)
		}
		if _, peak, err := parseMemory(string(data)); err == nil && peak == 0 {
			t.Error("status without a peak")
		}
		if r, err := parsePing(string(data)); err == nil && len(r) == 0 {
			t.Error("ping without an answer")
		}
		if r, err := parseEchoes(string(data)); err == nil && len(r) == 0 {
			t.Error("echo without an answer")
		}
		_, _ = parseStat(string(data))
		_, _ = parsePidStat(string(data))
	})
}
