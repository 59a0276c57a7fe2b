package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// A part is a piece of the daemon with a Run method: it ends when its context
// does, and returns an error only for a fault of its own.
type part struct {
	name string
	run  func(context.Context) error
}

// stopGrace bounds how long all parts together may take to end: SIGTERM has to
// end the whole daemon within five seconds.
const stopGrace = 4500 * time.Millisecond

// errPartStuck says that a part did not end in time; the process should.
var errPartStuck = errors.New("did not stop in time")

// run starts the parts in order and, when ctx ends or any part returns, stops
// them in reverse order, waiting for each. It returns the fault that ended it,
// nil if that was ctx.
func run(ctx context.Context, parts ...part) error {
	type ended struct {
		i   int
		err error
	}
	ends := make(chan ended, len(parts))
	done := make([]chan struct{}, len(parts))
	cancels := make([]context.CancelFunc, len(parts))
	for i, p := range parts {
		// Each part has a context of its own, so that they can be stopped in order.
		pctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done[i], cancels[i] = make(chan struct{}), cancel
		go func() {
			err := p.run(pctx)
			close(done[i])
			ends <- ended{i, err}
		}()
	}
	var fault error
	select {
	case <-ctx.Done():
	case e := <-ends:
		fault = fmt.Errorf("%s: %w", parts[e.i].name, cmpErr(e.err, errors.New("ended by itself")))
	}
	late, cancelLate := context.WithTimeout(context.Background(), stopGrace)
	defer cancelLate()
	for i := range slices.Backward(parts) {
		cancels[i]()
		select {
		case <-done[i]:
		case <-late.Done():
			fault = errors.Join(fault, fmt.Errorf("%s: %w", parts[i].name, errPartStuck))
		}
	}
	for range len(ends) {
		if e := <-ends; e.err != nil && fault == nil {
			fault = fmt.Errorf("%s: %w", parts[e.i].name, e.err)
		}
	}
	return fault
}

// cmpErr returns err, or instead when err is nil.
func cmpErr(err, instead error) error {
	if err != nil {
		return err
	}
	return instead
}
