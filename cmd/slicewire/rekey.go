package main

import (
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"slicewire/api"
	"slicewire/gateway"
	"slicewire/overlay"
)

// rekeyLook is how often the loop asks whether keys are due, and how far a
// change has come.
const rekeyLook = 500 * time.Millisecond

// sessionLife is for how long a handshake with a peer that is not watched says
// that packets pass: as long as WireGuard would use the session.
const sessionLife = 180 * time.Second

// sliceKeys are the node's keys on a slice, and its peers'. The loop owns them.
type sliceKeys struct {
	turn    overlay.Rekeying
	latest  uint64                                 // generation that peers tell
	private map[uint64][32]byte                    // by generation: one, or two while keys change
	peers   map[uint64]map[overlay.NodeID][32]byte // public keys of peers, of the same generations
}

// openKeys returns the node's keys on a slice: those that it has, else a new one
// of the generation that is due or that its peers have already.
func (d *daemon) openKeys(slice string) (*sliceKeys, error) {
	s, _ := d.want.mesh.Slice(slice)
	due, latest := d.generations(s, d.gossip.Records())
	keys, err := d.state.WireGuardKeys(slice)
	if err != nil {
		return nil, err
	}
	have := usableGenerations(slices.Sorted(maps.Keys(keys)), d.generationLimit())
	for g := range keys {
		if !slices.Contains(have, g) {
			delete(keys, g)
			err = errors.Join(err, d.state.DropWireGuardKey(slice, g))
		}
	}
	if len(have) == 0 {
		g := max(due, latest)
		have = []uint64{g}
		key, cerr := d.state.MakeWireGuardKey(slice, g, gateway.NewPrivateKey)
		keys[g], err = key, errors.Join(err, cerr)
	}
	turn := overlay.Rekeying{Sends: have[0], Other: have[len(have)-1]}
	if turn.Changing() {
		turn.Began = time.Now()
	}
	return &sliceKeys{turn: turn, private: keys, peers: make(map[uint64]map[overlay.NodeID][32]byte)}, err
}

// usableGenerations returns those of sorted generations that a node which starts
// goes on with: the last two, of those up to limit. Others are left when the
// process ended between two steps, or were made by a wrong clock: nobody follows.
func usableGenerations(have []uint64, limit uint64) []uint64 {
	have = slices.DeleteFunc(have, func(g uint64) bool { return g > limit })
	return have[max(0, len(have)-2):]
}

// generations returns the generation that keys of a slice should have by
// configuration and clock, and the latest that others tell.
func (d *daemon) generations(s *overlay.Slice, records []overlay.Record) (due, latest uint64) {
	return s.DueGeneration(d.want.mesh.Name, d.id.clock.Now()),
		overlay.LatestGeneration(d.id.authority().ID, s.Name, records, d.generationLimit())
}

// generationLimit is the highest generation that can be right. A node whose
// clock is behind does not know.
func (d *daemon) generationLimit() uint64 {
	if d.id.clock.Behind() {
		return math.MaxUint64
	}
	return uint64(max(0, d.id.clock.Now().Add(overlay.RekeyAhead).Unix()))
}

// keysDue reports whether keys of any slice are changing or should.
func (d *daemon) keysDue() bool {
	for name, n := range d.slices {
		s, known := d.want.mesh.Slice(name)
		if n.keys.turn.Changing() || n.keys.latest > n.keys.turn.Sends || known && s.DueGeneration(d.want.mesh.Name, d.id.clock.Now()) > n.keys.turn.Sends {
			return true
		}
	}
	return false
}

// turnKeys goes on with a change of the node's keys on a slice, or begins one.
// Others are told by the next reconcile, which follows at once: a device is
// there before they hear of its key.
func (d *daemon) turnKeys(n *sliceNode, s *overlay.Slice, peers []overlay.Peer, records []overlay.Record) error {
	k := n.keys
	due, latest := d.generations(s, records)
	was := k.turn
	k.latest = latest
	if !k.turn.Step(time.Now(), due, latest, k.observe(n.name, peers, d.gateway)) {
		k.learn(peers)
		return nil
	}
	var err error
	switch now := k.turn; {
	case now.Next() != 0:
		if k.private[now.Other], err = d.state.MakeWireGuardKey(n.name, now.Other, gateway.NewPrivateKey); err != nil {
			delete(k.private, now.Other)
			k.turn = was
			return err
		}
		d.log.Info("keys change", "slice", n.name, "generation", now.Other)
	case now.Changing():
		// A node that starts anew needs the old key no more: it has sent all that
		// it will send with it.
		err = d.state.DropWireGuardKey(n.name, now.Other)
		d.log.Info("new keys in use", "slice", n.name, "generation", now.Sends, "after", time.Since(now.Began).Round(time.Millisecond))
	default:
		delete(k.private, was.Other)
		d.log.Info("old keys forgotten", "slice", n.name, "generation", was.Other, "after", time.Since(was.Began).Round(time.Millisecond))
	}
	k.learn(peers)
	select {
	case d.turned <- struct{}{}:
	default:
	}
	return err
}

// observe gathers how far the peers are.
func (k *sliceKeys) observe(slice string, peers []overlay.Peer, g *gateway.Gateway) []overlay.PeerKeys {
	live := make(map[uint64]map[string]bool)
	if k.turn.Changing() {
		for _, t := range g.Status() {
			if t.Slice != slice {
				continue
			}
			live[t.Generation] = make(map[string]bool)
			for _, p := range t.Peers {
				live[t.Generation][p.Name] = p.Up || !p.Watched && time.Since(p.LastHandshake) < sessionLife
			}
		}
	}
	out := make([]overlay.PeerKeys, len(peers))
	for i := range peers {
		p := &peers[i]
		name := p.ID.String()
		out[i] = overlay.PeerKeys{
			Sends: p.Generation, Next: p.Next.Generation,
			Live: live[k.turn.Sends][name], Ready: live[k.turn.Other][name],
		}
	}
	return out
}

// learn notes the peers' keys of those generations of which the node has one
// itself. Those that a peer does not tell any more are kept as long as it is a
// peer: it takes them until all others have said that they do not use them.
func (k *sliceKeys) learn(peers []overlay.Peer) {
	known := make(map[uint64]map[overlay.NodeID][32]byte)
	for g := range k.private {
		known[g] = make(map[overlay.NodeID][32]byte)
		for i := range peers {
			p := &peers[i]
			key, told := p.KeyOf(g)
			if !told {
				key, told = k.peers[g][p.ID]
			}
			if told {
				known[g][p.ID] = key
			}
		}
	}
	k.peers = known
}

// told is what others are told of the keys.
func (k *sliceKeys) told() overlay.KeyBody {
	body := overlay.KeyBody{PublicKey: gateway.PublicKey(k.private[k.turn.Sends]), Generation: k.turn.Sends}
	if next := k.turn.Next(); next != 0 {
		body.Next = overlay.SliceKey{Generation: next, PublicKey: gateway.PublicKey(k.private[next])}
	}
	return body
}

func (k *sliceKeys) status() api.KeyStatus {
	return api.KeyStatus{Generation: time.Unix(int64(min(k.turn.Sends, math.MaxInt64)), 0).UTC(), Changing: k.turn.Changing()}
}

// tunnels are the slice's tunnels as the gateway is told: one for each key.
func (n *sliceNode) tunnels(self overlay.NodeID, v overlay.View) []gateway.Tunnel {
	var out []gateway.Tunnel
	for _, g := range slices.Sorted(maps.Keys(n.keys.private)) {
		t := gateway.Tunnel{
			Slice: n.name, Generation: g, Passive: g != n.keys.turn.Sends, Tag: self.Tag(), PrivateKey: n.keys.private[g], MTU: n.local.mtu,
			Inside: n.outside, Paths: v.Fabric.Paths,
		}
		for _, p := range v.Peers {
			key, known := n.keys.peers[g][p.ID]
			if !known {
				if p.Probe {
					t.Missing = append(t.Missing, p.ID.Tag())
				}
				continue
			}
			t.Peers = append(t.Peers, gateway.Peer{
				Name: p.ID.String(), PublicKey: key, Endpoints: p.Endpoints, Prefixes: p.Prefixes,
				Tag: p.ID.Tag(), Probe: p.Probe, Standby: p.Standby, Beside: p.ID.Site == self.Site,
			})
		}
		out = append(out, t)
	}
	return out
}
