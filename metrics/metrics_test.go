package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// serving runs a server until the test ends and returns its address.
func serving(t *testing.T, sources ...Source) string {
	t.Helper()
	opt := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, opt) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Listener: l, Sources: sources})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return l.Addr().String()
}

func get(t *testing.T, method, addr, host, path string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestNumbersAreShownAsPrometheusReadsThem(t *testing.T) {
	asked := &Family{"slicewire_asked_total", "Questions.", Counter, []string{"slice"}}
	held := &Family{"slicewire_held", "Names.", Gauge, nil}
	took := &Family{"slicewire_took_seconds", "Time.", Histogram, []string{"slice"}}
	addr := serving(t, func(emit func(*Family, Sample)) {
		emit(asked, Sample{Labels: []string{"blue"}, Value: 7})
		emit(asked, Sample{Labels: []string{"re\"d\n"}, Value: 1}) // what others chose may hold anything
		emit(took, Sample{Labels: []string{"blue"}, Count: 3, Sum: 0.5, Buckets: map[float64]uint64{0.1: 1, 1: 3}})
	}, func(emit func(*Family, Sample)) { emit(held, Sample{Value: 2.5}) })
	code, body := get(t, "GET", addr, "", "/metrics")
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{
		"# TYPE slicewire_asked_total counter", "slicewire_asked_total{slice=\"blue\"} 7\n", `slicewire_asked_total{slice="re\"d\n"} 1`, "slicewire_held 2.5\n",
		`slicewire_took_seconds_bucket{slice="blue",le="0.1"} 1`, `slicewire_took_seconds_bucket{slice="blue",le="+Inf"} 3`, `slicewire_took_seconds_sum{slice="blue"} 0.5`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q in\n%s", want, body)
		}
	}
}

// A number that cannot be is left out and does not keep others from being seen.
func TestANumberThatCannotBeHindersNoOther(t *testing.T) {
	f := &Family{"slicewire_asked_total", "Questions.", Counter, []string{"slice"}}
	addr := serving(t, func(emit func(*Family, Sample)) {
		emit(f, Sample{Labels: []string{"one", "too many"}, Value: 7})
		emit(f, Sample{Labels: []string{"blue"}, Value: 8})
	})
	if code, body := get(t, "GET", addr, "", "/metrics"); code != http.StatusOK || !strings.Contains(body, `{slice="blue"} 8`) || strings.Contains(body, "too many") {
		t.Errorf("%d %s", code, body)
	}
}

func TestWhoIsAnswered(t *testing.T) {
	addr := serving(t)
	for _, c := range []struct {
		method, host, path string
		want               int
	}{
		{"GET", "", "/metrics", 200},
		{"HEAD", "", "/metrics", 200},
		{"GET", "localhost:9586", "/metrics", 200},
		{"GET", "[::1]:9586", "/metrics", 200},
		{"GET", "evil.example", "/metrics", 421},
		{"GET", "127.0.0.1.evil.example:9586", "/metrics", 421},
		{"POST", "", "/metrics", 405},
		{"GET", "", "/", 404},
		{"GET", "", "/debug/pprof/", 404},
	} {
		if code, body := get(t, c.method, addr, c.host, c.path); code != c.want {
			t.Errorf("%s %s at %q: %d, want %d: %s", c.method, c.path, c.host, code, c.want, body)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a server without a listener is made")
	}
}
