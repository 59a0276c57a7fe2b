package gateway

// Who reads the transport has the lead; one goroutine at a time has it. It is
// the mux's own, which hands everything over: each batch then wakes a second
// goroutine, WireGuard's receiver of the slice it is for. While only one slice
// receives, the mux lends it the lead, and that goroutine reads for itself. It
// gives the lead back as soon as it would keep others waiting: when what it read
// was not for it alone, when the governor holds it, and when it closes.
//
//	mux.read          lend: b.lead = leadHeld, then waits for back
//	receiver.receive  leadHeld -> leadReading -> leadHeld, while its queue is empty
//	giveBack          leadHeld -> leadNone, mux.back <-
//	bind.Close        of leadHeld: giveBack; of leadReading: interrupts the reader,
//	                  which gives back

// lendAfter is for how many receives in a row one slice alone has to be meant:
// where slices take turns, lending would cost more wake-ups than it saves.
const lendAfter = 16

// lead is what a bind has of the right to read the transport.
type lead uint8

const (
	leadNone    lead = iota
	leadHeld         // it may read
	leadReading      // its receiver is in take
)

// lend gives the lead to b, all of the latest receive was for, if it was so
// often enough, and reports whether it did. b may be nil.
func (m *mux) lend(b *bind) bool {
	if b == nil || b != m.last {
		m.last, m.streak = b, 0
	}
	m.streak++
	if b == nil || m.streak < lendAfter {
		return false
	}
	m.last, m.streak = nil, 0
	b.mu.Lock()
	if !b.isOpen {
		b.mu.Unlock()
		return false
	}
	b.lead = leadHeld
	b.mu.Unlock()
	b.wake()
	return true
}

// giveBackLocked ends a lead that is held. Who waits for it is the mux alone,
// and there is only one lead: sending does not block.
func (b *bind) giveBackLocked() {
	b.lead = leadNone
	b.mux.back <- struct{}{}
}

// giveBack ends the lead, if it is held.
func (b *bind) giveBack() {
	b.mu.Lock()
	if b.lead == leadHeld {
		b.giveBackLocked()
	}
	b.mu.Unlock()
}

// readSelf reads the transport once, for this slice's queue and those of
// others. The bind's lead is leadReading.
func (b *bind) readSelf() {
	only, err := b.mux.take()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lead = leadHeld
	if !b.isOpen {
		b.mux.out.resume() // Close interrupted it
	}
	if err != nil || only != b || !b.isOpen {
		b.giveBackLocked() // of an error the mux finds out by itself
	}
}
