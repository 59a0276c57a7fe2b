package router

import "time"

// A tick is the unit of a flowTable's time: coarse, so that of a stream's
// packets only some write when they were seen.
const tick = 100 * time.Millisecond

func ticks(d time.Duration) int64 { return int64(d / tick) }

// How long flows live without a packet, by RFC 5382, 4787 and 5508 where they
// say it. A flow that was forgotten is asked about again, from whichever end
// speaks first.
const (
	idleTCP      = 7440 * time.Second // established
	idleTCPOther = 4 * time.Minute    // no answer yet, or one end is done
	idleUDP      = 5 * time.Minute
	idleUDPOne   = 30 * time.Second // no answer yet
	idleICMP     = 60 * time.Second
	idleOther    = 10 * time.Minute
	idleFragment = 30 * time.Second
)

// marks of an entry
const (
	markReplied = 1 << iota // a packet came back
	markClosed              // TCP: FIN or RST was seen
)

// idle is how long the flow may be silent.
func (e *flowEntry) idle(last uint64) int64 {
	marks := e.marks.Load()
	switch proto := uint8(last >> 32); {
	case last&keyFragment != 0:
		return ticks(idleFragment)
	case proto == protoTCP:
		if marks == markReplied {
			return ticks(idleTCP)
		}
		return ticks(idleTCPOther)
	case proto == protoUDP:
		if marks&markReplied != 0 {
			return ticks(idleUDP)
		}
		return ticks(idleUDPOne)
	case proto == protoICMP || proto == protoICMPv6:
		return ticks(idleICMP)
	}
	return ticks(idleOther)
}

func (e *flowEntry) expired(now int64) bool { return now-e.seen.Load() > e.idle(e.last.Load()) }

// touch notes that a packet of the flow came by, one way or the other.
func (e *flowEntry) touch(back bool, now int64) {
	if back && e.marks.Load()&markReplied == 0 {
		e.marks.Or(markReplied)
	}
	if e.seen.Load() < now {
		e.seen.Store(now)
	}
}

// note takes notice of the flags of a TCP segment: a connection that ends, or
// one that is opened again between the same ports.
func (e *flowEntry) note(flags uint8) {
	switch {
	case flags&(tcpFIN|tcpRST) != 0:
		e.marks.Or(markClosed)
	case flags&(tcpSYN|tcpACK) == tcpSYN && e.marks.Load()&markClosed != 0:
		e.marks.Store(0)
	}
}
