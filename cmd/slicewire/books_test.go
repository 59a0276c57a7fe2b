package main

import (
	"context"
	"fmt"
	"testing"
)

// The books of a slice: what workloads and the nodes' own stacks sent, and what
// routers made of it, has been delivered or dropped for a reason, by the counters
// of all its nodes. Every test whose packets cross slices can ask for them at its
// end. Counters go with their daemon: after one was killed there are none.

// books are the counters of one slice, added up.
type books struct {
	sent, delivered, dropped uint64
	drops                    map[string]uint64
}

func (b books) String() string {
	return fmt.Sprintf("%d sent, %d delivered, %d dropped: %v", b.sent, b.delivered, b.dropped, b.drops)
}

// missing is what was sent and nobody accounts for: lost below the slice, or
// still under way. Less than nothing was counted twice.
func (b books) missing() int { return int(b.sent - b.delivered - b.dropped) }

// addUp asks the daemons at these sockets; those without the slice add nothing.
func addUp(ctx context.Context, sockets []string, slice string) (b books, err error) {
	b.drops = make(map[string]uint64)
	for _, socket := range sockets {
		s, err := newClient(socket).status(ctx)
		if err != nil {
			return b, err
		}
		for _, x := range s.Slices {
			if x.Name != slice {
				continue
			}
			c := x.Counters
			b.sent += c.InsideRxPackets + c.LocalRxPackets + c.ICMPErrors + c.Fragments + c.Copies - c.Cut
			b.delivered += c.InsideTxPackets + c.LocalTxPackets
			b.dropped -= c.EdgeDrops // before they were sent, or after delivery
			for _, count := range x.Drops {
				b.dropped += count
			}
			addDrops(b.drops, x.Drops)
		}
	}
	return b, nil
}

// balance checks the books of slices where nothing is lost below them. It waits
// for what is under way.
func balance(t *testing.T, sockets []string, slices ...string) {
	t.Helper()
	for _, name := range slices {
		var b books
		var err error
		if !awaited(func() bool { b, err = addUp(t.Context(), sockets, name); return err == nil && b.missing() == 0 }) {
			t.Errorf("the books of %s do not balance: %v; %d missing, %v", name, b, b.missing(), err)
		}
		if b.sent == 0 {
			t.Errorf("nothing was sent on %s: its books say nothing", name)
		}
	}
}

func (l *pathLab) balance(slices ...string) {
	l.t.Helper()
	balance(l.t, l.sockets(), slices...)
}

func (l *pathLab) sockets() (out []string) {
	for _, n := range l.running() {
		out = append(out, n.socket)
	}
	return out
}

// nothingTwice is balance where something may have been lost below the slice.
func (l *pathLab) nothingTwice(slice string) {
	l.t.Helper()
	var b books
	var err error
	if !awaited(func() bool { b, err = addUp(l.t.Context(), l.sockets(), slice); return err == nil && b.missing() >= 0 }) {
		l.t.Errorf("the books of %s: more is accounted for than was sent: %v, %v", slice, b, err)
	}
	l.t.Logf("the books of %s: %v; %d lost below it", slice, b, b.missing())
}

func (m *mesh) balance(slices ...string) {
	m.t.Helper()
	var sockets []string
	for _, n := range m.nodes {
		if n.process != nil {
			sockets = append(sockets, n.socket)
		}
	}
	balance(m.t, sockets, slices...)
}
