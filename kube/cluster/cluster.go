package cluster

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
)

const (
	// settle is how long objects may go on changing before they are looked at,
	// and pace how often they are looked at while they do: a rollout changes
	// hundreds in a second.
	settle = 20 * time.Millisecond
	pace   = 200 * time.Millisecond
	// linger is how long what stands for a service stays after nobody exports it:
	// a node that has just started does not know yet what there is, and a Service
	// that is made anew has another address.
	linger = 30 * time.Second
	// strangerWait is how long an address that no pod is known to have may
	// become known: a program may be faster than the news of its pod.
	strangerWait = time.Second
	// maxStrangers bounds how many wait for that at a time.
	maxStrangers = 256
)

// Config is what a Cluster needs.
type Config struct {
	Client    *kube.Client
	Namespace string     // slicewire's own
	Self      netip.Addr // of this pod, as the cluster's pods reach it; its other family is looked up
	Site      string
	Log       *slog.Logger  // state changes; nil discards
	Linger    time.Duration // how long what stands for a service stays after it has gone; 0: 30 s

	State []byte             // what Save was given last, perhaps by a run before; nil: nothing
	Save  func([]byte) error // keeps what packets go by for a start without the API server; nil: nobody does
}

// A Cluster is the part of a daemon in its cluster.
type Cluster struct {
	cfg      Config
	setting  setting
	watched  [numKinds]kindInfo // as they are looked up; setting has the versions that the server has
	watch    *kube.Watch
	recorder *kube.Recorder
	writer   *writer

	held      atomic.Int64 // objects
	looks     atomic.Int64
	state     atomic.Pointer[State]
	stated    chan struct{} // level-triggered: another state
	result    atomic.Pointer[Result]
	changed   chan struct{} // level-triggered: another result
	strangers atomic.Int64

	mu        sync.Mutex
	admission *Admission    // guarded by mu
	admitted  chan struct{} // guarded by mu; closed when there is another admission

	before *Objects          // what was kept, until the server was heard; Run's
	latest *Objects          // that the server has and Save does not; nil: none; Run's
	saved  [sha256.Size]byte // of what Save was given last; Run's
	given  map[string]uint16 // ports of doors; Run's
	told   map[string]bool   // notices that were given; Run's
	mute   string            // as the latest plan's; Run's
	lost   atomic.Int64
	only6  atomic.Int64
	shut   atomic.Int64
	ending atomic.Bool // see Leave
}

// New makes the daemon's part in a cluster. It asks the server nothing before Run.
// A state that cannot be read is logged and not used.
func New(cfg Config) (*Cluster, error) {
	switch {
	case cfg.Client == nil:
		return nil, errors.New("cluster: no client")
	case cfg.Namespace == "":
		return nil, errors.New("cluster: slicewire's own namespace is not known: set kubernetes.cluster.namespace in the node file or POD_NAMESPACE in the environment")
	case !cfg.Self.IsValid():
		return nil, errors.New("cluster: this pod's address is not known: set kubernetes.cluster.podIP in the node file or POD_IP in the environment")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Linger = cmp.Or(cfg.Linger, linger)
	c := &Cluster{
		cfg: cfg, stated: make(chan struct{}, 1), changed: make(chan struct{}, 1), admitted: make(chan struct{}),
		given: make(map[string]uint16), told: make(map[string]bool),
	}
	c.setting = setting{namespace: cfg.Namespace, self: cfg.Self.Unmap(), kinds: kinds()}
	c.watched = c.setting.kinds
	c.recorder = kube.NewRecorder(cfg.Client, "workerOperator", cfg.Self.String(), cfg.Log)
	var resources []kube.Resource
	for kind := range numKinds {
		resources = append(resources, kube.Resource{
			GroupVersionResource: c.watched[kind].resource, Older: c.watched[kind].older, Namespace: c.watched[kind].namespace, Optional: c.watched[kind].optional,
			Pack: func(u *unstructured.Unstructured) kube.Packed { return NewObject(kind, u) },
		})
	}
	c.watch = kube.NewWatch(cfg.Client, cfg.Log, resources...)
	c.writer = newWriter(c)
	c.result.Store(&Result{})
	if err := c.restore(cfg.State); err != nil {
		cfg.Log.Warn("what the cluster last said is lost", "err", err)
	}
	return c, nil
}

// Set states what the daemon knows. The state is not to be changed any more.
func (c *Cluster) Set(s *State) {
	c.state.Store(s)
	signal(c.stated)
}

// Result returns what follows for the daemon.
func (c *Cluster) Result() *Result { return c.result.Load() }

// Changed is told, level-triggered, that there is another result.
func (c *Cluster) Changed() <-chan struct{} { return c.changed }

// PodAddr returns a pod's own address in the cluster, as far as it is known; the
// zero Addr when there is none.
func (c *Cluster) PodAddr(namespace, name string) netip.Addr {
	if x := c.live(Ref{KindPod, namespace, name}); x != nil && x.Pod != nil && len(x.Pod.IPs) > 0 && !x.Pod.Over {
		return x.Pod.IPs[0]
	}
	return netip.Addr{}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Admit reports whether a client in the cluster may use services of a slice: it
// is a pod of a namespace that the slice binds. An address that no pod is known
// to have is waited for a moment.
func (c *Cluster) Admit(ctx context.Context, slice string, client netip.Addr) bool {
	ctx, cancel := context.WithTimeout(ctx, strangerWait)
	defer cancel()
	for waits := false; ; {
		c.mu.Lock()
		a, next := c.admission, c.admitted
		c.mu.Unlock()
		if a != nil && a.Known(client) {
			return a.Admits(slice, client)
		}
		if !waits {
			if waits = c.strangers.Add(1) <= maxStrangers; !waits {
				c.strangers.Add(-1)
				return false
			}
			defer c.strangers.Add(-1)
		}
		select {
		case <-next:
		case <-ctx.Done():
			return false
		}
	}
}

// leaveLook is how often Leave looks whether the cluster has heard.
const leaveLook = 50 * time.Millisecond

// Leave has the cluster lead no new connections to this pod, which is about to
// end: its EndpointSlices say so. It returns when the server has them, or with an
// error when ctx ends; the cluster's proxies follow a moment later. What they
// still lead here is served as before.
func (c *Cluster) Leave(ctx context.Context) error {
	c.ending.Store(true)
	signal(c.stated)
	tick := time.NewTicker(leaveLook)
	defer tick.Stop()
	for c.called() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("cluster: EndpointSlices still lead here: %w", ctx.Err())
		}
	}
	return nil
}

// called reports whether an EndpointSlice leads new connections to this pod.
func (c *Cluster) called() bool {
	self := c.Result().Self
	for _, x := range c.watch.Items(c.watched[KindEndpointSlice].resource) {
		o, ok := x.(*Object)
		if ok && o.ours && slices.ContainsFunc(o.Slice.Endpoints, func(e SliceEndpoint) bool { return e.Ready && slices.Contains(self, e.Addr) }) {
			return true
		}
	}
	return false
}

// Held returns of how many objects something is kept, and how often they have been
// looked at because something had changed.
func (c *Cluster) Held() (objects, looks int) { return int(c.held.Load()), int(c.looks.Load()) }

// Status says how the cluster part is doing.
type Status struct {
	Synced     bool
	Heard      time.Time // when the API server last said that it is well
	Fault      string    // why it is not, or an object that cannot be written; empty: nothing is wrong
	Exports    int
	Doors      int
	Names      int
	NoAddress  int    // endpoints that are more than a node may publish
	IPv6Only   int    // endpoints that the slices have no IPv4 address for
	NoPort     int    // doors that have no port
	Writes     uint64 // requests to the API server that write
	LostEvents uint64
}

// Status tells of the cluster part.
func (c *Cluster) Status() Status {
	w, r := c.watch.State(), c.result.Load()
	s := Status{
		Synced: w.Synced, Heard: w.Heard, Exports: len(r.Exports), Doors: len(r.Doors),
		NoAddress: int(c.lost.Load()), IPv6Only: int(c.only6.Load()), NoPort: int(c.shut.Load()),
		Writes: c.writer.applier.Writes() + c.recorder.Writes(), LostEvents: c.recorder.Dropped(),
	}
	for i := range r.Imports {
		s.Names += r.Imports[i].Names()
	}
	if w.Err != nil {
		s.Fault = w.Err.Error()
	} else if f := c.writer.fault.Load(); f != nil {
		s.Fault = *f
	}
	return s
}

// Run watches and writes until ctx ends. It may be called once.
func (c *Cluster) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all.Go(func() { _ = c.watch.Run(ctx) })    // they end with ctx and
	all.Go(func() { _ = c.recorder.Run(ctx) }) // have no other way to
	all.Go(func() { c.writer.run(ctx) })
	keep := time.NewTicker(keepEvery)
	defer keep.Stop()
	defer c.keep()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-keep.C:
			c.keep()
			continue
		case <-c.watch.Changed():
			rest(ctx, settle)
		case <-c.stated:
		}
		began := time.Now()
		c.look()
		rest(ctx, max(pace, 4*time.Since(began)))
	}
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// look takes over what objects and state say now.
func (c *Cluster) look() {
	state, synced := c.state.Load(), c.watch.State().Synced
	objects := c.before
	switch {
	case state == nil || !synced && objects == nil:
		return
	case synced:
		objects, c.before = c.objects(), nil
	}
	c.held.Store(int64(len(objects.all)))
	c.looks.Add(1)
	c.mu.Lock()
	c.admission = NewAdmission(objects, state)
	close(c.admitted)
	c.admitted = make(chan struct{})
	c.mu.Unlock()
	absent := c.watch.State().Absent
	for kind := range numKinds {
		c.setting.has[kind] = true
		for _, r := range absent {
			if r == c.watched[kind].resource {
				c.setting.has[kind] = false
			}
		}
		c.setting.kinds[kind].resource = c.watch.Serves(c.watched[kind].resource)
	}
	setting := c.setting
	setting.leaving = c.ending.Load()
	p := work(objects, state, &setting, c.given)
	c.given = p.listen
	if old := c.result.Load(); !old.Equal(&p.result) {
		c.result.Store(new(p.result)) // not a part of the plan, which is not to live as long
		signal(c.changed)
	}
	c.count(p)
	if !synced {
		return // it is what was so, and no reason to write
	}
	if c.cfg.Save != nil {
		c.latest = objects
	}
	c.tell(p, state)
	c.sayMute(p)
	c.writer.set(p, &setting)
}

func (c *Cluster) count(p *plan) {
	lost := 0
	for slice, n := range p.lost {
		if c.lost.Load() == 0 {
			c.cfg.Log.Warn("not all endpoints are published: a node may publish so many", "slice", slice, "endpoints", n)
		}
		lost += n
	}
	c.lost.Store(int64(lost))
	if p.only6 > 0 && c.only6.Load() == 0 {
		c.cfg.Log.Warn("endpoints have IPv6 addresses only: the node's IPv4 block is full", "endpoints", p.only6)
	}
	c.only6.Store(int64(p.only6))
	if p.shut > 0 && c.shut.Load() == 0 {
		c.cfg.Log.Warn("not every port of imported services has a port of this pod", "ports", p.shut)
	}
	c.shut.Store(int64(p.shut))
}

// tell gives notice of what was not so before.
func (c *Cluster) tell(p *plan, state *State) {
	now := make(map[string]bool, len(p.notices))
	for _, n := range p.notices {
		key := fmt.Sprint(n.event, n.on.GetUID(), n.message)
		if now[key] = true; !c.told[key] {
			c.recorder.Record(kube.Event{Name: n.event, Message: n.message, On: n.on, Cluster: state.Site, Slice: n.slice})
		}
	}
	c.told = now
}

// sayMute says once that KubeSlice's users do not see what slices there are.
func (c *Cluster) sayMute(p *plan) {
	mute := p.mute
	if !c.setting.has[KindSlice] {
		mute = "" // nor could they
	}
	if mute != "" && mute != c.mute {
		c.cfg.Log.Info("no Slice and SliceGateway objects are written", "err", mute)
	}
	c.mute = mute
}

// objects reads what the watch holds.
func (c *Cluster) objects() *Objects {
	var list []*Object
	for kind := range numKinds {
		for _, x := range c.watch.Items(c.watched[kind].resource) {
			if o, ok := x.(*Object); ok {
				list = append(list, o)
			}
		}
	}
	return NewObjects(list)
}

// live returns what there is of an object, nil when nothing.
func (c *Cluster) live(r Ref) *Object {
	o, _ := c.watch.Item(c.watched[r.Kind].resource, r.Namespace, r.Name).(*Object)
	return o
}
