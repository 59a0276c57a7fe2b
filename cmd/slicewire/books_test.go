package main

import (
	"fmt"
)

// balance checks that all that was sent on slices was delivered or dropped for a
// reason, by the counters of all running nodes. It waits for what is under way.
// Nothing may have been lost on the underlay, and no daemon may have ended.
func (l *pathLab) balance(slices ...string) {
	l.t.Helper()
	for _, name := range slices {
		said := ""
		if !awaited(func() (even bool) { said, even = l.weigh(name); return even }) {
			l.t.Errorf("the books of %s do not balance: %s", name, said)
		}
	}
}

// weigh adds up a slice's counters.
func (l *pathLab) weigh(slice string) (said string, even bool) {
	var sent, delivered, dropped uint64
	all := make(map[string]uint64)
	for _, n := range l.running() {
		s, ok := l.statusOf(n, slice)
		if !ok {
			return fmt.Sprintf("%v says nothing", n.id), false
		}
		c := s.Counters
		sent += c.InsideRxPackets + c.LocalRxPackets + c.ICMPErrors + c.Fragments + c.Copies - c.Cut
		delivered += c.InsideTxPackets + c.LocalTxPackets
		for _, count := range s.Drops {
			dropped += count
		}
		dropped -= c.EdgeDrops
		addDrops(all, s.Drops)
	}
	return fmt.Sprintf("%d sent, %d delivered, %d dropped: %v", sent, delivered, dropped, all), sent == delivered+dropped
}
