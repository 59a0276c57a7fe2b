package router

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// maxWait is how long the reader of the node's own stack waits for room in the
// queue toward the tunnel. The wait holds back our own TCP instead of dropping
// its packets. A tunnel that stands still costs one such wait and no more, so
// that it does not silence the node toward its workloads.
const maxWait = 100 * time.Millisecond

// fullWait is how long the reader of a workload's port waits when the way
// outside is full. Reading only to drop would take the processor from the tunnel
// and from other slices; what the workload sends meanwhile is lost in its own
// kernel. It is short, as the port may have packets for others, too.
const fullWait = time.Millisecond

// Config says what a Router is for. Its zero values are refused, but for Log, Taps and
// ErrorRate.
type Config struct {
	Slice string       // names the slice in logs
	MTU   int          // bytes of the longest packet on the slice; 1280 (IPv6's least) to overlay.MaxPacket
	Log   *slog.Logger // nil means slog.Default

	// Outlet is the way outside. The Router closes it when it ends.
	Outlet Outlet

	// MaxFlows bounds what the Router remembers of the flows that a Policy
	// allowed; 0 means DefaultMaxFlows.
	MaxFlows int
	// Clock says how much time has passed since some moment. nil means the
	// machine's. It is called concurrently, once a batch.
	Clock func() time.Duration
	Taps  *overlay.Taps // who sees packets pass; nil: nobody

	ErrorRate int // ICMP errors a second; 0 means DefaultErrorRate, at most 1e7
}

// An Outlet takes what is routed outside and yields it to the tunnel.
type Outlet interface {
	Link
	// WaitRoom waits until there is room for more, but no longer than d, and
	// reports whether there is. A paced writer is one that holds back who sends;
	// for others there is room until the Outlet would have to drop. timer is the
	// caller's, stopped on entry and on return.
	WaitRoom(timer *time.Timer, d time.Duration, paced bool) bool
	// Wake has a Read that waits, or else the next one that would, return without
	// a packet.
	Wake()
}

func (c *Config) validate() error {
	if c.Slice == "" {
		return errors.New("router: no slice name")
	}
	if c.MTU < 1280 || c.MTU > overlay.MaxPacket {
		return fmt.Errorf("router: slice %s: mtu %d: want 1280 to %d", c.Slice, c.MTU, overlay.MaxPacket)
	}
	if c.ErrorRate < 0 || c.ErrorRate > 1e7 {
		return fmt.Errorf("router: slice %s: %d ICMP errors a second: want 0 to 10 million", c.Slice, c.ErrorRate)
	}
	if c.Outlet == nil {
		return fmt.Errorf("router: slice %s: no outlet", c.Slice)
	}
	if c.MaxFlows < 0 || c.MaxFlows > 1<<24 {
		return fmt.Errorf("router: slice %s: %d flows: want 0 to %d", c.Slice, c.MaxFlows, 1<<24)
	}
	return nil
}

// A Router moves the packets of one slice between its ports.
type Router struct {
	log        *slog.Logger
	mtu        int
	mss4, mss6 uint16
	drops      overlay.Drops
	outlet     Outlet
	closed     atomic.Bool // the outlet was closed
	outside    *port       // there is one, and it stays, whatever State says
	table      atomic.Pointer[table]
	batches    sync.Pool // *batch, for the tunnel's goroutines
	maxFlows   int
	clock      func() time.Duration
	slow       *slowPath
	slice      string
	taps       *overlay.Taps

	mu      sync.Mutex
	ports   map[string]*port
	running bool
	ended   bool
	readers sync.WaitGroup
}

// New makes a Router with no ports.
func New(cfg Config) (*Router, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	log := cfg.Log
	if log == nil {
		log = slog.Default()
	}
	rate := cfg.ErrorRate
	if rate == 0 {
		rate = DefaultErrorRate
	}
	r := &Router{
		log:    log.With("slice", cfg.Slice),
		mtu:    cfg.MTU,
		mss4:   uint16(cfg.MTU - ipv4Header - tcpHeader),
		mss6:   uint16(cfg.MTU - ipv6Header - tcpHeader),
		ports:  make(map[string]*port),
		outlet: cfg.Outlet,
		slow:   newSlowPath(rate),
		slice:  cfg.Slice, taps: cfg.Taps,

		maxFlows: cmp.Or(cfg.MaxFlows, DefaultMaxFlows),
		clock:    cfg.Clock,
	}
	if r.clock == nil {
		start := time.Now()
		r.clock = func() time.Duration { return time.Since(start) }
	}
	r.outside = &port{name: OutsideName, role: Outside, link: cfg.Outlet, n: new(counts)}
	r.batches.New = func() any { return new(batch) }
	r.table.Store(new(table))
	return r, nil
}

// Set states the ports and routes that should be. It may be called before and
// during Run and with the same State again. A port that stays keeps its reader
// and loses nothing; one with another Link than before is new but goes on
// counting. The Links of ports that go are closed. A Link keeps its name and
// role for life. When Set returns an error nothing has changed; once Run was
// told to end, that error is net.ErrClosed.
func (r *Router) Set(s State) error {
	if err := s.validate(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return fmt.Errorf("router: set ports: %w", net.ErrClosed)
	}
	inUse := make(map[Link]*port, len(r.ports))
	for _, p := range r.ports {
		inUse[p.link] = p
	}
	for _, want := range s.Ports {
		if p := inUse[want.Link]; p != nil && (p.name != want.Name || p.role != want.Role) {
			return fmt.Errorf("router: port %q: its link serves port %q, %v", want.Name, p.name, p.role)
		}
	}
	t := &table{version: r.table.Load().version + 1, self4: s.Self4, self6: s.Self6, sources: make(map[*port]*sources, len(s.Ports))}
	ports := make(map[string]*port, len(s.Ports))
	var fresh []*port
	for _, want := range s.Ports {
		p := r.outside
		if want.Role != Outside {
			p = r.ports[want.Name]
			if p == nil || p.link != want.Link {
				n := new(counts)
				if p != nil {
					n = p.n
				}
				p = &port{name: want.Name, role: want.Role, link: want.Link, n: n}
				fresh = append(fresh, p)
			}
			ports[want.Name] = p
		}
		set := new(sources)
		for _, x := range want.Sources {
			set.Insert(x.Masked(), struct{}{})
		}
		t.sources[p] = set
	}
	for _, rt := range s.Routes {
		p := r.outside
		if rt.Port != OutsideName {
			p = ports[rt.Port]
		}
		t.routes.Insert(rt.Prefix.Masked(), p)
	}
	t.setTransit(s)
	t.setPolicy(r.table.Load(), s.Policy, r.maxFlows)

	r.table.Store(t)
	old := r.ports
	r.ports = ports
	for name, p := range old {
		if ports[name] != p {
			r.closeLink(p)
		}
	}
	if r.running {
		for _, p := range fresh {
			r.start(p)
		}
	}
	return nil
}

func (r *Router) closeLink(p *port) {
	if err := p.link.Close(); err != nil {
		r.log.Warn("close port", "port", p.name, "err", err)
	}
}

// start begins to read a port. r.mu is held.
func (r *Router) start(p *port) {
	r.readers.Add(1)
	go r.read(p)
}

// Run serves the ports until ctx ends. It then closes their Links and the
// outside one, waits for every reader and returns nil. It is called once.
func (r *Router) Run(ctx context.Context) error {
	r.mu.Lock()
	if r.running || r.ended {
		r.mu.Unlock()
		return errors.New("router: run twice")
	}
	r.running = true
	for _, p := range r.ports {
		r.start(p)
	}
	r.readers.Add(1)
	go r.serveSlow(ctx)
	r.mu.Unlock()

	<-ctx.Done()

	r.mu.Lock()
	r.running, r.ended = false, true
	for _, p := range r.ports {
		r.closeLink(p)
	}
	r.mu.Unlock()
	err := r.Outside().Close()
	r.readers.Wait()
	return err
}

// read takes batches from a port until its Link is closed.
func (r *Router) read(p *port) {
	defer r.readers.Done()
	size := overlay.Headroom + overlay.MaxPacket
	slab := make([]byte, overlay.BatchSize*size)
	whole := make([][]byte, overlay.BatchSize)
	for i := range whole {
		whole[i] = slab[i*size : (i+1)*size : (i+1)*size]
	}
	bufs := make([][]byte, overlay.BatchSize)
	sizes := make([]int, overlay.BatchSize)
	b := new(batch)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	stalled := false // the last wait for room was in vain
	for {
		switch {
		case p.role != Local:
			r.outlet.WaitRoom(timer, fullWait, false)
		case stalled:
			stalled = !r.outlet.WaitRoom(timer, 0, true)
		default:
			stalled = !r.outlet.WaitRoom(timer, maxWait, true)
		}
		n, err := p.link.Read(whole, sizes)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				r.log.Error("port is dead", "port", p.name, "err", err)
			}
			return
		}
		for i := range n {
			bufs[i] = whole[i][:overlay.Headroom+sizes[i]]
			if p.role == Local {
				overlay.PutMeta(bufs[i], overlay.Meta{Piece: overlay.MetaOf(bufs[i]).Piece, Paced: true})
			}
		}
		r.forward(p, bufs[:n], b)
	}
}

// Outside returns the tunnel's side of the slice. Its Read is the Outlet's; its
// Write takes packets that came from outside and may be called by several
// goroutines. Close ends it for good: Read and Write then return net.ErrClosed,
// and what is routed outside is counted as closed.
func (r *Router) Outside() OutsideLink { return (*outsideLink)(r) }

// An OutsideLink is the tunnel's side of a slice.
type OutsideLink interface {
	Link
	Wake() // has a Read that waits return without a packet
}

type outsideLink Router

func (o *outsideLink) Read(bufs [][]byte, sizes []int) (int, error) {
	return o.outlet.Read(bufs, sizes)
}

func (o *outsideLink) Wake() { o.outlet.Wake() }

func (o *outsideLink) Write(bufs [][]byte) error {
	r := (*Router)(o)
	if r.closed.Load() {
		r.drops.Add(overlay.DropClosed, len(bufs))
		return net.ErrClosed
	}
	b := r.batches.Get().(*batch)
	r.forward(r.outside, bufs, b)
	r.batches.Put(b)
	return nil
}

func (o *outsideLink) Close() error {
	o.closed.Store(true)
	return o.outlet.Close()
}

// Counters returns what was counted so far.
func (r *Router) Counters() Counters {
	r.mu.Lock()
	c := Counters{Ports: []PortCount{r.outside.count()}}
	for _, p := range r.ports {
		c.Ports = append(c.Ports, p.count())
	}
	r.mu.Unlock()
	slices.SortFunc(c.Ports, func(a, b PortCount) int { return cmp.Compare(a.Name, b.Name) })
	c.Drops, c.Slow = r.drops.Snapshot(), r.slow.count()
	return c
}
