package overlaytest

import (
	"slices"
	"sync"

	"slicewire/overlay"
)

// A Watcher is a capture that keeps what it is shown. It may be used
// concurrently.
type Watcher struct {
	mu     sync.Mutex
	sights []overlay.Sight
	pkts   [][]byte
}

// Watch returns one, and the taps that it is in.
func Watch() (*Watcher, *overlay.Taps) {
	w, taps := new(Watcher), new(overlay.Taps)
	taps.Add(w, 1)
	return w, taps
}

// See implements overlay.Tap.
func (w *Watcher) See(s overlay.Sight, pkt []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sights, w.pkts = append(w.sights, s), append(w.pkts, slices.Clone(pkt))
}

// Seen returns what was shown so far.
func (w *Watcher) Seen() ([]overlay.Sight, [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sights), slices.Clone(w.pkts)
}

// Lost counts the packets that were shown as lost, by reason.
func (w *Watcher) Lost() map[string]uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := make(map[string]uint64)
	for _, s := range w.sights {
		if s.Point == overlay.PointDrop {
			m[s.Drop.String()]++
		}
	}
	return m
}
