package cluster

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
)

const (
	// writersMax is how many requests that write are under way at a time: enough
	// to wait for the server's disk together.
	writersMax = 16
	// retryMin and retryMax bound how long one that failed, or that did not stay,
	// is left alone.
	retryMin = 500 * time.Millisecond
	retryMax = time.Minute
	// forgetAfter is after how long a former try does not count.
	forgetAfter = 5 * time.Minute
)

// A writer has the cluster's objects be as the newest plan wants them.
type writer struct {
	c       *Cluster
	applier *kube.Applier
	ready   chan struct{} // level-triggered: another plan
	next    atomic.Pointer[planned]
	fault   atomic.Pointer[string]

	mu      sync.Mutex
	tries   map[partKey]try   // guarded by mu; by object and part
	gone    map[Ref]time.Time // since when nothing wants it; run's
	lacks   map[Kind][]string // guarded by mu; fields that statuses have no room for
	foreign map[Ref]bool      // guarded by mu; said to be others'
}

type planned struct {
	*plan
	setting *setting
	wanted  map[Ref]*want
}

// deserted reports whether an unwanted object is the EndpointSlice of a pod that
// has gone, of a Service that is wanted: it leads connections to nowhere.
func (p *planned) deserted(x *Object) bool {
	return x.Kind == KindEndpointSlice && p.wanted[Ref{KindService, x.Namespace, x.Slice.Service}] != nil
}

// A partKey names a part of an object: all but its status, or that.
type partKey struct {
	Ref
	status bool
}

// A try is the last time that an object was written.
type try struct {
	hash  uint64
	seen  string // resourceVersion of what was there then
	count int    // how often the same was written
	at    time.Time
	err   string
}

func newWriter(c *Cluster) *writer {
	return &writer{
		c: c, applier: kube.NewApplier(c.cfg.Client), ready: make(chan struct{}, 1), tries: make(map[partKey]try), gone: make(map[Ref]time.Time),
		lacks: make(map[Kind][]string), foreign: make(map[Ref]bool),
	}
}

func (w *writer) set(p *plan, s *setting) {
	n := &planned{plan: p, setting: s, wanted: make(map[Ref]*want, len(p.wants))}
	for i := range p.wants {
		n.wanted[p.wants[i].Ref] = &p.wants[i]
	}
	w.next.Store(n)
	signal(w.ready)
}

// run writes until ctx ends. A plan that is replaced while it is carried out, as
// every object that is written does, is gone on with by what the new one says of
// each object; but one that says something else of what packets go by is begun
// with at once.
func (w *writer) run(ctx context.Context) {
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.ready:
		case <-again.C:
		}
		if p := w.next.Load(); p != nil {
			if due := w.carryOut(ctx, p); due > 0 {
				again.Reset(due)
			} else {
				w.next.CompareAndSwap(p, nil) // it is done, and large
			}
		}
	}
}

// carryOut makes a plan real and returns when to look again at the latest; 0:
// when there is another plan.
func (w *writer) carryOut(ctx context.Context, p *planned) (due time.Duration) {
	var all sync.WaitGroup
	slots := make(chan struct{}, writersMax)
	var mu sync.Mutex // guards due
	soon := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		if d > 0 && (due == 0 || d < due) {
			due = d
		}
	}
	do := func(f func() time.Duration) bool {
		if ctx.Err() != nil {
			return false
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			soon(f())
		})
		return true
	}
	for i := range p.wants {
		newest := w.next.Load() // there is one: run alone takes it away
		if newest.urgent != p.urgent {
			break
		}
		x := newest.wanted[p.wants[i].Ref]
		if x != nil && !do(func() time.Duration { return w.want(ctx, newest, x) }) {
			break
		}
	}
	if w.next.Load() != p {
		all.Wait()
		return 0
	}
	unwanted := p.unwanted(p.setting)
	gone := make(map[Ref]time.Time, len(unwanted))
	now := time.Now()
	for _, x := range unwanted {
		since, known := w.gone[x.Ref]
		if !known {
			since = now
		}
		gone[x.Ref] = since
		if left := w.c.cfg.Linger - now.Sub(since); left > 0 && x.Kind != KindNetworkPolicy && !p.deserted(x) {
			soon(left)
			continue
		}
		do(func() time.Duration { return w.remove(ctx, p, x) })
	}
	w.gone = gone
	all.Wait()
	w.report()
	return due
}

// want has one object be as it should.
func (w *writer) want(ctx context.Context, p *planned, x *want) (due time.Duration) {
	info := &p.setting.kinds[x.Kind]
	live := w.c.live(x.Ref)
	if x.whole != nil {
		if live != nil && !x.shared && !live.ours {
			w.leave(x)
			return 0
		}
		due = w.part(x.Ref, "", w.fitting(x.Kind, x.whole()), live, func(u, there *unstructured.Unstructured) error {
			if x.Kind == KindNetworkPolicy && there != nil && !reflect.DeepEqual(there.Object["spec"], u.Object["spec"]) {
				w.c.recorder.Record(kube.Event{Name: "NetPolViolation", On: there, Slice: x.slice, Cluster: w.c.cfg.Site, Message: "NetworkPolicy " + x.String() + " was changed and is put back"})
			}
			return w.declared(x.Kind, u, func() error {
				_, err := w.applier.ApplyShared(ctx, info.resource, u, nil) // it is known to differ
				return err
			})
		})
	}
	if x.status != nil && live != nil {
		d := w.part(x.Ref, "status", w.fitting(x.Kind, x.status()), live, func(u, there *unstructured.Unstructured) error { return w.status(ctx, info, x, u, there) })
		if d > 0 && (due == 0 || d < due) {
			due = d
		}
	}
	return due
}

// status writes a status and tells of it.
func (w *writer) status(ctx context.Context, info *kindInfo, x *want, u, live *unstructured.Unstructured) error {
	err := w.declared(x.Kind, u, func() error {
		_, err := w.applier.ApplyStatus(ctx, info.resource, u, live)
		return err
	})
	name, message := x.event, x.String()
	if err != nil {
		name, message = x.failed, err.Error()
	}
	if name != "" {
		w.c.recorder.Record(kube.Event{Name: name, On: live, Slice: x.slice, Cluster: w.c.cfg.Site, Message: message})
	}
	return err
}

// part writes one part of an object if it differs, but not again and again: the
// same onto the same is a matter of the watch, which lags, and the same onto
// something else one of who else writes it. It returns when to try again.
func (w *writer) part(r Ref, part string, u *unstructured.Unstructured, live *Object, write func(u, live *unstructured.Unstructured) error) time.Duration {
	key := partKey{r, part == "status"}
	now := time.Now()
	t := try{hash: hashOf(u), at: now}
	if live != nil {
		t.seen = live.version
		if live.clean[side(key.status)].Load() == t.hash {
			return 0
		}
	}
	there := live.whole()
	drifted := r.Kind == KindNetworkPolicy && there != nil && !reflect.DeepEqual(there.Object["spec"], u.Object["spec"]) // fields of others count, too
	if !drifted && !kube.Differs(u, there, part) {
		if live != nil {
			live.clean[side(key.status)].Store(t.hash)
		}
		w.mu.Lock()
		if last, tried := w.tries[key]; tried && last.count == 0 {
			delete(w.tries, key) // it stayed
		}
		w.mu.Unlock()
		return 0
	}
	w.mu.Lock()
	last, tried := w.tries[key]
	w.mu.Unlock()
	if tried && last.hash == t.hash && now.Sub(last.at) < forgetAfter {
		wait := min(retryMin<<min(last.count, 10), retryMax) - now.Sub(last.at)
		if last.count == 0 && last.seen != t.seen && last.err == "" {
			wait = 0 // somebody changed it
		}
		if wait > 0 {
			return wait
		}
		t.count = last.count + 1
	}
	err := write(stamped(u, now), there)
	if err != nil {
		t.err = err.Error()
		if t.err != last.err && !apierrors.IsConflict(err) {
			w.c.cfg.Log.Warn("object not written, retrying", "object", r.String(), "err", err)
		}
	}
	w.mu.Lock()
	w.tries[key] = t
	w.mu.Unlock()
	if err != nil {
		return retryMin << min(t.count, 7)
	}
	return 0
}

// side is the index of a part in an Object.
func side(status bool) int {
	if status {
		return 1
	}
	return 0
}

// hashOf makes a number of an object, which is not 0.
func hashOf(u *unstructured.Unstructured) uint64 {
	h := fnv.New64a()
	if b, err := json.Marshal(u.Object); err == nil { // of maps of JSON: it is
		h.Write(b)
	}
	return max(h.Sum64(), 1)
}

// stamped puts the time where a wanted object has marks for it.
func stamped(u *unstructured.Unstructured, now time.Time) *unstructured.Unstructured {
	out := u.DeepCopy()
	if number(out.Object, "status", "lastSync") == unixMark {
		out.Object["status"].(map[string]any)["lastSync"] = now.Unix()
	}
	for _, c := range objectsIn(out.Object, "status", "conditions") {
		if text(c, "lastTransitionTime") == nowMark {
			c["lastTransitionTime"] = now.UTC().Format(time.RFC3339)
		}
	}
	return out
}

// leave says once of an object that it is another's.
func (w *writer) leave(x *want) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.foreign[x.Ref] {
		w.foreign[x.Ref] = true
		w.c.cfg.Log.Warn("object is not slicewire's and is left alone", "object", x.String(), "kind", w.c.watched[x.Kind].kind)
	}
}

// remove takes an object of ours away.
func (w *writer) remove(ctx context.Context, p *planned, x *Object) time.Duration {
	info := &p.setting.kinds[x.Kind]
	live := w.c.live(x.Ref).whole()
	if live == nil || !kube.Ours(live) {
		return 0
	}
	if err := w.applier.Delete(ctx, info.resource, live); err != nil {
		w.c.cfg.Log.Warn("object not removed, retrying", "object", x.String(), "err", err)
		return retryMin
	}
	if x.Kind == KindImport {
		w.c.recorder.Record(kube.Event{Name: "SliceServiceImportDeleted", On: live, Slice: live.GetAnnotations()[kube.AnnotationSlice], Cluster: w.c.cfg.Site, Message: x.String()})
	}
	return 0
}

// report remembers one of the faults there are, and forgets old tries.
func (w *writer) report() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(w.tries, func(_ partKey, t try) bool { return now.Sub(t.at) > forgetAfter })
	var fault *string
	for _, t := range w.tries {
		if t.err != "" && (fault == nil || t.err < *fault) {
			fault = &t.err
		}
	}
	w.fault.Store(fault)
}
