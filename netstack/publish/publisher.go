package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/netstack/pump"
)

const (
	// The defaults leave room in a usual limit of 65,536 open files (two for a
	// connection, one for a flow) and stop one member from taking it all.
	defaultMaxConns           = 4096
	defaultMaxConnsPerBackend = 1024
	defaultMaxPerClient       = 256
	defaultMaxFlows           = 1024
	defaultMaxFlowsInAll      = 8192
	// defaultDialTimeout is for a target on this host or the next.
	defaultDialTimeout = 5 * time.Second
	// defaultUDPIdle is what NATs commonly grant a UDP flow.
	defaultUDPIdle = 60 * time.Second
	// retryEvery is how often ports that could not be opened are tried again,
	// such as those whose address the stack gets a moment later.
	retryEvery = 2 * time.Second
)

// A Stack has ports of its own addresses answer inside the slice. It hands a
// port's socket to opened when it makes it, which may be before the call returns
// or only when the port is first called: at most once, never after Close has
// returned, which closes the socket as well. opened does not block and does not
// call the Stack. Connections should have CloseWrite, and Abort or SetLinger to
// reset.
type Stack interface {
	OpenTCP(addr netip.AddrPort, opened func(net.Listener)) (io.Closer, error)
	OpenUDP(addr netip.AddrPort, opened func(net.PacketConn)) (io.Closer, error)
}

// Config is what a Publisher needs.
type Config struct {
	Stack Stack
	Log   *slog.Logger // state changes; failed targets at debug level; nil discards

	// Dial connects ports with their targets on behalf of a member; nil means the
	// host's net.Dialer. What it returns for UDP keeps the borders of datagrams,
	// and should have Await, as Awaiter says.
	Dial func(ctx context.Context, network, addr string, member netip.Addr) (net.Conn, error)

	MaxConns           int           // TCP connections in all; zero means 4096
	MaxConnsPerBackend int           // TCP connections of one backend; zero means 1024
	MaxPerClient       int           // TCP connections, or UDP flows of a port, of one member; zero means 256
	MaxFlows           int           // UDP flows of one port; zero means 1024
	MaxFlowsInAll      int           // UDP flows of all ports, but that each port may have one; zero means 8192
	DialTimeout        time.Duration // for a target; zero means 5 s
	UDPIdle            time.Duration // a flow without a datagram ends; zero means 60 s
}

func (c *Config) validate() error {
	if c.Stack == nil {
		return errors.New("publish: no stack")
	}
	if c.MaxConns < 0 || c.MaxConnsPerBackend < 0 || c.MaxPerClient < 0 || c.MaxFlows < 0 || c.MaxFlowsInAll < 0 {
		return errors.New("publish: a limit is negative")
	}
	if c.DialTimeout < 0 || c.UDPIdle < 0 {
		return errors.New("publish: a timeout is negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&c.MaxConns, defaultMaxConns)
	orDefault(&c.MaxConnsPerBackend, defaultMaxConnsPerBackend)
	orDefault(&c.MaxPerClient, defaultMaxPerClient)
	orDefault(&c.MaxFlows, defaultMaxFlows)
	orDefault(&c.MaxFlowsInAll, defaultMaxFlowsInAll)
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

// A Publisher carries the published ports of one slice.
type Publisher struct {
	cfg   Config
	pump  pump.Pump
	conns atomic.Int64 // TCP connections in all
	flows atomic.Int64 // UDP flows in all
	bufs  sync.Pool    // of *[maxDatagram]byte
	wg    sync.WaitGroup

	mu      sync.Mutex // guards all below
	ctx     context.Context
	state   state
	wanted  []spec
	invalid error // what Set was told and cannot do
	open    map[key]*socket
	failed  map[key]error // why a wanted socket is not open
	shares  map[string]*share
}

type state uint8

const (
	idle state = iota
	running
	ended
)

// A share is what the sockets of one backend have in common.
type share struct {
	conns     atomic.Int64 // TCP
	flows     atomic.Int64 // UDP
	accepted  atomic.Uint64
	refused   atomic.Uint64 // over a limit
	unreached atomic.Uint64 // the target did not answer
	evicted   atomic.Uint64 // UDP flows that gave way
	dropped   atomic.Uint64 // datagrams lost
	bytes     pump.Bytes

	mu      sync.Mutex
	clients map[netip.Addr]int // TCP connections by member
	last    error              // what the last dial came to; nil once one works
}

// A socket is an open port: a listener or a packet socket on the slice, which
// the stack may not have made yet.
type socket struct {
	p      *Publisher
	key    key
	share  *share
	target atomic.Pointer[target]
	closer io.Closer
	udp    atomic.Pointer[udpPort] // nil for TCP, and before there is a socket

	// Both nil before there is a socket: then the stack sets them, and it does no
	// more once closer is closed.
	ctx    context.Context // ends when the port is closed
	cancel context.CancelFunc
}

// New checks cfg. Nothing is published before Set and Run.
func New(cfg Config) (*Publisher, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Publisher{cfg: cfg, open: make(map[key]*socket), failed: make(map[key]error), shares: make(map[string]*share)}, nil
}

// Set states all backends. Ports that stay keep their sockets and connections,
// and lead to their new target from the next connection on; ports that go are
// closed and their connections reset. What is wrong or cannot be opened is
// returned, each with its reason, and does not keep others from opening; ports
// that could not be opened are tried again while Run runs. Before Run, Set
// opens nothing; after it, Set returns net.ErrClosed.
func (p *Publisher) Set(backends []Backend) error {
	wanted, invalid := specs(backends)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == ended {
		return fmt.Errorf("publish: %w", net.ErrClosed)
	}
	p.wanted, p.invalid = wanted, invalid
	for _, s := range wanted {
		if p.shares[s.backend] == nil {
			p.shares[s.backend] = &share{clients: make(map[netip.Addr]int)}
		}
	}
	if p.state == idle {
		return invalid
	}
	return errors.Join(invalid, p.applyLocked())
}

// Run serves the ports until ctx ends. It then resets every connection and
// returns when all are gone. It may be called once.
func (p *Publisher) Run(ctx context.Context) error {
	p.mu.Lock()
	if p.state != idle {
		p.mu.Unlock()
		return errors.New("publish: run called twice")
	}
	p.ctx, p.state = ctx, running
	_ = p.applyLocked() // logged, and tried again below
	p.mu.Unlock()

	tick := time.NewTicker(retryEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			p.retry()
		}
	}
	p.mu.Lock()
	p.state, p.wanted = ended, nil
	_ = p.applyLocked() // nothing is wanted, so nothing can fail
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

func (p *Publisher) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.failed) > 0 {
		_ = p.applyLocked() // logged when it changes
	}
}

// applyLocked closes what is no longer wanted, then opens what is missing.
func (p *Publisher) applyLocked() error {
	want := make(map[key]spec, len(p.wanted))
	for _, s := range p.wanted {
		want[s.key] = s
	}
	for k, o := range p.open {
		if s, ok := want[k]; !ok || p.shares[s.backend] != o.share {
			o.close()
			delete(p.open, k)
			p.cfg.Log.Info("port closed", "addr", k.String())
		}
	}
	before := p.failed
	p.failed = make(map[key]error)
	var faults []error
	for _, s := range p.wanted {
		if o := p.open[s.key]; o != nil {
			o.lead(s.target)
			continue
		}
		if err := p.openLocked(s); err != nil {
			err = fmt.Errorf("publish %s: open %v: %w", s.backend, s.key, err)
			p.failed[s.key] = err
			faults = append(faults, err)
			if before[s.key] == nil {
				p.cfg.Log.Warn("port does not open, retrying", "service", s.backend, "err", err)
			}
			continue
		}
		p.cfg.Log.Info("port open", "service", s.backend, "addr", s.key.String(), "target", s.target.addr)
	}
	p.forgetLocked()
	return errors.Join(faults...)
}

// forgetLocked lets go of the counts of backends that are gone.
func (p *Publisher) forgetLocked() {
	named := make(map[string]bool)
	for _, s := range p.wanted {
		named[s.backend] = true
	}
	for name := range p.shares {
		if !named[name] {
			delete(p.shares, name)
		}
	}
}

func (p *Publisher) openLocked(s spec) error {
	o := &socket{p: p, key: s.key, share: p.shares[s.backend]}
	o.target.Store(&s.target)
	var err error
	if s.key.udp {
		o.closer, err = p.cfg.Stack.OpenUDP(s.key.addr, func(pc net.PacketConn) {
			o.ctx, o.cancel = context.WithCancel(p.ctx)
			u := newUDPPort(o, pc)
			o.udp.Store(u)
			p.wg.Go(u.serve)
		})
	} else {
		o.closer, err = p.cfg.Stack.OpenTCP(s.key.addr, func(l net.Listener) {
			o.ctx, o.cancel = context.WithCancel(p.ctx)
			p.wg.Go(func() { o.accept(l) })
		})
	}
	if err != nil {
		return err
	}
	p.open[s.key] = o
	return nil
}

// lead points a port that stays at its target.
func (o *socket) lead(to target) {
	if *o.target.Load() == to {
		return
	}
	o.target.Store(&to)
	if u := o.udp.Load(); u != nil { // flows to the old target end
		u.retire(func(*udpFlow) bool { return false })
	}
}

func (o *socket) close() {
	_ = o.closer.Close() // nothing can be done about a socket that is gone
	if o.cancel != nil {
		o.cancel()
	}
}

// dialed remembers what reaching the target came to.
func (s *share) dialed(err error) {
	if err != nil {
		s.unreached.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = err
}

// Review asks keep about the far end of every UDP flow, which is what Dial
// connected to, and ends those that it does not want: their next datagram
// begins another. keep is called without a lock held, also for flows that end
// meanwhile. TCP connections end by themselves, so they are not asked about.
func (p *Publisher) Review(keep func(target string, remote net.Addr) bool) {
	p.mu.Lock()
	var ports []*udpPort
	for _, o := range p.open {
		if u := o.udp.Load(); u != nil {
			ports = append(ports, u)
		}
	}
	p.mu.Unlock()
	for _, u := range ports {
		to := u.target.Load().addr
		unwanted := make(map[*udpFlow]bool)
		for _, f := range u.living() {
			if remote := f.remote(); remote != nil && !keep(to, remote) {
				unwanted[f] = true
			}
		}
		if len(unwanted) > 0 {
			u.retire(func(f *udpFlow) bool { return !unwanted[f] })
		}
	}
}
