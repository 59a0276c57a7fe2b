package api

import (
	"fmt"
	"time"
)

// String says in a few words how a link is.
func (l *LinkStatus) String() string {
	switch {
	case l == nil:
		return "-"
	case !l.Up:
		return "down"
	}
	text := fmt.Sprintf("up %.1fms", l.RTTMs)
	if l.Loss >= 0.01 {
		text += fmt.Sprintf(" loss %.0f%%", 100*l.Loss)
	}
	if l.Leaving {
		text += " leaving"
	}
	return text
}

// What says what a workload is, in a few words.
func (w WorkloadStatus) What() string {
	if w.Kind == WorkloadAttach {
		return w.Device + " in " + w.Netns
	}
	return fmt.Sprintf("%s, pid %d, %s", w.Command, w.PID, w.Medium)
}

// handshakeFresh is how old a handshake may be while its session can still
// carry data: WireGuard's REJECT_AFTER_TIME.
const handshakeFresh = 180 * time.Second

// Connected counts the peers with a live session at now.
func (s SliceStatus) Connected(now time.Time) int {
	n := 0
	for _, p := range s.Peers {
		if p.LastHandshake != nil && now.Sub(*p.LastHandshake) < handshakeFresh {
			n++
		}
	}
	return n
}

// Kinds of workloads.
const (
	WorkloadRun    = "run"
	WorkloadAttach = "attach"
)
