package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// swellingRecords is how many more or fewer records, or objects of a cluster, there
// have to be before memory is given back, and from how many on a change leaves much
// behind.
const swellingRecords = 1000

// settledLooks is how many looks apart memory is given back at least for what
// changes left behind: it takes a whole collection each time.
const settledLooks = 60

// litter is how much more memory the heap may have than when it was given back
// last, in bytes, before that is done again though nothing has changed: whoever
// asks for thousands of names leaves much behind, too.
const litter = 16 << 20

// A swelling notices that a great many records or objects have come or gone, or that some of
// a great many have changed, and when that is over: taking them in leaves more
// behind than it keeps, which the runtime would give back to the system only
// little by little.
type swelling struct {
	turns    int    // how often records have changed; the loop's
	seen     int    // turns at the last look
	released int    // how many records there were when memory was given back
	cleared  int    // turns at that time
	looks    int    // since then
	heap     uint64 // of the system's memory after that, in bytes
}

// settle is called at every look, with the number of records and objects now and
// how often objects have changed, and calls release where it is time. heap says
// how much of the system's memory the heap has.
func (s *swelling) settle(records, changes int, heap func() uint64, release func()) {
	turns := s.turns + changes
	quiet := turns == s.seen
	s.seen = turns
	s.looks++
	swollen := max(records-s.released, s.released-records) >= swellingRecords
	littered := records >= swellingRecords && s.looks >= settledLooks && (turns != s.cleared || heap() > s.heap+litter)
	if quiet && (swollen || littered) {
		s.released, s.cleared, s.looks = records, turns, 0
		release()
		s.heap = heap()
	}
}

// residentHeap is how much of the system's memory the heap has, in bytes.
func residentHeap() (sum uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}}
	metrics.Read(samples)
	for i := range samples {
		if samples[i].Value.Kind() == metrics.KindUint64 {
			sum += samples[i].Value.Uint64()
		}
	}
	return sum
}

// giveBack gives memory that nothing uses back to the system, that of sync.Pools
// included, which outlives one collection.
func giveBack() {
	runtime.GC()
	debug.FreeOSMemory()
}
