package gateway

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"slicewire/overlay"
)

const (
	// sessionLife is how long a session may be used (whitepaper 6.1,
	// Reject-After-Time).
	sessionLife = 180 * time.Second
	// errorLogEvery bounds the lines that a device's errors may write.
	errorLogEvery = time.Second
	// settleFor is how long after a handshake's second message the device may not
	// yet say that there is a session: it has the message to work on.
	settleFor = 100 * time.Millisecond
)

// greetings are the times after a peer appeared at which it is sent another
// initiation if no handshake is done by then. WireGuard repeats one only after
// 5 s, and not before two that crossed have made both nodes wait (see
// crossing): the node with the lesser public key repeats its first, the other
// only if that did not help either.
var greetings = [2][]time.Duration{
	{300 * time.Millisecond, 1300 * time.Millisecond, 3 * time.Second}, // the lesser key
	{560 * time.Millisecond, 2100 * time.Millisecond, 4 * time.Second},
}

// A tunnel is a running Tunnel: a device with its key. The Gateway's mutex guards conf, want, young and
// isSet.
type tunnel struct {
	want  Tunnel                // what Set said
	conf  Tunnel                // with the prefixes that the peers have now
	young map[[32]byte]greeting // peers that are being greeted

	isSet   bool // peers were set once
	dev     *device.Device
	bind    *bind
	inner   *inner
	trunk   *trunk
	branch  *branch
	lane    *lane
	outside *governor
	inside  *governor
	opened  atomic.Int64 // when a session may have been opened last, by the mux's clock
}

type greeting struct {
	since time.Time
	after time.Time        // a handshake later than this is what we want
	sent  int              // of greetings
	to    []netip.AddrPort // where the peer may be, tried in turn
}

func newTunnel(conf Tunnel, trunk *trunk, m *mux, c *Config) (*tunnel, error) {
	log := c.Log.With("slice", conf.Slice)
	t := &tunnel{
		conf:    conf,
		trunk:   trunk,
		branch:  trunk.fork.branch(),
		young:   make(map[[32]byte]greeting),
		outside: newGovernor(c.OutsideLimit),
		inside:  newGovernor(c.InsideLimit),
	}
	t.conf.Peers = nil // setPeers adds them
	t.lane = trunk.probes.lane(t.branch.Wake)
	t.inner = newInner(t.branch, conf.mtu(), log, trunk.drops, t.outside, t.inside, t.lane)
	t.inner.tos = c.OuterTOS.mask()
	t.bind = &bind{
		mux: m, drops: trunk.drops, outside: t.outside, inside: t.inside,
		ready: make(chan struct{}, 1), taps: c.Taps, slice: conf.Slice, classes: c.OuterTOS != TOSOff,
		fresh: func() { t.opened.Store(int64(m.now())); t.inner.gate.Store(nil) },
	}
	t.bind.mac1.Store(newMAC1(PublicKey(conf.PrivateKey)))
	t.dev = device.NewDevice(t.inner, t.bind, deviceLogger(log, t.inner.refused))
	if err := t.start(); err != nil {
		t.close()
		return nil, err
	}
	trunk.tunnels = append(trunk.tunnels, t)
	return t, nil
}

func (t *tunnel) start() error {
	if err := t.dev.IpcSet("private_key=" + hex.EncodeToString(t.conf.PrivateKey[:]) + "\n"); err != nil {
		return fmt.Errorf("set private key: %w", err)
	}
	if err := t.dev.Up(); err != nil {
		return fmt.Errorf("start device: %w", err)
	}
	return nil
}

func (t *Tunnel) mtu() int {
	if t.MTU == 0 {
		return overlay.DefaultMTU
	}
	return t.MTU
}

// set changes what differs. conf has the Inside that the tunnel has.
func (t *tunnel) set(conf Tunnel, usable func(netip.AddrPort) bool) error {
	t.inner.setMTU(conf.mtu())
	rekeyed := conf.PrivateKey != t.conf.PrivateKey
	if rekeyed {
		t.conf.PrivateKey = conf.PrivateKey
		if err := t.dev.IpcSet("private_key=" + hex.EncodeToString(conf.PrivateKey[:]) + "\n"); err != nil {
			return fmt.Errorf("set private key: %w", err)
		}
		t.bind.mac1.Store(newMAC1(PublicKey(conf.PrivateKey)))
	}
	t.bind.crossing.setPeers(PublicKey(conf.PrivateKey), conf.Peers)
	t.want = conf
	t.lane.setPeers(&conf)
	conf.Peers = t.routed()
	text, greet := changes(t.conf.Peers, conf.Peers, usable)
	if text != "" {
		if err := t.dev.IpcSet(text); err != nil {
			return fmt.Errorf("set peers: %w", err)
		}
	}
	if rekeyed {
		greet = greet[:0]
		for _, p := range conf.Peers {
			if _, ok := first(p.Endpoints, usable); ok {
				greet = append(greet, p.PublicKey)
			}
		}
	}
	t.conf = conf
	now := time.Now()
	after := now.Add(-sessionLife) // a session that is still good serves as well
	if rekeyed {
		after = now
	}
	is := byKey(conf.Peers)
	for k := range t.young {
		if is[k] == nil {
			delete(t.young, k)
		}
	}
	for _, k := range greet {
		if p := t.dev.LookupPeer(k); p != nil {
			g := greeting{since: now, after: after, to: filter(is[k].Endpoints, usable)}
			if !t.bind.answering(g.to) {
				// What goes wrong is logged by the device and repaired by its timers.
				_ = p.SendHandshakeInitiation(false)
			}
			t.young[k] = g
		}
	}
	if text != "" || rekeyed {
		t.look(now)
	}
	if !t.isSet {
		t.isSet = true
		close(t.inner.ready)
	}
	return nil
}

// lead has the tunnel send what the slice sends from now on. Its gate may still be
// shut to a peer whose session is new: nobody asked for it until now.
func (t *tunnel) lead() {
	if f := t.trunk.fork; f.sender.Load() != t.branch {
		if t.isSet {
			t.look(time.Now())
		}
		f.send(t.branch)
	}
}

// routed returns the peers that Set named, with the prefixes that each has as
// the links are now.
func (t *tunnel) routed() []Peer {
	peers := slices.Clone(t.want.Peers)
	var paths map[overlay.Tag][]netip.Prefix
	if t.want.Paths != nil {
		paths = t.want.Paths(t.trunk.probes.links())
	}
	for i := range peers {
		p := &peers[i]
		if t.want.Paths != nil {
			p.Prefixes = paths[p.Tag]
		}
		if p.Probe {
			p.Prefixes = append(slices.Clip(p.Prefixes), probePrefix(p.PublicKey))
		}
	}
	return peers
}

// reroute moves prefixes between peers after something was learnt of the links.
func (t *tunnel) reroute() error {
	if !t.isSet || t.want.Paths == nil {
		return nil
	}
	peers := t.routed()
	text, _ := changes(t.conf.Peers, peers, func(netip.AddrPort) bool { return true }) // endpoints stay
	t.conf.Peers = peers
	if text == "" {
		return nil
	}
	if err := t.dev.IpcSet(text); err != nil {
		return fmt.Errorf("move prefixes: %w", err)
	}
	if t.inner.gate.Load() != nil {
		t.look(time.Now())
	}
	return nil
}

// close ends the device, and with the slice's last one its Link, and waits.
func (t *tunnel) close() {
	t.trunk.remove(t)
	t.lane.close()
	t.dev.Close()
}

// state asks the device for its peers.
func (t *tunnel) state() map[[32]byte]*peerState {
	text, err := t.dev.IpcGet()
	if err != nil {
		return nil // it writes into memory: there is no error
	}
	return parseState(text)
}

// look shuts the gate to peers without a session and opens it to the others. It
// leaves the gate open while a session may be about to open, which the device
// does not show: a gate that it shut then would cut off a peer that the next
// packets are for, until the next look.
func (t *tunnel) look(now time.Time) {
	state := t.state()
	silent := func(key [32]byte) bool {
		s := state[key]
		return s == nil || now.Sub(s.handshake) >= sessionLife
	}
	t.lane.setSilent(silent)
	t.inner.gate.Store(newGate(t.conf.Peers, func(p *Peer) bool { return silent(p.PublicKey) }))
	if at := t.opened.Load(); at != 0 && t.bind.mux.now()-time.Duration(at) < settleFor {
		t.inner.gate.Store(nil)
	}
}

// greet repeats greetings that are due and reports whether any is left.
func (t *tunnel) greet(now time.Time) (left bool) {
	if len(t.young) == 0 {
		return false
	}
	own := PublicKey(t.conf.PrivateKey)
	var state map[[32]byte]*peerState
	for k, g := range t.young {
		at := greetings[0]
		if !lesser(own, k) {
			at = greetings[1]
		}
		if now.Sub(g.since) < at[g.sent] || t.bind.answering(g.to) {
			continue
		}
		if state == nil {
			state = t.state()
		}
		s := state[k]
		if s == nil || s.handshake.After(g.after) {
			delete(t.young, k)
			continue
		}
		if n := len(g.to); n > 1 {
			t.tryAt(k, g.to[(g.sent+1)%n])
		}
		if p := t.dev.LookupPeer(k); p != nil {
			p.ExpireCurrentKeypairs() // else WireGuard waits 5 s between initiations
			_ = p.SendHandshakeInitiation(false)
		}
		if g.sent++; g.sent == len(at) {
			delete(t.young, k) // WireGuard's own timers go on
			continue
		}
		t.young[k] = g
	}
	return len(t.young) > 0
}

// tryAt has the device reach a peer at another of its endpoints.
func (t *tunnel) tryAt(key [32]byte, at netip.AddrPort) {
	text := fmt.Sprintf("public_key=%s\nupdate_only=true\nendpoint=%s\n", hex.EncodeToString(key[:]), at)
	_ = t.dev.IpcSet(text) // what goes wrong is logged by the device; the peer stays where it was
}
