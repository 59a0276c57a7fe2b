package gateway

import (
	"encoding/binary"
	"fmt"
	"slices"

	"slicewire/overlay"
)

// A note is what one node tells a peer beside its probes, in the same way: an
// IPv6 packet inside the tunnel, from and to addresses that belong to one key
// each, and never further. Nobody without a peer's key makes one, and no
// workload and no proxy of a node can send one. What it says is the daemons'
// business. It may be lost; nodes that do not know notes ignore them.
//
//	0   IPv6 header, as a probe's
//	40  version, kind, 2 zeros
//	44  what is said
const (
	probeNote  = 3
	noteHeader = 44
	// NoteMax is how many bytes one note has at most: with its header it fits
	// every slice's MTU.
	NoteMax = 1024

	notesPending = 64 // that wait for a device to read them; then new ones are refused

	noteRate  = 50.0 // from one peer, a second; more are ignored
	noteBurst = 100.0
)

// A note that waits to be sent.
type note struct {
	to   [16]byte
	body []byte
}

// putNote writes a note as a packet and returns its length.
func putNote(b []byte, from, to [16]byte, body []byte) int {
	n := noteHeader + len(body)
	b = b[:n]
	clear(b[:noteHeader])
	b[0] = 0x60
	binary.BigEndian.PutUint16(b[4:], uint16(n-ipv6Header))
	b[6], b[7] = probeProtocol, hopLimitMax
	copy(b[8:], from[:])
	copy(b[24:], to[:])
	b[40], b[41] = probeVersion, probeNote
	copy(b[noteHeader:], body)
	return n
}

// parseNote reads a packet that putNote could have written, and nothing else.
func parseNote(b []byte) (from, to [16]byte, body []byte, ok bool) {
	if len(b) <= noteHeader || len(b) > noteHeader+NoteMax || binary.BigEndian.Uint32(b) != 0x60000000 ||
		int(binary.BigEndian.Uint16(b[4:])) != len(b)-ipv6Header || b[6] != probeProtocol || b[7] != hopLimitMax ||
		b[40] != probeVersion || b[41] != probeNote || b[42]|b[43] != 0 {
		return from, to, nil, false
	}
	return [16]byte(b[8:]), [16]byte(b[24:]), b[noteHeader:], true
}

// Tell sends a note to a peer of a slice. It says why it cannot; that it could
// does not mean that the note arrives. It keeps no part of body.
func (g *Gateway) Tell(slice, peer string, body []byte) error {
	if len(body) == 0 || len(body) > NoteMax {
		return fmt.Errorf("gateway: a note of %d bytes: want 1 to %d", len(body), NoteMax)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.desired {
		d := &g.desired[i]
		if t := g.running[d.id()]; d.Slice == slice && !d.Passive && t != nil {
			return t.lane.tell(peer, body)
		}
	}
	return fmt.Errorf("gateway: slice %s has no tunnel", slice)
}

func (l *lane) tell(peer string, body []byte) error {
	if err := l.queueNote(peer, body); err != nil {
		return err
	}
	l.wake()
	return nil
}

func (l *lane) queueNote(peer string, body []byte) error {
	p := l.probes
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, w := range l.peers {
		if w.name != peer {
			continue
		}
		if len(l.notes) >= notesPending {
			return fmt.Errorf("gateway: %d notes wait to be sent", len(l.notes))
		}
		l.notes = append(l.notes, note{addr, slices.Clone(body)})
		l.waiting.Store(int32(len(l.pending) + len(l.notes)))
		return nil
	}
	return fmt.Errorf("gateway: no peer %s whose link is watched", peer)
}

// fillNotes writes pending notes into the device's buffers and returns how many,
// as fill does. The prober's mutex is held.
func (l *lane) fillNotes(bufs [][]byte, sizes []int) (n, leave int) {
	n = min(len(l.notes), len(bufs), len(sizes))
	for i, x := range l.notes[:n] {
		sizes[i] = putNote(bufs[i][overlay.Headroom:], l.addr, x.to, x.body)
		if w := l.peers[x.to]; w != nil && !w.silent {
			leave++
		}
	}
	l.notes = slices.Delete(l.notes, 0, n)
	return n, leave
}

// read hands a note of a peer on, if pkt is one.
func (l *lane) read(pkt []byte) bool {
	from, to, body, ok := parseNote(pkt)
	if !ok {
		return false
	}
	p := l.probes
	p.mu.Lock()
	w := l.peers[from]
	ok = w != nil && to == l.addr && p.notes != nil && w.notes.take(p.now(), noteRate, noteBurst)
	told, name := p.notes, ""
	if ok {
		name = w.name
	}
	p.mu.Unlock()
	if ok {
		told(name, slices.Clone(body))
	}
	return true
}
