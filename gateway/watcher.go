package gateway

import (
	"log/slog"
	"net/netip"
	"time"

	"slicewire/overlay"
)

// A Watcher is what watches the links of one tunnel, without the tunnel:
// whoever simulates a mesh carries its packets and moves its time. It decides
// as the tunnel of a running Gateway does. It is not for concurrent use.
type Watcher struct {
	p *prober
	l *lane
}

// NewWatcher returns a Watcher without links. now is the time since any fixed
// point.
func NewWatcher(now func() time.Duration) *Watcher {
	nothing := func() {}
	p := newProber(slog.New(slog.DiscardHandler), now, nothing)
	return &Watcher{p, p.lane(nothing)}
}

// Set says whose links are watched: those of the peers of t with Probe.
func (w *Watcher) Set(t Tunnel) { w.l.setPeers(&t) }

// SetLeaving is Gateway.SetLeaving for this tunnel.
func (w *Watcher) SetLeaving(leaving bool) { w.p.setLeaving(leaving) }

// Busy says that packets pass the tunnel, so that its links matter.
func (w *Watcher) Busy() { w.p.moved.Add(1) }

// Step does what is due. changed says that Links are others than before, and
// next when to call again, unless something is heard before.
func (w *Watcher) Step() (changed bool, next time.Duration) { return w.p.step() }

// Links returns what is known of the slice's links.
func (w *Watcher) Links() overlay.Links { return w.p.links() }

// A Probe is a packet of a Watcher for another one.
type Probe struct {
	To     netip.Addr // see ProbeAddr
	Packet []byte
}

// Send returns the packets that have to go out since the last call, in order.
func (w *Watcher) Send() []Probe {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	out := make([]Probe, 0, len(w.l.pending))
	for i := range w.l.pending {
		b := make([]byte, probeBytesMax)
		out = append(out, Probe{netip.AddrFrom16(w.l.pending[i].to), b[:w.l.pending[i].put(b)]})
	}
	w.l.pending = w.l.pending[:0]
	w.l.waiting.Store(0)
	return out
}

// Hear takes a packet of another Watcher. The answer is in Send, and what it
// brings about in Step.
func (w *Watcher) Hear(packet []byte) { w.l.hear(packet) }

// ProbeAddr returns the address of probes to the node with a public key.
func ProbeAddr(key [32]byte) netip.Addr { return netip.AddrFrom16(probeAddr(key)) }
