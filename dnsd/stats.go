package dnsd

import (
	"encoding/binary"
	"sync/atomic"

	"slicewire/overlay"
)

// Stats are totals since New, and what is open now.
type Stats struct {
	Answers   map[string]uint64 // by response code: noerror, nxdomain, ...
	Truncated uint64            // answers with TC set
	Panics    uint64            // queries that only got a SERVFAIL
	Dropped   map[string]uint64 // messages and connections without an answer, by overlay.Drop
	Streams   int               // open TCP connections
	Names     int               // names that exist in the view, zones included
	Forwarded uint64            // questions that were asked upstream
	Forged    uint64            // replies from there that did not belong to a question
	Serial    uint32            // of the view; every Set raises it
}

var rcodeNames = [16]string{"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused"}

type counters struct {
	rcodes    [16]atomic.Uint64
	truncated atomic.Uint64
	panics    atomic.Uint64
	drops     overlay.Drops
}

func (c *counters) count(reply []byte) {
	if len(reply) < headerBytes {
		c.drops.Add(overlay.DropMalformed, 1)
		return
	}
	flags := binary.BigEndian.Uint16(reply[2:])
	c.rcodes[flags&15].Add(1)
	if flags&flagTC != 0 {
		c.truncated.Add(1)
	}
}

// Stats returns the counts. BADVERS counts as noerror, as its low bits say.
func (s *Server) Stats() Stats {
	view := s.view.Load()
	st := Stats{
		Answers:   make(map[string]uint64),
		Truncated: s.stats.truncated.Load(),
		Panics:    s.stats.panics.Load(),
		Dropped:   s.stats.drops.Snapshot(),
		Streams:   s.streams.open(),
		Names:     len(view.names),
	}
	if f := s.forward; f != nil {
		st.Forwarded, st.Forged = f.up.asked.Load(), f.up.forged.Load()
	}
	for i := range s.stats.rcodes {
		if n := s.stats.rcodes[i].Load(); n != 0 && rcodeNames[i] != "" {
			st.Answers[rcodeNames[i]] = n
		}
	}
	s.setMu.Lock()
	defer s.setMu.Unlock()
	st.Serial = s.serial
	return st
}
