package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// recorder notes the order in which parts end.
type recorder struct {
	mu    sync.Mutex
	ended []string
}

func (r *recorder) part(name string, fault error, after time.Duration) part {
	return part{name, func(ctx context.Context) error {
		if fault != nil {
			time.Sleep(after)
			return fault
		}
		<-ctx.Done()
		time.Sleep(after)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ended = append(r.ended, name)
		return nil
	}}
}

func TestPartsStopInReverseOrder(t *testing.T) {
	defer goleak.VerifyNone(t)
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if err := run(ctx, r.part("a", nil, time.Second), r.part("b", nil, 0), r.part("c", nil, time.Second)); err != nil {
			t.Errorf("run: %v", err)
		}
		if want := []string{"c", "b", "a"}; !slices.Equal(r.ended, want) {
			t.Errorf("ended in the order %v, want %v", r.ended, want)
		}
	})
}

func TestAFaultStopsTheOthersAndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		fault := errors.New("broken")
		err := run(t.Context(), r.part("a", nil, 0), r.part("b", fault, time.Second), r.part("c", nil, 0))
		if !errors.Is(err, fault) || !strings.Contains(err.Error(), "b:") {
			t.Errorf("run: %v, want b's fault", err)
		}
		if want := []string{"c", "a"}; !slices.Equal(r.ended, want) {
			t.Errorf("ended %v, want %v", r.ended, want)
		}
	})
}

func TestAPartThatReturnsWithoutBeingToldIsAFault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		err := run(t.Context(), r.part("a", nil, 0), part{"b", func(context.Context) error { return nil }})
		if err == nil || !strings.Contains(err.Error(), "b: ended by itself") {
			t.Errorf("run: %v", err)
		}
	})
}

func TestAPartThatDoesNotStopIsLeftBehindAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r recorder
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin := time.Now()
		err := run(ctx, r.part("a", nil, 0), r.part("slow", nil, stopGrace+time.Second))
		if !errors.Is(err, errPartStuck) || !strings.Contains(err.Error(), "slow") {
			t.Errorf("run: %v", err)
		}
		if took := time.Since(begin); took != stopGrace {
			t.Errorf("waited %v, want %v", took, stopGrace)
		}
		time.Sleep(2 * time.Second) // in the bubble: the slow part ends too
	})
}
