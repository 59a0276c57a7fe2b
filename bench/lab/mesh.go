package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
)

// Port is where the nodes of a Mesh gossip.
const Port = 7946

const certificateLife = 10 * 365 * 24 * time.Hour

// A Mesh is an authority and the nodes that it has certified, on one network.
type Mesh struct {
	network *Network
	name    string
	key     []byte
	ca      *pki.CA
	shared  *memory // nil: each node verifies and keeps for itself
}

// NewMesh makes an authority whose mesh has no nodes yet. Its certificates hold
// from now on for years.
func NewMesh(n *Network, name string) (*Mesh, error) {
	ca, err := pki.NewCA(name, time.Now(), 2*certificateLife)
	if err != nil {
		return nil, err
	}
	return &Mesh{network: n, name: name, key: []byte("the gossip key of a mesh in a lab"[:32]), ca: ca}, nil
}

// Share has all nodes that are added from now on use one verifier. Every
// certificate and signature is still verified, but by the first node that sees
// it only, which is what a mesh of hundreds in one process can afford. What
// makes nodes judge differently, as revocations do, does not go with it. They
// also keep the bytes that they all hold once.
func (m *Mesh) Share() error {
	v, err := pki.NewVerifier(m.name, m.ca.CertPEM())
	if err != nil {
		return err
	}
	m.shared = newMemory(v)
	return nil
}

// Key returns the gossip key, for a thief.
func (m *Mesh) Key() []byte { return slices.Clone(m.key) }

// Name returns the mesh's name.
func (m *Mesh) Name() string { return m.name }

// trust returns how a node with that identity and wall clock judges others, and
// the time that it goes by: as a daemon, it knows that its own certificate is
// not of the future.
func (m *Mesh) trust(id *pki.Identity, wall func() time.Time) (gossip.Verifier, func() time.Time, error) {
	if m.shared != nil {
		return m.shared, wall, nil
	}
	v, err := pki.NewVerifier(m.name, m.ca.CertPEM())
	if err != nil {
		return nil, nil, err
	}
	clock := pki.NewClock(wall)
	v.Follow(clock)
	a, err := v.Authority(id.Chain(), clock.Now())
	if err != nil && !errors.Is(err, pki.ErrNotValid) {
		return nil, nil, err
	}
	clock.Raise(a.NotBefore)
	return v, clock.Now, nil
}

// Certify returns an identity that the mesh's authority vouches for.
func (m *Mesh) Certify(s pki.Subject) (*pki.Identity, error) {
	key, err := pki.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := pki.NewRequest(key)
	if err != nil {
		return nil, err
	}
	chain, err := m.ca.Issue(request, s, time.Now(), certificateLife)
	if err != nil {
		return nil, err
	}
	return pki.LoadIdentity(key, chain)
}

// A Node is a member of a Mesh, through all its lives: its certificate, its
// state directory and its wall clock stay.
type Node struct {
	ID    overlay.NodeID
	Addr  netip.AddrPort // where it gossips
	Leaf  bool           // nobody dials it; Add sets it for who is no gateway
	Clock Clock
	// Tune, if set, changes the configuration of every life.
	Tune func(*gossip.Config)

	mesh   *Mesh
	signer *pki.Identity

	mu    sync.Mutex // guards what follows
	life  *life      // nil while it is down
	saved []byte     // snapshot
	epoch uint64
	facts []overlay.Record
}

// life is one run of a node's process.
type life struct {
	host   *Host
	gossip *gossip.Gossip
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid after done
}

// Add certifies a node, which is down.
func (m *Mesh) Add(s pki.Subject, addr netip.Addr) (*Node, error) {
	id, err := m.Certify(s)
	if err != nil {
		return nil, err
	}
	return &Node{ID: s.ID, Addr: netip.AddrPortFrom(addr, Port), Leaf: !s.Gateway, mesh: m, signer: id}, nil
}

// Twin returns a node with the same certificate and state directory at another
// address: a clone, as of a machine's image.
func (n *Node) Twin(addr netip.Addr) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &Node{
		ID: n.ID, Addr: netip.AddrPortFrom(addr, Port), Leaf: n.Leaf, mesh: n.mesh, signer: n.signer,
		saved: n.saved, epoch: n.epoch, facts: n.facts,
	}
}

// Tell says what the node has to say, in this life and those to come.
func (n *Node) Tell(facts []overlay.Record) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = facts
	if n.life == nil {
		return nil
	}
	return n.life.gossip.Set(facts)
}

var errUp = errors.New("the node is up already")

// Start begins a life that looks for seeds: a new epoch, with what an earlier
// one had saved. It returns once the node listens, or, a leaf, has begun to dial.
func (n *Node) Start(seeds ...netip.AddrPort) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life != nil {
		return errUp
	}
	verifier, now, err := n.mesh.trust(n.signer, n.Clock.Now)
	if err != nil {
		return err
	}
	host, err := n.mesh.network.Attach(n.Addr.Addr())
	if err != nil {
		return err
	}
	n.epoch++
	cfg := gossip.Config{
		Self: n.ID, Mesh: n.mesh.name, Leaf: n.Leaf, Key: n.mesh.key, Bind: n.Addr, Signer: n.signer, Verifier: verifier,
		Epoch: n.epoch, Now: now, Network: host, Log: slog.New(slog.DiscardHandler),
	}
	if m := n.mesh.shared; m != nil {
		cfg.Keep = m.keep
	}
	if n.Tune != nil {
		n.Tune(&cfg)
	}
	g, err := gossip.New(cfg)
	if err != nil {
		host.Off()
		return err
	}
	if _, err := g.Restore(n.saved); err != nil {
		host.Off()
		return fmt.Errorf("%v: %w", n.ID, err)
	}
	// A fact that the certificate does not permit is as wrong here as in Tell.
	if err := g.Set(n.facts); err != nil {
		host.Off()
		return fmt.Errorf("%v: %w", n.ID, err)
	}
	text := make([]string, len(seeds))
	for i, s := range seeds {
		text[i] = s.String()
	}
	g.SetSeeds(text)
	ctx, cancel := context.WithCancel(context.Background())
	l := &life{host: host, gossip: g, cancel: cancel, done: make(chan struct{})}
	go func() {
		l.err = g.Run(ctx)
		close(l.done)
	}()
	select {
	case <-g.Ready():
		n.life = l
		return nil
	case <-l.done:
		host.Off()
		return l.err
	}
}

// Stop ends a life as a daemon does that is told to: it says good-bye. It
// returns once everything has ended.
func (n *Node) Stop() error { return n.end(func(*Host) {}) }

// Kill ends a life as a power cut does: nobody is told. It returns once
// everything has ended.
func (n *Node) Kill() error { return n.end((*Host).Off) }

func (n *Node) end(first func(*Host)) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.life
	if l == nil {
		return nil
	}
	first(l.host)
	n.saved, n.epoch = l.gossip.Snapshot(), l.gossip.Epoch()
	l.cancel()
	<-l.done
	l.host.Off()
	n.life = nil
	return l.err
}

// Gossip returns the gossip of the present life, nil while the node is down.
func (n *Node) Gossip() *gossip.Gossip {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life == nil {
		return nil
	}
	return n.life.gossip
}

// Host returns the host of the present life, nil while the node is down.
func (n *Node) Host() *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.life == nil {
		return nil
	}
	return n.life.host
}
