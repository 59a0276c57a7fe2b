package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"slicewire/overlay"
)

// Config is what a Gateway is made of.
type Config struct {
	// Conn is the UDP socket of all slices, IPv4, IPv6 or dual-stack. The
	// gateway sets its buffers and offloads, and closes it at the end of Run.
	Conn *net.UDPConn
	// Log is required.
	Log *slog.Logger
	// OutsideLimit and InsideLimit are how many packets may be between a
	// slice's Link and the socket, each way. 0 means a batch for
	// every processor.
	OutsideLimit, InsideLimit int
	// OuterTOS is what outer datagrams show of the packets' traffic class.
	OuterTOS OuterTOS
	// Taps see outer datagrams, and inner packets that are dropped here; nil: nobody.
	Taps *overlay.Taps
	// Told takes the notes that peers send (see Tell); nil: nobody does. It is called
	// on the packet path, concurrently, and must not wait; body is its own.
	Told func(slice, peer string, body []byte)
	// Relinked is called after links have gone up or down and prefixes have moved;
	// nil: nobody is. It is called by one goroutine and must not wait.
	Relinked func()
}

func (c *Config) validate() error {
	switch {
	case c.Conn == nil:
		return errors.New("gateway config: no udp socket")
	case c.Log == nil:
		return errors.New("gateway config: no logger")
	case c.OutsideLimit < 0 || c.InsideLimit < 0:
		return errors.New("gateway config: negative limit of packets in flight")
	}
	if c.OutsideLimit == 0 {
		c.OutsideLimit = defaultLimit()
	}
	if c.InsideLimit == 0 {
		c.InsideLimit = defaultLimit()
	}
	return nil
}

// A Tunnel is one slice's part of this node: its key and its peers. While keys
// change a slice has two, of different generations, which agree in everything
// but their keys: what the slice sends goes out by one of them, and what comes
// in by either is taken. That takes an Inside that is a Waker.
type Tunnel struct {
	Slice      string
	Generation uint64      // of the keys; peers have theirs of the same
	Passive    bool        // the slice's other tunnel sends
	Tag        overlay.Tag // of this node; peers with Probe need it
	PrivateKey [32]byte
	MTU        int // of inner packets, in bytes; 0 means overlay.DefaultMTU
	// Inside leads to the slice's router. It must be comparable, as a pointer
	// is. It belongs to the gateway while it is set: closed when the slice is
	// gone from Set, has another Inside, or Run ends.
	Inside Link
	Peers  []Peer
	// Missing are nodes that would be peers with Probe if they had a key of this
	// generation: there is no link to them.
	Missing []overlay.Tag
	// Paths says which prefixes each peer has while the links are as given. It is
	// asked whenever what is known of them changes, and must be pure and quick.
	// nil: the Prefixes of Peers, always.
	Paths func(overlay.Links) map[overlay.Tag][]netip.Prefix
}

// A Peer is another node on a slice.
type Peer struct {
	Name      string
	PublicKey [32]byte
	// Endpoints, best first. The first that the socket can reach is used until
	// the peer is heard from elsewhere; it is used again only when this list
	// changes. Empty: wait for the peer to speak.
	Endpoints []netip.AddrPort
	Prefixes  []netip.Prefix // what may come from it and goes to it; masked
	Keepalive time.Duration  // 0: none; rounded up to seconds

	Tag     overlay.Tag
	Probe   bool // watch the link to it; both ends have to. Inside has to be a Waker
	Standby bool // something could take the link's place: watch it even if idle
	Beside  bool // it shares the slice's ceiling: tell it the demand
}

func validateAll(tunnels []Tunnel) error {
	bySlice := make(map[string][]*Tunnel)
	keys := make(map[[32]byte]string)
	for i := range tunnels {
		t := &tunnels[i]
		if err := t.validate(); err != nil {
			return fmt.Errorf("tunnel %q: %w", t.Slice, err)
		}
		bySlice[t.Slice] = append(bySlice[t.Slice], t)
		own := PublicKey(t.PrivateKey)
		if other, ok := keys[own]; ok {
			return fmt.Errorf("tunnel %q: same key as %q: initiations could not be told apart", t.Slice, other)
		}
		keys[own] = t.Slice
	}
	for name, all := range bySlice {
		if err := validateTogether(all); err != nil {
			return fmt.Errorf("tunnel %q: %w", name, err)
		}
	}
	return nil
}

// validateTogether checks the tunnels of one slice.
func validateTogether(all []*Tunnel) error {
	t := all[0]
	if len(all) == 1 {
		if t.Passive {
			return errors.New("passive, and the only one")
		}
		return nil
	}
	_, wakes := t.Inside.(Waker)
	other := all[1]
	switch {
	case len(all) > 2 || t.Generation == other.Generation:
		return errors.New("set twice")
	case t.Passive == other.Passive:
		return errors.New("one of two tunnels sends")
	case t.Inside != other.Inside || t.Tag != other.Tag:
		return errors.New("two tunnels with different insides or tags")
	case !wakes:
		return errors.New("the inside link cannot be woken for a change of keys")
	}
	return nil
}

func (t *Tunnel) validate() error {
	switch {
	case t.Slice == "":
		return errors.New("no slice name")
	case t.PrivateKey == [32]byte{}:
		return errors.New("no private key")
	case t.Inside == nil:
		return errors.New("no inside link")
	case t.MTU < 0 || t.MTU > innerMax:
		return fmt.Errorf("mtu %d is not between 0 and %d", t.MTU, innerMax)
	}
	_, wakes := t.Inside.(Waker)
	own := PublicKey(t.PrivateKey)
	peers := make(map[[32]byte]bool)
	owners := make(map[netip.Prefix]string)
	for i := range t.Peers {
		p := &t.Peers[i]
		switch {
		case p.PublicKey == [32]byte{}:
			return fmt.Errorf("peer %q: no public key", p.Name)
		case p.PublicKey == own:
			return fmt.Errorf("peer %q: our own public key", p.Name)
		case peers[p.PublicKey]:
			return fmt.Errorf("peer %q: another peer has its public key", p.Name)
		case p.Probe && !wakes:
			return fmt.Errorf("peer %q: the inside link cannot be woken for probes", p.Name)
		}
		peers[p.PublicKey] = true
		for _, x := range p.Prefixes {
			if !x.IsValid() || x != x.Masked() || x.Addr().Is4In6() {
				return fmt.Errorf("peer %q: prefix %v is not masked", p.Name, x)
			}
			if other, ok := owners[x]; ok {
				return fmt.Errorf("peer %q: prefix %v belongs to %q", p.Name, x, other)
			}
			owners[x] = p.Name
		}
		for _, e := range p.Endpoints {
			if !e.IsValid() || e.Port() == 0 {
				return fmt.Errorf("peer %q: endpoint %v is not valid", p.Name, e)
			}
		}
	}
	return nil
}

// clone copies what the caller might change afterwards.
func (t Tunnel) clone() Tunnel {
	peers := make([]Peer, len(t.Peers))
	for i, p := range t.Peers {
		p.Endpoints = append([]netip.AddrPort(nil), p.Endpoints...)
		for j, e := range p.Endpoints {
			p.Endpoints[j] = netip.AddrPortFrom(e.Addr().Unmap(), e.Port())
		}
		p.Prefixes = append([]netip.Prefix(nil), p.Prefixes...)
		peers[i] = p
	}
	t.Peers = peers
	t.Missing = append([]overlay.Tag(nil), t.Missing...)
	return t
}
