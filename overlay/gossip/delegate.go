package gossip

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"slicewire/overlay"
)

// delegate is what memberlist calls. Some calls come with memberlist's lock
// held: nothing here waits or calls back.
type delegate struct {
	g *Gossip
	n *network
}

// NodeMeta returns the proof of this node's name and address.
func (d delegate) NodeMeta(limit int) []byte {
	if limit < metaSize {
		return nil
	}
	return d.g.meta(d.n.transport.advertise)
}

// NotifyMsg takes a message from another node.
func (d delegate) NotifyMsg(b []byte) {
	if len(b) > maxMessage {
		d.g.refused.add(RefusedMalformed, 1)
	} else if !d.g.queues.receive(b) {
		d.g.refused.add(RefusedQueue, 1)
	}
}

// GetBroadcasts gives out what waits to be broadcast.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.n.broadcasts.GetBroadcasts(overhead, limit)
}

// LocalState returns a summary or digests, not the records.
func (d delegate) LocalState(bool) []byte { return d.g.state() }

// MergeRemoteState takes the other side's.
func (d delegate) MergeRemoteState(b []byte, _ bool) {
	if !d.g.saidAlready(b) {
		d.NotifyMsg(b)
	}
}

// NotifyAlive refuses members without proof.
func (d delegate) NotifyAlive(n *memberlist.Node) error { return d.g.admit(n) }

// NotifyConflict hears that a live member's name is claimed at another address.
// With a proof, whoever is there holds the member's key as well; without one he
// holds the gossip key at most.
func (d delegate) NotifyConflict(_, other *memberlist.Node) {
	if d.g.proves(other.Name, addrOf(other), other.Meta) != proven {
		d.g.refused.add(RefusedMember, 1)
		return
	}
	if !d.g.members.twin(other.Name, time.Now()) {
		return
	}
	d.g.refused.add(RefusedClone, 1)
	d.g.log.Warn("two holders of one node key speak", "node", other.Name, "peer", addrOf(other).String())
}

var errMerge = errors.New("nobody there proves to be a member of the mesh")

// NotifyMerge refuses to join those among whom nobody even claims a
// certificate. One bad member is no reason: NotifyAlive leaves it out.
func (d delegate) NotifyMerge(peers []*memberlist.Node) error {
	if len(peers) > maxMerge {
		d.g.refused.add(RefusedMember, 1)
		return errMerge
	}
	for _, p := range peers {
		if d.g.proves(p.Name, addrOf(p), p.Meta) != disproved {
			return nil
		}
	}
	d.g.refused.add(RefusedMember, 1)
	return errMerge
}

// NotifyJoin greets a new member, so that both find out what they lack.
func (d delegate) NotifyJoin(n *memberlist.Node) {
	d.g.members.set(n, d.g.cfg.Keep)
	if n.Name == d.g.cfg.Self.String() {
		return
	}
	d.g.log.Info("member joined", "node", n.Name)
	d.g.greet(n.Name)
}

// NotifyUpdate takes note of new metadata.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.members.set(n, d.g.cfg.Keep) }

// NotifyLeave takes note that a member is gone.
func (d delegate) NotifyLeave(n *memberlist.Node) {
	d.g.members.remove(n)
	if n.Name != d.g.cfg.Self.String() {
		d.g.log.Info("member gone", "node", n.Name)
		d.g.queues.wakeJoiner()
	}
}

// broadcast is one record on its way. A newer one of the same key replaces it.
type broadcast struct {
	name string
	msg  []byte
}

func newBroadcast(r overlay.Record, msg []byte) *broadcast {
	return &broadcast{strings.Join([]string{r.Origin.String(), string(rune('0' + r.Key.Kind)), r.Key.Slice, r.Key.Name}, "|"), msg}
}

// Name says what the broadcast is about.
func (b *broadcast) Name() string { return b.name }

// Invalidates reports whether b replaces the other.
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.name == b.name
}

// Message returns the bytes to send.
func (b *broadcast) Message() []byte { return b.msg }

// Finished has nothing to give back.
func (b *broadcast) Finished() {}

// debugLog turns memberlist's many lines into debug messages.
type debugLog struct{ log *slog.Logger }

func (d debugLog) Write(line []byte) (int, error) {
	d.log.Debug("memberlist", "text", strings.TrimSpace(string(line)))
	return len(line), nil
}
