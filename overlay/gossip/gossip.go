package gossip

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// A Signer is this node's identity.
type Signer interface {
	// Chain returns the certificates in DER, leaf first. It may return another
	// chain after a renewal; what it returned is not changed.
	Chain() [][]byte
	// Sign signs message for the named purpose and no other.
	Sign(domain string, message []byte) []byte
}

// A Verifier knows whom to trust. It is called concurrently.
type Verifier interface {
	// Authority verifies a chain at the time now and returns what its leaf allows.
	Authority(chain [][]byte, now time.Time) (overlay.Authority, error)
	// Signed reports whether sig is the signature of message, for the named
	// purpose, by the leaf of a chain that is trusted, whatever the time.
	Signed(chain [][]byte, domain string, message, sig []byte) bool
	// Revoke states everything that is void, whole: from then on, Authority's
	// error for it is overlay.RefusedRevoked. It is called with a lock held and
	// must not call back.
	Revoke(all []overlay.Revocation)
}

// DefaultLife is how long a record holds after it was signed. A record is
// signed again at half its life, so the facts of a node that has left stay for
// half of it at least: the datapath goes on for days while nobody gossips.
const DefaultLife = 7 * 24 * time.Hour

// minLife leaves time to sign again; lifetimes are whole seconds.
const minLife = time.Minute

// Config says who this node is. All fields are needed but for those that say
// what zero means.
type Config struct {
	Self      overlay.NodeID
	Mesh      string         // at most 255 bytes; separates meshes that share a network
	Leaf      bool           // not a member: it dials gateways and is dialed by nobody; Key, Bind and Advertise are not used
	Key       []byte         // 32 bytes that all members share, see SetKeys
	Bind      netip.AddrPort // UDP and TCP; port 0 takes a free one
	Advertise netip.AddrPort // where members reach this node; zero: the bound address, which then must be a specific one
	Signer    Signer
	Verifier  Verifier
	Epoch     uint64           // greater at each start of the node, see Gossip.Epoch
	Life      time.Duration    // of records; zero: DefaultLife
	Suspicion int              // probe intervals, times the logarithm of the members, until a silent one counts as dead; zero: 6
	Log       *slog.Logger     // zero: no log
	Now       func() time.Time // wall clock; zero: time.Now
	Network   Network          // zero: this machine's
	// Keep returns bytes equal to b that nobody changes, for as long as somebody
	// holds them: what is kept of a message. Many in one process can so hold what
	// they have in common once. It is called concurrently, with a lock held, and
	// must not call back. Zero: a copy.
	Keep func(b []byte) []byte
}

func (c *Config) validate() error {
	switch {
	case !overlay.ValidLabel(c.Self.Site) || !overlay.ValidLabel(c.Self.Node):
		return fmt.Errorf("gossip: self %q: want two DNS labels", c.Self)
	case c.Mesh == "" || len(c.Mesh) > 255:
		return fmt.Errorf("gossip: mesh name of %d bytes, want 1 to 255", len(c.Mesh))
	case c.Leaf: // has neither key nor address
	case len(c.Key) != keyBytes:
		return fmt.Errorf("gossip: key of %d bytes, want %d", len(c.Key), keyBytes)
	case !c.Bind.Addr().IsValid():
		return errors.New("gossip: no address to bind")
	case c.Bind.Addr().IsUnspecified() && !c.Advertise.Addr().IsValid():
		return fmt.Errorf("gossip: bound to %v, so an address to advertise is needed", c.Bind)
	case c.Advertise.Addr().IsValid() && (c.Advertise.Addr().IsUnspecified() || c.Advertise.Addr().IsMulticast()):
		return fmt.Errorf("gossip: cannot advertise %v", c.Advertise)
	}
	switch {
	case c.Signer == nil || c.Verifier == nil:
		return errors.New("gossip: signer and verifier are needed")
	case len(c.Signer.Chain()) == 0 || len(c.Signer.Chain()) > maxChain:
		return fmt.Errorf("gossip: own chain of %d certificates, want 1 to %d", len(c.Signer.Chain()), maxChain)
	case c.Suspicion < 0:
		return fmt.Errorf("gossip: suspicion of %d probe intervals", c.Suspicion)
	case c.Life != 0 && c.Life < minLife:
		return fmt.Errorf("gossip: records that live %v, want %v at least", c.Life, minLife)
	}
	return nil
}

// Gossip spreads this node's records and collects those of all others.
type Gossip struct {
	cfg     Config
	log     *slog.Logger
	changed chan struct{} // capacity 1
	ready   chan struct{} // closed by Run
	refused counts
	members members
	queues  queues
	net     atomic.Pointer[network] // set while running
	keys    keyring

	sessions sessions

	mu        sync.Mutex // guards what follows; never held while calling memberlist
	ledger    overlay.Ledger
	chains    map[fingerprint]chain // of the signers of what the ledger holds
	own       own
	unsettled bool      // revocations are held that do not count yet, see settle
	filled    time.Time // when many records came at once
	pruned    time.Time // when pruneChainsLocked last ran
	pace      map[overlay.NodeID]*bucket
	relays    bucket                      // what is passed on of others, see mayRelay
	asked     map[overlay.NodeID]question // the last one about an origin
	seeds     []string
}

// New checks cfg. It opens nothing and starts nothing.
func New(cfg Config) (*Gossip, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Life == 0 {
		cfg.Life = DefaultLife
	}
	if cfg.Suspicion == 0 {
		cfg.Suspicion = defaultSuspicion
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Network == nil {
		cfg.Network = system{}
	}
	if cfg.Keep == nil {
		cfg.Keep = bytes.Clone
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gossip{
		cfg: cfg, log: cfg.Log,
		changed: make(chan struct{}, 1),
		ready:   make(chan struct{}),
		chains:  make(map[fingerprint]chain),
		own:     own{epoch: cfg.Epoch},
		pace:    make(map[overlay.NodeID]*bucket),
		asked:   make(map[overlay.NodeID]question),
	}
	if !cfg.Leaf {
		if err := g.SetKeys([][]byte{cfg.Key}); err != nil {
			return nil, err
		}
	}
	if err := g.sessions.init(); err != nil {
		return nil, err
	}
	g.refused.by = make(map[string]uint64)
	g.members.init()
	g.queues.init()
	return g, nil
}

// SetSeeds says where to look for gateways, as "host:port". They are tried until
// this node is no longer alone, and again whenever one of them is not a member.
// A leaf tries them as long as it knows no better gateway.
// What is no address, or a name that has none now, is passed over.
func (g *Gossip) SetSeeds(seeds []string) {
	g.mu.Lock()
	g.seeds = slices.Clone(seeds)
	g.mu.Unlock()
	g.queues.wakeJoiner()
}

// Records returns every fact that holds now, own ones too, sorted by origin and
// key. All of them are verified.
func (g *Gossip) Records() []overlay.Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.Records(g.cfg.Now())
}

// Held returns how many records and tombstones are kept. It copies none of them,
// as Records does.
func (g *Gossip) Held() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.Count()
}

// RecordsOf is Records of one origin.
func (g *Gossip) RecordsOf(id overlay.NodeID) []overlay.Record {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.cfg.Now()
	var out []overlay.Record
	for _, h := range g.ledger.Of(id) {
		if !h.Record.Deleted && now.Before(h.Record.NotAfter) {
			out = append(out, h.Record)
		}
	}
	return out
}

// Withdrawn returns the nodes that have taken back all that they told.
func (g *Gossip) Withdrawn() []overlay.NodeID {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ledger.Withdrawn()
}

// Changed delivers whenever Records may have changed since the last delivery.
// Only one goroutine should receive from it.
func (g *Gossip) Changed() <-chan struct{} { return g.changed }

func (g *Gossip) signal() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

// Ready is closed once Run is listening and Addr is known.
func (g *Gossip) Ready() <-chan struct{} { return g.ready }

// Addr returns the address that others reach this node at, or the zero AddrPort
// before Run has bound it, and of a leaf.
func (g *Gossip) Addr() netip.AddrPort {
	if n := g.net.Load(); n != nil {
		return n.transport.advertise
	}
	return netip.AddrPort{}
}

// Epoch returns the epoch in which this node signs. It is the configured one,
// unless others hold records of this node from a later one: then the node's
// memory of its epoch was lost, or another holds its key.
func (g *Gossip) Epoch() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.own.epoch
}

// Refused returns how much was refused, by reason: those of overlay.Refusal and
// those below.
func (g *Gossip) Refused() map[string]uint64 { return g.refused.snapshot() }

// The reasons besides those of overlay.Refusal.
const (
	RefusedMalformed = "malformed"  // not in the wire format
	RefusedNoCert    = "no-cert"    // the signer's certificate is not known
	RefusedCert      = "cert"       // not issued by the mesh's authority, or not valid now
	RefusedSignature = "signature"  // not made by the certificate's key
	RefusedStale     = "stale"      // older than what is held: late or replayed
	RefusedClone     = "clone"      // two holders of one key speak: alarm
	RefusedFull      = "full"       // the origin has said as much as it may
	RefusedRate      = "rate"       // the origin speaks faster than it may
	RefusedQueue     = "queue-full" // this node could not keep up
	RefusedMember    = "member"     // a member without proof of its name and address, or that is no gateway
	RefusedSession   = "session"    // a session without a good certificate, one too many, or of one who breaks the rules
)

// counts counts by reason.
type counts struct {
	mu sync.Mutex
	by map[string]uint64 // guarded by mu; its keys are constants of ours
}

func (c *counts) add(reason string, n int) {
	if n == 0 {
		return
	}
	c.mu.Lock()
	c.by[reason] += uint64(n)
	c.mu.Unlock()
}

func (c *counts) snapshot() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by)
}

// ownChain returns the signer's chain and its leaf's fingerprint.
func (g *Gossip) ownChain() (chain, fingerprint) {
	c := g.cfg.Signer.Chain()
	return c, sha256.Sum256(c[0])
}
