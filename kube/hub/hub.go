package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"slicewire/kube"
	"slicewire/overlay/manifest"
)

// Config is what a Hub needs. Every field but State and CNISubnets is required.
type Config struct {
	Client     *kube.Client
	Namespace  string // of the project
	Site, Node string
	Controller string // as in manifest.NodeHub
	HoldFor    time.Duration
	CNISubnets []string
	State      []byte             // what Save was given last, perhaps by a run before; nil: nothing
	Save       func([]byte) error // keeps what is in force
	Log        *slog.Logger
}

// A Hub is a project on a hub's API server.
type Hub struct {
	cfg      Config
	watch    *kube.Watch
	applier  *kube.Applier
	recorder *kube.Recorder
	changed  chan struct{} // level-triggered: what counts is another
	poke     chan struct{} // level-triggered: the writer may have something to do

	mu        sync.Mutex
	guard     guard
	good      documents
	verdicts  map[string]verdict
	merged    *merged
	facts     *Facts
	state     Status
	wellAt    time.Time // when all was well last, or the start
	dirty     bool      // good is not saved
	confirmed time.Time
	tallies   map[string]*tally  // by slice
	rates     map[[2]string]rate // by slice and site
	lacks     []string           // kinds whose status has no room for what is said
	denied    string             // what the hub does not let this node write; "": nothing
}

// Status says how a node stands with its hub.
type Status struct {
	Synced bool      // this run has seen all of the hub
	Stale  bool      // the hub has not been well for staleAfter: the last known state goes on
	Since  time.Time // of Stale's last change
	Heard  time.Time // when the hub was last well; zero: not in this run
	Err    string    // what is wrong with it; "": nothing
	Held   []string  // objects that vanished with many others and go on to count
	Object map[string]int

	Refused map[string]string // objects that are not in force as they are, and why
	Writes  uint64            // requests that write
	Lost    uint64            // events that were not written
	Denied  string
}

// staleAfter is how long a hub may be silent before that is said: with the time
// that it takes to notice, within 30 seconds.
const staleAfter = 15 * time.Second

// New makes a Hub that counts what State says until the hub has been heard. A
// state that cannot be read is an error that comes with a usable Hub.
func New(cfg Config) (*Hub, error) {
	h := &Hub{
		cfg: cfg, changed: make(chan struct{}, 1), poke: make(chan struct{}, 1),
		applier:  kube.NewApplier(cfg.Client),
		recorder: kube.NewRecorder(cfg.Client, "slicewire", cfg.Site+"/"+cfg.Node, cfg.Log),
		guard:    guard{known: documents{}}, good: documents{}, tallies: map[string]*tally{}, wellAt: time.Now(),
	}
	var watched []kube.Resource
	for _, kind := range slices.Sorted(maps.Keys(resources)) {
		watched = append(watched, kube.Resource{GroupVersionResource: resources[kind], Namespace: cfg.Namespace})
	}
	h.watch = kube.NewWatch(cfg.Client, cfg.Log, watched...)
	h.state.Since = h.wellAt
	return h, h.restore(cfg.State)
}

// saved is the form of the state.
type saved struct {
	Documents []*document `json:"documents"`
}

func (h *Hub) restore(state []byte) error {
	if len(state) == 0 {
		return nil
	}
	var s saved
	if err := json.Unmarshal(state, &s); err != nil {
		return fmt.Errorf("what the hub last said is lost: %w", err)
	}
	for _, d := range s.Documents {
		d.parse()
		h.good[d.ID], h.guard.known[d.ID] = d, d
	}
	return nil
}

// Changed is told, level-triggered, that Merge would come to something else.
func (h *Hub) Changed() <-chan struct{} { return h.changed }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run watches the hub and writes to it until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	var all sync.WaitGroup
	all.Go(func() { _ = h.watch.Run(ctx) }) // they end with ctx alone
	all.Go(func() { _ = h.recorder.Run(ctx) })
	all.Go(func() { h.write(ctx) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-h.watch.Changed():
			h.absorb(time.Now(), true)
			signal(h.poke)
		case <-tick.C:
			h.absorb(time.Now(), false)
		}
		h.save()
	}
	all.Wait()
	return nil
}

// absorb takes in what the watch has. Unless that has changed it looks only at the
// hub's health and whether what is held is to go on.
func (h *Hub) absorb(now time.Time, changed bool) {
	st := h.watch.State()
	err := st.Err
	for _, kind := range needed {
		if err == nil && slices.Contains(st.Absent, resources[kind]) {
			err = fmt.Errorf("the hub has no %s: apply deploy/crds there, or install KubeSlice's controller", resources[kind].GroupResource())
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	well := st.Synced && err == nil && now.Sub(st.Heard) < staleAfter
	h.noteHealth(now, well, st.Heard, err)
	if !st.Synced || err != nil {
		return
	}
	if changed = changed || !h.state.Synced; !changed && len(h.guard.held()) == 0 {
		return
	}
	h.state.Synced = true
	there := documents{}
	for _, kind := range read {
		for _, o := range h.watch.Objects(resources[kind]) {
			if o.GetDeletionTimestamp() != nil && kind == "ServiceExportConfig" {
				continue // it waits for finalizers of others
			}
			d := h.guard.known.of(o)
			there[d.ID] = d
		}
	}
	before := h.guard.known
	held := h.guard.update(seen{now: now, there: there, deleted: h.wasDeleted, holdFor: h.cfg.HoldFor, confirmed: h.confirmedAt()})
	if len(held) > 0 {
		h.cfg.Log.Warn("much of the hub vanished at once and goes on to count", "objects", len(held), "first", held[0], "until", now.Add(h.cfg.HoldFor))
	}
	if !equal(before, h.guard.known) || len(held) > 0 {
		h.dirty = true
		signal(h.changed)
	}
}

// noteHealth keeps track of whether the hub is well. h.mu is held.
func (h *Hub) noteHealth(now time.Time, well bool, heard time.Time, err error) {
	if well {
		h.wellAt = now
	}
	stale := now.Sub(h.wellAt) > staleAfter
	if stale != h.state.Stale {
		h.state.Stale, h.state.Since = stale, now
		if stale {
			h.cfg.Log.Warn("the hub does not answer, the last known state goes on", "err", err)
		} else {
			h.cfg.Log.Info("the hub answers again")
		}
		signal(h.changed)
		signal(h.poke)
	}
	h.state.Heard, h.state.Err = heard, ""
	if err != nil {
		h.state.Err = err.Error()
	}
}

func (h *Hub) wasDeleted(id string) bool {
	kind, namespace, name := split(id)
	return h.watch.Deleted(resources[kind], namespace, name)
}

// split takes an ID apart.
func split(id string) (kind, namespace, name string) {
	f := strings.SplitN(strings.TrimPrefix(id, idPrefix), "/", 3)
	if len(f) != 3 {
		return "", "", ""
	}
	return f[0], f[1], f[2]
}

// AnnotationConfirmed is the annotation on a site's Cluster that says until when
// what vanished was meant to: a time as RFC 3339 has it.
const AnnotationConfirmed = "slicewire.io/deletions-confirmed"

// confirmedAt returns until when deletions were confirmed. h.mu is held.
func (h *Hub) confirmedAt() time.Time {
	at := h.confirmed
	if o := h.watch.Get(resources["Cluster"], h.cfg.Namespace, h.cfg.Site); o != nil {
		if t, err := time.Parse(time.RFC3339, o.GetAnnotations()[AnnotationConfirmed]); err == nil && t.After(at) {
			at = t
		}
	}
	return at
}

// Confirm says that what has vanished until now was meant to.
func (h *Hub) Confirm(now time.Time) {
	h.mu.Lock()
	h.confirmed = now
	h.mu.Unlock()
	h.absorb(now, true)
}

// equal reports whether two sets of documents ask for the same. Documents that
// were not read anew are the same pointer.
func equal(a, b documents) bool {
	if len(a) != len(b) {
		return false
	}
	for id, d := range a {
		e := b[id]
		if e == nil || d != e && string(d.Body) != string(e.Body) {
			return false
		}
	}
	return true
}

// Merge works out the desired state from what counts of the hub and from other
// objects. Errors among the problems are never the hub's.
func (h *Hub) Merge(others *manifest.Set, opts manifest.Options) Result {
	h.mu.Lock()
	now, good := maps.Clone(h.guard.known), maps.Clone(h.good)
	h.mu.Unlock()
	m := merge(others, now, good, opts)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.merged == nil {
		h.merged = &merged{}
	}
	h.count(&h.merged.mesh, &m.mesh)
	h.dirty = h.dirty || !equal(h.good, m.good)
	h.countRefusals(m.verdicts)
	h.good, h.verdicts, h.merged = m.good, m.verdicts, &m
	h.state.Refused = map[string]string{}
	for id, v := range m.verdicts {
		if v.refused != "" {
			h.state.Refused[strings.TrimPrefix(id, idPrefix)] = v.refused
		}
	}
	signal(h.poke)
	return Result{Mesh: m.mesh, Problems: m.problems}
}

// Sources returns what the last Merge was made of: others and what is in force of the
// hub. It is not to be changed.
func (h *Hub) Sources(others *manifest.Set) *manifest.Set {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.merged == nil || h.merged.set == nil {
		return others
	}
	return manifest.Join(others, h.merged.set)
}

// save keeps what is in force.
func (h *Hub) save() {
	h.mu.Lock()
	if !h.dirty {
		h.mu.Unlock()
		return
	}
	h.dirty = false
	var s saved
	for _, id := range slices.Sorted(maps.Keys(h.good)) {
		d := *h.good[id]
		if k := h.guard.known[id]; k != nil {
			d.Gone, d.Held = k.Gone, k.Held
		}
		s.Documents = append(s.Documents, &d)
	}
	h.mu.Unlock()
	text, err := json.Marshal(s)
	if err == nil {
		err = h.cfg.Save(text)
	}
	if err != nil {
		h.cfg.Log.Error("what the hub says is not kept for a restart", "err", err)
		h.mu.Lock()
		h.dirty = true
		h.mu.Unlock()
	}
}

// Status returns how the node stands with the hub.
func (h *Hub) Status() Status {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.state
	s.Held = h.guard.held()
	s.Object = map[string]int{}
	for _, d := range h.guard.known {
		s.Object[d.Kind]++
	}
	s.Refused = maps.Clone(h.state.Refused)
	s.Writes = h.applier.Writes() + h.recorder.Writes()
	s.Lost, s.Denied = h.recorder.Dropped(), h.denied
	return s
}
