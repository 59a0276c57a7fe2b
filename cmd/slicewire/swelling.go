package main

// swellingRecords is how many more or fewer records, or objects of a cluster, there
// have to be before memory is given back, and from how many on a change leaves much
// behind.
const swellingRecords = 1000

// settledLooks is how many looks apart memory is given back at least for what
// changes left behind: it takes a whole collection each time.
const settledLooks = 60

// A swelling notices that a great many records or objects have come or gone, or that some of
// a great many have changed, and when that is over: taking them in leaves more
// behind than it keeps, which the runtime would give back to the system only
// little by little.
type swelling struct {
	turns    int // how often records have changed; the loop's
	seen     int // turns at the last look
	released int // how many records there were when memory was given back
	cleared  int // turns at that time
	looks    int // since then
}

// settle is called at every look, with the number of records and objects now and
// how often objects have changed, and calls release where it is time.
func (s *swelling) settle(records, changes int, release func()) {
	turns := s.turns + changes
	quiet := turns == s.seen
	s.seen = turns
	s.looks++
	swollen := max(records-s.released, s.released-records) >= swellingRecords
	littered := records >= swellingRecords && turns != s.cleared && s.looks >= settledLooks
	if quiet && (swollen || littered) {
		s.released, s.cleared, s.looks = records, turns, 0
		release()
	}
}
