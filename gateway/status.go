package gateway

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/overlay"
)

// TunnelStatus says how a slice's tunnel is doing.
type TunnelStatus struct {
	Slice      string
	Generation uint64
	Passive    bool              // the slice's other tunnel sends
	Listen     netip.AddrPort    // the socket's, the same for all
	Peers      []PeerStatus      // in the order of Set
	Drops      map[string]uint64 // of all tunnels of the slice; nil for one that is passive
	// Packets between the slice's Link and the socket: now, and the most there
	// ever were.
	Outside, OutsidePeak int
	Inside, InsidePeak   int
}

// PeerStatus says how a peer is doing.
type PeerStatus struct {
	PublicKey     [32]byte
	Name          string
	Endpoint      netip.AddrPort // where it was last heard, or is tried; may be invalid
	LastHandshake time.Time      // zero: never
	RxBytes       uint64         // outer bytes received that were authentic
	TxBytes       uint64         // outer bytes sent
	Prefixes      []netip.Prefix // sorted
	// Of the link to it, if it is watched.
	Watched bool
	Up      bool
	RTT     time.Duration
	Loss    float64        // of probes, while the link is up
	Changes int            // how often it went up or down
	Leaving bool           // it asks others to carry its load
	Demand  overlay.Demand // what it would send of the slice's ceiling, while it is up
}

// Status returns all tunnels in the order of Set; before and after Run they
// have no state.
func (g *Gateway) Status() []TunnelStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	var listen netip.AddrPort
	if a, ok := g.cfg.Conn.LocalAddr().(*net.UDPAddr); ok {
		a := a.AddrPort()
		listen = netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
	}
	all := make([]TunnelStatus, 0, len(g.desired))
	for i := range g.desired {
		d := &g.desired[i]
		s := TunnelStatus{Slice: d.Slice, Generation: d.Generation, Passive: d.Passive, Listen: listen}
		var state map[[32]byte]*peerState
		t := g.running[d.id()]
		if t != nil {
			state = t.state()
			if !d.Passive {
				s.Drops = t.trunk.drops.Snapshot()
			}
			s.Outside, s.OutsidePeak = t.outside.load()
			s.Inside, s.InsidePeak = t.inside.load()
		}
		for _, p := range d.Peers {
			x := PeerStatus{PublicKey: p.PublicKey, Name: p.Name, Prefixes: slices.Clone(p.Prefixes)}
			if y := state[p.PublicKey]; y != nil {
				x.Endpoint, x.LastHandshake = y.endpoint, y.handshake
				x.RxBytes, x.TxBytes, x.Prefixes = y.rx, y.tx, y.prefixes
			}
			x.Prefixes = slices.DeleteFunc(x.Prefixes, func(q netip.Prefix) bool { return q.Addr().IsLinkLocalUnicast() })
			if t != nil && p.Probe {
				t.lane.status(&x)
			}
			slices.SortFunc(x.Prefixes, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
			s.Peers = append(s.Peers, x)
		}
		all = append(all, s)
	}
	return all
}

// Drops returns what was lost of the outer packets before their slice was
// known, by reason; "queue-full" is the kernel's receive buffer.
func (g *Gateway) Drops() map[string]uint64 {
	d := g.mux.drops.Snapshot()
	if n := g.sock.lost(); n > 0 {
		d[overlay.DropQueueFull.String()] += n
	}
	return d
}
