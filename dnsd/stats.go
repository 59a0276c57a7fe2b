package dnsd

import (
	"encoding/binary"
	"math/bits"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// Stats are totals since New, and what is open now.
type Stats struct {
	Answers   map[string]uint64            // by response code: noerror, nxdomain, ...
	Queries   map[string]map[string]uint64 // by type asked for (A, AAAA, ... other; none: no question could be read), then by response code
	From      map[string]uint64            // by where the answer came from: local, cache, upstream, stale; failed: upstream had none
	Took      Durations                    // from a query's arrival to its answer
	Truncated uint64                       // answers with TC set
	Panics    uint64                       // queries that only got a SERVFAIL
	Dropped   map[string]uint64            // messages and connections without an answer, by overlay.Drop
	Streams   int                          // open TCP connections
	Names     int                          // names that exist in the view, zones included
	Forwarded uint64                       // questions that were asked upstream
	Forged    uint64                       // replies from there that did not belong to a question
	Serial    uint32                       // of the view; every Set raises it
}

// Durations counts how long something took.
type Durations struct {
	Counts []uint64 // of those that took less than DurationBound(i) and no less than the one before; the last one has no bound
	Sum    time.Duration
}

// durationBuckets reach from 4 us to 4.3 s, each four times the one before, and
// one for the rest.
const durationBuckets = 12

// DurationBound returns the upper bound of a count of Durations; the last count
// has none.
func DurationBound(i int) time.Duration { return 4096 * time.Nanosecond << (2 * i) }

var rcodeNames = [8]string{"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other", "other"}

// The types of questions that are counted by themselves.
var (
	typeNames = [...]string{"A", "AAAA", "SRV", "PTR", "TXT", "SOA", "HTTPS", "ANY", "other", "none"}
	typeSlots = [...]uint16{typeA, typeAAAA, typeSRV, typePTR, typeTXT, typeSOA, typeHTTPS, typeANY}
)

const (
	slotOther = len(typeSlots)
	slotNone  = slotOther + 1
)

// A source is where an answer comes from that is not of our names.
type source uint8

const (
	fromUpstream source = iota
	fromCache
	fromStale
	fromNowhere
)

var sourceNames = [...]string{"upstream", "cache", "stale", "failed"}

type counters struct {
	queries   [len(typeNames)][len(rcodeNames)]atomic.Uint64
	from      [len(sourceNames)]atomic.Uint64
	took      [durationBuckets]atomic.Uint64
	tookSum   atomic.Int64
	truncated atomic.Uint64
	panics    atomic.Uint64
	drops     overlay.Drops
}

// count counts a reply that took so long; none is a drop.
func (c *counters) count(reply []byte, took time.Duration) {
	if len(reply) < headerBytes {
		c.drops.Add(overlay.DropMalformed, 1)
		return
	}
	flags := binary.BigEndian.Uint16(reply[2:])
	c.queries[typeSlot(reply)][min(flags&15, uint16(len(rcodeNames)-1))].Add(1)
	if flags&flagTC != 0 {
		c.truncated.Add(1)
	}
	c.took[min((bits.Len64(uint64(took)>>12)+1)/2, durationBuckets-1)].Add(1)
	c.tookSum.Add(int64(took))
}

// typeSlot returns where a reply is counted by the type of its question.
func typeSlot(reply []byte) int {
	off := headerBytes
	if binary.BigEndian.Uint16(reply[4:]) == 0 {
		return slotNone
	}
	for off < len(reply) && reply[off] != 0 { // our own message: the question's name is not compressed
		off += 1 + int(reply[off])
	}
	if off+3 > len(reply) {
		return slotNone
	}
	qtype := binary.BigEndian.Uint16(reply[off+1:])
	for i, t := range typeSlots {
		if t == qtype {
			return i
		}
	}
	return slotOther
}

// Stats returns the counts. BADVERS counts as noerror, as its low bits say.
func (s *Server) Stats() Stats {
	view := s.view.Load()
	st := Stats{
		Answers:   make(map[string]uint64),
		Queries:   make(map[string]map[string]uint64),
		From:      make(map[string]uint64),
		Took:      Durations{Counts: make([]uint64, durationBuckets), Sum: time.Duration(s.stats.tookSum.Load())},
		Truncated: s.stats.truncated.Load(),
		Panics:    s.stats.panics.Load(),
		Dropped:   s.stats.drops.Snapshot(),
		Streams:   s.streams.open(),
		Names:     len(view.names),
	}
	if f := s.forward; f != nil {
		st.Forwarded, st.Forged = f.up.asked.Load(), f.up.forged.Load()
	}
	elsewhere := uint64(0)
	for i := range s.stats.from { // before the queries: what is counted here is one of those
		if n := s.stats.from[i].Load(); n > 0 {
			st.From[sourceNames[i]] = n
			elsewhere += n
		}
	}
	all := uint64(0)
	for t := range s.stats.queries {
		for code := range s.stats.queries[t] {
			if n := s.stats.queries[t][code].Load(); n > 0 {
				all += n
				byCode := st.Queries[typeNames[t]]
				if byCode == nil {
					byCode = make(map[string]uint64)
					st.Queries[typeNames[t]] = byCode
				}
				byCode[rcodeNames[code]] += n
				st.Answers[rcodeNames[code]] += n
			}
		}
	}
	if all > elsewhere {
		st.From["local"] = all - elsewhere
	}
	for i := range s.stats.took {
		st.Took.Counts[i] = s.stats.took[i].Load()
	}
	s.setMu.Lock()
	defer s.setMu.Unlock()
	st.Serial = s.serial
	return st
}
