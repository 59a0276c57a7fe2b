package socks

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
	// defaultMaxConns suits a busy host and 128 KiB of buffers per connection
	// that carries bulk both ways.
	defaultMaxConns = 1024
	// defaultMaxAssociations is lower: each pins up to three 64 KiB buffers.
	defaultMaxAssociations = 128
	// defaultHandshakeTimeout is for the whole request of a local client.
	defaultHandshakeTimeout = 10 * time.Second
	// defaultDialTimeout bounds resolving and all attempts together. TCP on a
	// slice whose gateway fails over retries its SYN after 1, 3 and 7 s.
	defaultDialTimeout = 15 * time.Second
	// defaultUDPIdle is what NATs commonly grant a UDP flow.
	defaultUDPIdle = 60 * time.Second

	// fullEvery spaces the warnings of a proxy that stays full.
	fullEvery = time.Minute

	minBackoff = 5 * time.Millisecond
	maxBackoff = time.Second
)

// A Dialer opens connections and sockets on the slice. What a context bounds is
// connecting; a connection outlives it. Errors are told apart as ErrNotAllowed
// says. Connections should have CloseWrite, and Abort or SetLinger to reset.
type Dialer interface {
	DialTCP(ctx context.Context, dst netip.AddrPort) (net.Conn, error)
	// ListenUDP returns a socket of one family that may send to anybody.
	ListenUDP(v6 bool) (net.PacketConn, error)
}

// A Resolver finds addresses of names inside the slice, and only there; the
// best first. An error that is ErrNoName says that there are none.
type Resolver interface {
	Lookup(ctx context.Context, name string) ([]netip.Addr, error)
}

// Config is what a Server needs.
type Config struct {
	Listener net.Listener // TCP or unix; Run serves and closes it
	Dialer   Dialer
	Resolver Resolver
	Log      *slog.Logger // gets state changes, and failures at debug level; nil discards

	MaxConns         int           // clients at once; more are reset. Zero means 1024
	MaxAssociations  int           // UDP associations at once; zero means 128
	HandshakeTimeout time.Duration // for the client's request; zero means 10 s
	DialTimeout      time.Duration // for resolving and connecting; zero means 15 s
	UDPIdle          time.Duration // an association without a datagram ends; zero means 60 s
}

func (c *Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("socks: no listener")
	case c.Dialer == nil:
		return errors.New("socks: no dialer")
	case c.Resolver == nil:
		return errors.New("socks: no resolver")
	case c.MaxConns < 0 || c.MaxAssociations < 0:
		return errors.New("socks: a limit is negative")
	case c.HandshakeTimeout < 0 || c.DialTimeout < 0 || c.UDPIdle < 0:
		return errors.New("socks: a timeout is negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&c.MaxConns, defaultMaxConns)
	orDefault(&c.MaxAssociations, defaultMaxAssociations)
	orDefault(&c.HandshakeTimeout, defaultHandshakeTimeout)
	orDefault(&c.DialTimeout, defaultDialTimeout)
	orDefault(&c.UDPIdle, defaultUDPIdle)
	return nil
}

func orDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// A Server is the proxy of one slice on one listener.
type Server struct {
	cfg     Config
	started atomic.Bool
	wg      sync.WaitGroup // everything that Run started
	pump    pump.Pump
	buffers buffers
	stats   counters
}

// New checks cfg.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Server{cfg: cfg}, nil
}

// Run serves the listener until ctx ends or the listener is closed by others.
// It then resets every connection and returns when all are gone. It may be
// called once.
func (s *Server) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("socks: run called twice")
	}
	serving, cancel := context.WithCancel(ctx)
	defer s.wg.Wait()
	defer cancel()
	l := s.cfg.Listener
	s.wg.Go(func() {
		<-serving.Done()
		l.Close()
	})
	var full time.Time // when it was last said
	for pause := minBackoff; ; {
		c, err := l.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("socks: accept on %v: %w", l.Addr(), err)
		default: // out of files or memory, most likely
			if pause == minBackoff {
				s.cfg.Log.Warn("proxy does not accept, retrying", "addr", l.Addr(), "err", err)
			}
			sleep(ctx, pause)
			pause = min(2*pause, maxBackoff)
			continue
		}
		pause = minBackoff
		if s.stats.conns.Add(1) > int64(s.cfg.MaxConns) {
			s.stats.conns.Add(-1)
			s.stats.refused.Add(1)
			pump.Reset(c)
			if now := time.Now(); now.Sub(full) > fullEvery {
				full = now
				s.cfg.Log.Warn("proxy is full, clients are reset", "addr", l.Addr(), "limit", s.cfg.MaxConns)
			}
			continue
		}
		s.stats.accepted.Add(1)
		s.wg.Go(func() {
			defer s.stats.conns.Add(-1)
			s.serve(serving, c)
		})
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
