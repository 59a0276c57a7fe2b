// Package simulate works out what failures would do to a mesh, without a mesh:
// the code that finds links down and chooses paths in a daemon, in virtual time
// over links that a scenario describes.
package simulate

import (
	"context"
	"fmt"
	"io"
	"time"

	"slicewire/overlay"
)

// Run works out what happens in the scenario at path. What an operator
// should know beforehand goes to notes. With gossip it takes as long as the
// scenario, and ends early with ctx.
func Run(ctx context.Context, path string, withGossip bool, notes io.Writer) (*Report, error) {
	s, err := readScenario(path)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(s, notes)
	if err != nil {
		return nil, err
	}
	report := &Report{Events: []Event{}, Moves: []Move{}, Outages: []Outage{}}
	known := func(_, _ overlay.NodeID) time.Duration { return 0 }
	if withGossip {
		fmt.Fprintf(notes, "gossip runs in real time: %v\n", time.Duration(s.Duration)+gossipWarmUp)
		if known, err = runGossip(ctx, w, report); err != nil {
			return nil, fmt.Errorf("gossip: %w", err)
		}
	}
	runPaths(w, report, known)
	return report, nil
}
