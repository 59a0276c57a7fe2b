package main

// swellingRecords is how many more or fewer records there have to be before
// memory is given back.
const swellingRecords = 1000

// A swelling notices that a great many records have come or gone, and when that
// is over: taking them in leaves more behind than it keeps, which the runtime
// would give back to the system only little by little.
type swelling struct {
	turns    int // how often records have changed
	seen     int // turns at the last look
	released int // how many records there were when memory was given back
}

// settle is called at every look, with the number of records now, and calls
// release where it is time.
func (s *swelling) settle(records int, release func()) {
	quiet := s.turns == s.seen
	s.seen = s.turns
	if quiet && max(records-s.released, s.released-records) >= swellingRecords {
		s.released = records
		release()
	}
}
