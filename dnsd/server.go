package dnsd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

const (
	// DefaultZone is where KubeSlice's names live.
	DefaultZone = "slice.local"
	// DefaultTTL bounds how long a client keeps a dead endpoint, and is long
	// enough that a busy client does not ask for every connection.
	DefaultTTL = 5 * time.Second
	// maxTTL is far above any use and far below the 2^31 s of RFC 2181.
	maxTTL = 24 * time.Hour
	// readBuffer holds what arrives while no reader runs.
	readBuffer = 4 << 20

	maxRate = 1_000_000
	// maxZone leaves room for the SOA's "hostmaster." below the zone.
	maxZone = 240
)

// An Entry says which addresses a name has.
type Entry struct {
	Name    string       // fully qualified, any case, with or without the final dot
	Addrs   []netip.Addr // both families, in any order; none makes a name without data
	Reverse bool         // the addresses have this name
}

// Config is what a Server needs.
type Config struct {
	// Packet and Stream are the sockets to serve: of the kernel or of a
	// userspace stack. Run closes them. A packet socket should be bound to one
	// address: replies leave from whatever address the socket chooses.
	Packet []net.PacketConn
	Stream []net.Listener
	// Zones are the domains we speak for, besides exact names; the first one
	// names the primary in SOA records. Services have their names in each by
	// KubeSlice's rules, but for overlay.ClusterSetZone, where KEP-1645's hold. Empty means DefaultZone.
	Zones []string
	// TTL of every record, rounded up to seconds; zero means DefaultTTL.
	TTL time.Duration
	// Upstream are the servers that are asked for other names on behalf of
	// clients on this machine and those that a View names; none: nobody is.
	Upstream []netip.AddrPort
	// Private are the zones whose names may have addresses that are not public.
	Private []string
	// Rate is how many times a second one network of clients (/24 or /56) gets
	// the same answer by UDP; of those above it, every second one is sent empty
	// and truncated, and the others not at all. Zero means DefaultRate; less: no
	// bound.
	Rate int
	// Log gets state changes, never queries; nil discards them.
	Log *slog.Logger
}

// A Server answers for one slice's names.
type Server struct {
	cfg   Config
	zones []zone // the primary first
	view  atomic.Pointer[snapshot]

	setMu  sync.Mutex // orders Set
	serial uint32
	bad    []string // names that the last Set left out, and said so

	started atomic.Bool
	limit   *limiter
	forward *forwarder // nil: what is not ours is refused
	stats   counters
	streams streamLimits
}

// New checks cfg. The Server answers for its zones, which are empty until Set.
func New(cfg Config) (*Server, error) {
	if len(cfg.Zones) == 0 {
		cfg.Zones = []string{DefaultZone}
	}
	if cfg.TTL == 0 {
		cfg.TTL = DefaultTTL
	}
	if cfg.TTL < 0 || cfg.TTL > maxTTL {
		return nil, fmt.Errorf("dns: TTL %v is not between 0 and %v", cfg.TTL, maxTTL)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Rate == 0 {
		cfg.Rate = DefaultRate
	}
	s := &Server{cfg: cfg, limit: newLimiter(min(cfg.Rate, maxRate))}
	if len(cfg.Upstream) > 0 {
		var err error
		if s.forward, err = newForwarder(cfg.Upstream, cfg.Private); err != nil {
			return nil, err
		}
	}
	for _, z := range cfg.Zones {
		wire, ok := appendName(nil, z)
		if !ok || len(wire) > maxZone {
			return nil, fmt.Errorf("dns: zone %q is not a domain name of at most %d bytes", z, maxZone)
		}
		s.zones = append(s.zones, zone{string(wire), z == overlay.ClusterSetZone})
	}
	s.Set(View{})
	return s, nil
}

// Set replaces all names. Queries that are under way are answered from the old
// ones. Entries of the same name are merged. A name that is no host name is
// left out and logged.
func (s *Server) Set(v View) {
	s.setMu.Lock()
	defer s.setMu.Unlock()
	s.serial++
	next, bad := newSnapshot(s.zones, s.cfg.TTL, s.serial, v)
	s.view.Store(next)
	for _, name := range bad {
		if !slices.Contains(s.bad, name) {
			s.cfg.Log.Warn("name left out", "service", name, "err", "not a host name, or in a zone of ours")
		}
	}
	s.bad = bad
}

// Lookup returns the addresses of a name, IPv4 first, starting with another one
// each time; false if the name has none. It is what DNS clients are told.
func (s *Server) Lookup(name string) ([]netip.Addr, bool) {
	return s.lookup(name, func(a *addrSet) []netip.Addr { return a.rotated(a.next(), a.count()) })
}

func (s *Server) lookup(name string, pick func(*addrSet) []netip.Addr) (out []netip.Addr, found bool) {
	var space [maxName]byte
	wire, ok := appendName(space[:0], name)
	if !ok {
		return nil, false
	}
	view := s.view.Load()
	for _, qtype := range []uint16{typeA, typeAAAA} {
		if v := view.decide(wire, qtype, classIN); v.addrs != nil {
			out = append(out, pick(v.addrs)...)
		}
	}
	return out, len(out) > 0
}

// Run serves the sockets until ctx ends or one of them fails, closes them all,
// and returns when the last query is answered. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	if s.started.Swap(true) {
		return errors.New("dns: run called twice")
	}
	serving, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var wg sync.WaitGroup
	for _, pc := range s.cfg.Packet {
		if b, ok := pc.(interface{ SetReadBuffer(int) error }); ok {
			_ = b.SetReadBuffer(readBuffer) // as much as may be had
		}
		for range packetReaders() {
			wg.Go(func() { fail(s.servePackets(serving, pc)) })
		}
	}
	for _, l := range s.cfg.Stream {
		wg.Go(func() { fail(s.serveStreams(serving, l)) })
	}
	<-serving.Done()
	for _, pc := range s.cfg.Packet {
		pc.Close()
	}
	for _, l := range s.cfg.Stream {
		l.Close()
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(serving)
}

// respond answers one message, or returns nil if it deserves no reply. The
// reply is in out's array where that has room. limit is the most bytes that the
// transport carries.
func (s *Server) respond(out, msg []byte, limit int) []byte {
	return s.safely(msg, func() []byte {
		view := s.view.Load()
		reply, ok := view.quick(out, msg, limit)
		if !ok {
			reply = view.general(msg, limit)
		}
		return reply
	})
}

// safely counts the reply that answer makes of msg. A message of death costs
// its sender the answer, nobody else.
func (s *Server) safely(msg []byte, answer func() []byte) (reply []byte) {
	defer func() {
		if p := recover(); p != nil {
			if s.stats.panics.Add(1) == 1 {
				s.cfg.Log.Error("query handler panicked", "err", p)
			}
			reply = headerOnly(msg, rcodeServFail)
		}
		s.stats.count(reply)
	}()
	return answer()
}
