// Package forward leads a local port to a destination on a slice: a program
// that knows no proxy connects to 127.0.0.1:15201 and is at iperf-server.
//
// It serves one TCP or unix listener that is handed in, resolves the
// destination inside the slice for every connection (never on the host), and
// carries bytes both ways unread. It opens no listener itself, knows no slice
// and keeps no packet buffer. All methods may be called concurrently.
package forward

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/netstack/pump"
)

const (
	// defaultMaxConns bounds what one local port may hold open: as many as a
	// busy client pool, well below a usual limit of open files.
	defaultMaxConns = 1024
	// dialTimeout bounds resolving and connecting, over all addresses.
	dialTimeout = 10 * time.Second
	// acceptPause is how long accepting rests after an error such as too many
	// open files, which does not go away by asking again at once.
	acceptPause = 100 * time.Millisecond
)

// ErrNoAddress says that the destination's name has no address on the slice.
var ErrNoAddress = errors.New("the name has no address on the slice")

// A Dialer opens connections on the slice.
type Dialer interface {
	DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error)
}

// A Resolver finds addresses of names inside the slice.
type Resolver interface {
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
}

// Config is what a Server is made of. All fields but MaxConns are needed.
type Config struct {
	Listener net.Listener // served and closed
	Host     string       // DNS name or address on the slice
	Port     uint16
	Dialer   Dialer
	Resolver Resolver
	Log      *slog.Logger
	MaxConns int // connections at once; zero means 1024, more are closed at once
}

func (c *Config) validate() error {
	switch {
	case c.Listener == nil || c.Dialer == nil || c.Resolver == nil || c.Log == nil:
		return errors.New("forward: a listener, a dialer, a resolver and a logger are needed")
	case c.Host == "" || c.Port == 0:
		return fmt.Errorf("forward: destination %q port %d: a host and a port are needed", c.Host, c.Port)
	case c.MaxConns < 0:
		return fmt.Errorf("forward: MaxConns %d is negative", c.MaxConns)
	}
	if c.MaxConns == 0 {
		c.MaxConns = defaultMaxConns
	}
	return nil
}

// A Server leads one local port to one destination.
type Server struct {
	cfg     Config
	pump    pump.Pump
	moved   pump.Bytes
	active  atomic.Int64
	refused atomic.Uint64 // over MaxConns
	failed  atomic.Uint64 // not resolved or not connected
}

// New checks cfg; it starts nothing.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg}, nil
}

// Stats counts what a Server did.
type Stats struct {
	Active       int64
	Refused      uint64 // connections beyond MaxConns
	Failed       uint64 // connections whose destination was not reached
	BytesToSlice uint64
	BytesToLocal uint64
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Active: s.active.Load(), Refused: s.refused.Load(), Failed: s.failed.Load(),
		BytesToSlice: s.moved.Up.Load(), BytesToLocal: s.moved.Down.Load(),
	}
}

// Run serves the listener until ctx ends and returns after its last connection
// is closed: nil if ctx ended it.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.cfg.Listener.Close() })
	defer stop()
	for {
		c, err := s.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("forward %v: %w", s.cfg.Listener.Addr(), err)
		case err != nil:
			s.cfg.Log.Warn("forward cannot accept", "addr", s.cfg.Listener.Addr().String(), "err", err)
			pause(ctx, acceptPause)
			continue
		}
		if s.active.Add(1) > int64(s.cfg.MaxConns) {
			s.active.Add(-1)
			s.refused.Add(1)
			pump.Reset(c)
			continue
		}
		conns.Go(func() {
			defer s.active.Add(-1)
			s.serve(ctx, c)
		})
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (s *Server) serve(ctx context.Context, local net.Conn) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	far, err := s.dial(dctx)
	cancel()
	if err != nil {
		s.failed.Add(1)
		s.cfg.Log.Debug("forward not connected", "host", s.cfg.Host, "port", s.cfg.Port, "err", err)
		pump.Reset(local)
		return
	}
	// How a connection ended is its two ends' business.
	_ = s.pump.Move(ctx, local, far, &s.moved)
}

// dial tries the destination's addresses in order.
func (s *Server) dial(ctx context.Context) (net.Conn, error) {
	addrs, err := s.resolve(ctx)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", s.cfg.Host, err)
	}
	fault := ErrNoAddress
	for _, a := range addrs {
		c, err := s.cfg.Dialer.DialTCP(ctx, netip.AddrPortFrom(a, s.cfg.Port))
		if err == nil {
			return c, nil
		}
		fault = err
	}
	return nil, fault
}

func (s *Server) resolve(ctx context.Context) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(s.cfg.Host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	return s.cfg.Resolver.Lookup(ctx, s.cfg.Host)
}
