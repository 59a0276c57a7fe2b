package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A turn is a sender that waits for room in an outlet, with its packet.
type turn struct {
	pkt   *stack.PacketBuffer
	done  chan tcpip.Error // holds one: what became of the packet
	timer *time.Timer      // stopped while it waits for nothing
	next  *turn
}

func newTurn() any {
	w := &turn{done: make(chan tcpip.Error, 1), timer: time.NewTimer(time.Hour)}
	w.timer.Stop()
	return w
}

// A line is senders that wait, first come first served.
type line struct{ first, last *turn }

func (l *line) push(w *turn) {
	w.next = nil
	if l.last == nil {
		l.first = w
	} else {
		l.last.next = w
	}
	l.last = w
}

func (l *line) pop() {
	w := l.first
	l.first = w.next
	if l.first == nil {
		l.last = nil
	}
	w.next = nil
}

// remove takes w out of the line and reports whether it was there.
func (l *line) remove(w *turn) bool {
	var before *turn
	for x := l.first; x != nil; before, x = x, x.next {
		if x != w {
			continue
		}
		if before == nil {
			l.pop()
			return true
		}
		before.next = w.next
		if l.last == w {
			l.last = before
		}
		w.next = nil
		return true
	}
	return false
}
