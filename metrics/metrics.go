// Package metrics shows the numbers of other parts to Prometheus, as text over
// HTTP at /metrics. It is the only importer of prometheus/client_golang.
//
// It counts nothing itself: at every request it asks its sources, which have
// the numbers anyway. It never changes anything, answers nothing but GET, and on
// a loopback address refuses requests that name another host, as a web page that
// had its name lead here would make (DNS rebinding). Sources are called by one
// request at a time.
package metrics

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Kind says what a family's numbers are.
type Kind uint8

// The kinds.
const (
	Counter   Kind = iota // only grows
	Gauge                 // goes up and down
	Histogram             // see Sample.Buckets
)

// A Family is a metric: its name, with the unit at its end, and what its labels
// are called.
type Family struct {
	Name   string
	Help   string
	Kind   Kind
	Labels []string
}

// A Sample is one number of a family.
type Sample struct {
	Labels []string // the values, one for each of the family's
	Value  float64

	// Of a histogram: how many were at most each bound, how many in all, and
	// their sum.
	Buckets map[float64]uint64
	Count   uint64
	Sum     float64
}

// A Source tells its numbers by calling emit. Each family and set of labels may
// come once. Families are told apart by identity: make each once.
type Source func(emit func(*Family, Sample))

// Config is what a Server needs.
type Config struct {
	Listener net.Listener // Run closes it
	Sources  []Source
	Log      *slog.Logger // nil discards
}

// A Server answers for the metrics of one process.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// shown is how long a request for the numbers may take, reading and writing.
const shown = 30 * time.Second

// New checks cfg. Nothing is answered before Run.
func New(cfg Config) (*Server, error) {
	if cfg.Listener == nil {
		return nil, errors.New("metrics: no listener")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	registry := prometheus.NewRegistry()
	if err := registry.Register(collector(cfg.Sources)); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: 1, // a second one gets 503: the sources are not asked twice at once
		ErrorLog:            slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
	}))
	var handler http.Handler = mux
	if onLoopback(cfg.Listener.Addr()) {
		handler = ownHost(mux)
	}
	return &Server{cfg.Listener, &http.Server{
		Handler: handler, ReadTimeout: shown, WriteTimeout: shown, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}}, nil
}

// Run serves until ctx ends, or the listener fails.
func (s *Server) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- s.http.Serve(s.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.http.Shutdown(ending) != nil {
		_ = s.http.Close() // who still reads has had its time
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func onLoopback(a net.Addr) bool {
	t, is := a.(*net.TCPAddr)
	return is && t.IP.IsLoopback()
}

// ownHost lets pass what names this machine as its own programs do: by address
// or as localhost.
func ownHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			http.Error(w, "this is not the host that was asked for", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}
