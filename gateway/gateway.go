package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// lookEvery is how often peers are checked for a session.
	lookEvery = time.Second
	// greetEvery is how often greetings are looked at while there are any.
	greetEvery = 100 * time.Millisecond
	// sweepEvery is how often unused receiver indices are forgotten.
	sweepEvery = 30 * time.Second
)

// A Gateway is the encrypted side of a node. Make it with New, say with Set
// what should be, and Run it once.
type Gateway struct {
	cfg  Config
	sock *socket
	mux  *mux
	wake chan struct{} // capacity 1: there is somebody to greet

	probed   chan struct{}            // capacity 1: probes have brought news
	watching atomic.Pointer[[]*trunk] // what runs, for the probing

	mu      sync.Mutex
	state   state
	desired []Tunnel // what Set said, in its order
	running map[tunnelID]*tunnel
	trunks  map[string]*trunk // by slice, of what runs
	leaving bool
}

type state uint8

const (
	stateNew state = iota
	stateRunning
	stateEnded
)

// ErrEnded is returned by Set and Run after Run has ended.
var ErrEnded = errors.New("gateway has ended")

// New makes a Gateway. It starts nothing; until Run takes over, the socket is
// still the caller's to close.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s, err := newSocket(cfg.Conn, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if cfg.OuterTOS != TOSOff {
		s.showClasses()
	}
	m := newMux(s, s.inet6, cfg.Log)
	if a, ok := cfg.Conn.LocalAddr().(*net.UDPAddr); ok {
		m.local = a.AddrPort()
	}
	return &Gateway{
		cfg:     cfg,
		sock:    s,
		mux:     m,
		wake:    make(chan struct{}, 1),
		probed:  make(chan struct{}, 1),
		running: make(map[tunnelID]*tunnel),
		trunks:  make(map[string]*trunk),
	}, nil
}

// Set states all tunnels that should be. What is there already stays as it is:
// sessions, counters and learnt endpoints. When one tunnel cannot be set, the
// others are, and the error names it; Set may be called again with the same.
func (g *Gateway) Set(tunnels []Tunnel) error {
	if err := validateAll(tunnels); err != nil {
		return err
	}
	desired := make([]Tunnel, len(tunnels))
	for i, t := range tunnels {
		desired[i] = t.clone()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state == stateEnded {
		return ErrEnded
	}
	old := g.desired
	g.desired = desired
	var errs []error
	if g.state == stateRunning {
		errs = append(errs, g.applyLocked())
	}
	inside := make(map[Link]bool)
	for i := range desired {
		inside[desired[i].Inside] = true
	}
	for i := range old { // those of running tunnels are closed already: again does nothing
		if !inside[old[i].Inside] {
			errs = append(errs, old[i].Inside.Close())
		}
	}
	return errors.Join(errs...)
}

// applyLocked makes what runs equal to what is desired.
func (g *Gateway) applyLocked() error {
	is := make(map[tunnelID]bool, len(g.desired))
	inside := make(map[string]Link)
	known := make(map[netip.Addr]struct{})
	for i := range g.desired {
		t := &g.desired[i]
		is[t.id()], inside[t.Slice] = true, t.Inside
		for _, p := range t.Peers {
			for _, e := range p.Endpoints {
				known[e.Addr()] = struct{}{}
			}
		}
	}
	g.mux.known.Store(&known)
	for id, t := range g.running {
		if inside[id.slice] != t.trunk.inside {
			g.closeLocked(id)
		}
	}
	var errs []error
	for i := range g.desired {
		want := g.desired[i]
		t, err := g.ensureLocked(&want)
		if err == nil {
			err = t.set(want, g.usable)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("tunnel %q: %w", want.Slice, err))
		}
		if t != nil && !want.Passive {
			t.lead()
		}
	}
	for id := range g.running { // last, so that somebody sends all the time
		if !is[id] {
			g.closeLocked(id)
		}
	}
	select {
	case g.wake <- struct{}{}:
	default:
	}
	g.news()
	return errors.Join(errs...)
}

// ensureLocked returns the running tunnel, opened if need be.
func (g *Gateway) ensureLocked(want *Tunnel) (*tunnel, error) {
	if t := g.running[want.id()]; t != nil {
		return t, nil
	}
	k := g.trunks[want.Slice]
	if k == nil {
		k = newTrunk(want, g.cfg.Log, g.mux.now, g.news)
		k.probes.setLeaving(g.leaving)
	}
	t, err := newTunnel(*want, k, g.mux, &g.cfg)
	if err != nil {
		return nil, err
	}
	g.trunks[want.Slice], g.running[want.id()] = k, t
	g.bindsLocked() // before its first initiation can be answered
	return t, nil
}

// closeLocked ends a tunnel: first nothing more is led to it, then its device
// goes, then what was learnt of it.
func (g *Gateway) closeLocked(id tunnelID) {
	t := g.running[id]
	delete(g.running, id)
	if len(t.trunk.tunnels) == 1 {
		delete(g.trunks, id.slice)
	}
	g.bindsLocked()
	t.close()
	g.mux.index.forget(t.bind)
}

// bindsLocked publishes the slices that may receive initiations, and whose links
// are watched.
func (g *Gateway) bindsLocked() {
	all := make([]*bind, 0, len(g.running))
	for _, t := range g.running {
		all = append(all, t.bind)
	}
	trunks := slices.Collect(maps.Values(g.trunks))
	g.mux.binds.Store(&all)
	g.watching.Store(&trunks)
}

// usable reports whether the socket's family can reach an address.
func (g *Gateway) usable(a netip.AddrPort) bool {
	if a.Addr().Is4() {
		return !g.sock.only6
	}
	return g.sock.inet6
}

// Run carries packets until ctx ends, then closes every tunnel, every Link
// that is set and the socket, and returns nil; or the fault that ended it
// before.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	if g.state != stateNew {
		g.mu.Unlock()
		return ErrEnded
	}
	g.state = stateRunning
	err := g.applyLocked()
	g.mu.Unlock()

	read := make(chan error, 1)
	if err != nil {
		read <- nil
	} else {
		go func() {
			read <- g.mux.read()
			cancel()
		}()
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			g.watch(ctx)
		}()
		g.keep(ctx)
		<-watched
	}

	g.mu.Lock()
	g.state = stateEnded
	for id := range g.running {
		g.closeLocked(id)
	}
	for i := range g.desired {
		err = errors.Join(err, g.desired[i].Inside.Close())
	}
	g.mu.Unlock()
	err = errors.Join(err, g.sock.close()) // ends the reader, if it has not ended by itself
	return errors.Join(err, <-read)
}

// keep does what is due from time to time until ctx ends.
func (g *Gateway) keep(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	greet := time.NewTimer(greetEvery)
	defer greet.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			g.each(func(t *tunnel) { t.look(now) })
		case <-sweep.C:
			g.mux.index.sweep(g.mux.seconds())
		case <-g.wake:
			greet.Reset(greetEvery)
		case now := <-greet.C:
			left := false
			g.each(func(t *tunnel) { left = t.greet(now) || left })
			if left {
				greet.Reset(greetEvery)
			}
		}
	}
}

func (g *Gateway) each(f func(*tunnel)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, t := range g.running {
		f(t)
	}
}
