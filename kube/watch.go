package kube

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// A Resource is a kind of objects to watch.
type Resource struct {
	schema.GroupVersionResource
	Namespace     string // "": all
	LabelSelector string
	FieldSelector string

	// Older is another version of it, for a server that lacks this one; "": none.
	Older string

	// Optional is a resource that is done without where it may not be read: it counts
	// as one that the server does not have.
	Optional bool

	// Pack makes of an object what is kept of it, for Items; nil: it is kept whole,
	// for Objects. The object is its own to change.
	Pack func(*unstructured.Unstructured) Packed
}

// Packed is what is kept of an object: a k8s.io/apimachinery metav1.Object gives
// at least its namespace, name and resourceVersion.
type Packed = metav1.ObjectMetaAccessor

// A Watch holds the objects of some resources as the server last told them. A
// resource that the server does not have is one without objects until it has.
type Watch struct {
	client  *Client
	log     *slog.Logger
	changed chan struct{}
	kinds   []*watched

	mu    sync.Mutex
	asked error     // what the last question after the server's health gave
	heard time.Time // when it last gave nothing wrong
}

// watched is one resource of a Watch.
type watched struct {
	Resource
	informer cache.SharedIndexInformer

	mu      sync.Mutex
	err     error           // of the last list or watch that was begun; nil: it went well
	absent  bool            // the server does not have the resource, or it is Optional and not for us
	older   bool            // it has only the older version
	ends    time.Time       // when the watch that was begun last ends by itself; zero: none was since all was listed
	deleted map[string]bool // keys of objects that the server said were deleted
}

// maxDeleted bounds what is remembered of deletions; then it begins anew.
const maxDeleted = 10_000

// State says how a Watch stands with its server.
type State struct {
	Synced bool      // every resource was listed once, or is not there
	Heard  time.Time // when the server last said that it is well; zero: never
	Err    error     // why it is not, or cannot be read; nil: nothing is wrong
	Absent []schema.GroupVersionResource
}

// askEvery is how often the server's health is asked for: it bounds after what
// time a server that has gone silent is known to be.
const askEvery = 5 * time.Second

// NewWatch makes a watch of resources; nothing is asked before Run.
func NewWatch(c *Client, log *slog.Logger, resources ...Resource) *Watch {
	w := &Watch{client: c, log: log, changed: make(chan struct{}, 1)}
	for _, r := range resources {
		w.kinds = append(w.kinds, w.newWatched(r))
	}
	return w
}

func (w *Watch) newWatched(r Resource) *watched {
	k := &watched{Resource: r}
	narrow := func(o *metav1.ListOptions) {
		o.LabelSelector, o.FieldSelector = r.LabelSelector, r.FieldSelector
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			narrow(&o)
			return w.list(ctx, k, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			narrow(&o)
			if o.SendInitialEvents != nil && *o.SendInitialEvents {
				o.ResourceVersion = "" // all that there is now
			} else if k.cutOff(time.Now()) {
				return nil, apierrors.NewResourceExpired("the watch before ended before its time")
			}
			i, err := w.client.Dynamic.Resource(k.serves()).Namespace(k.Namespace).Watch(ctx, o)
			w.note(k, err)
			k.begun(time.Now(), o.TimeoutSeconds, err)
			return i, opaque(err)
		},
	}
	k.informer = cache.NewSharedIndexInformerWithOptions(
		cache.ToListWatcherWithWatchListSemantics(lw, w.client.Dynamic), &unstructured.Unstructured{}, cache.SharedIndexInformerOptions{ObjectDescription: r.String()})
	// Both fail for an informer that runs already; this one does not.
	_ = k.informer.SetTransform(func(x any) (any, error) {
		out, err := slim(x)
		if o, ok := out.(*unstructured.Unstructured); ok && err == nil && r.Pack != nil {
			return r.Pack(o), nil
		}
		return out, err
	})
	_ = k.informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) { // it lists anew: nothing is wrong
			w.note(k, err)
		}
	})
	_, _ = k.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { w.signal() }, UpdateFunc: func(any, any) { w.signal() }, DeleteFunc: func(x any) { k.noteDeleted(x); w.signal() },
	})
	return k
}

// serves returns the resource in the version that is watched.
func (k *watched) serves() schema.GroupVersionResource {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.older {
		return k.GroupResource().WithVersion(k.Older)
	}
	return k.GroupVersionResource
}

// Serves returns a watched resource in the version that the server has of it.
func (w *Watch) Serves(r schema.GroupVersionResource) schema.GroupVersionResource {
	for _, k := range w.kinds {
		if k.GroupVersionResource == r {
			return k.serves()
		}
	}
	return r
}

// endSlack is how much before its time a watch may end by itself.
const endSlack = 5 * time.Second

// begun notes that a watch began, or did not.
func (k *watched) begun(now time.Time, seconds *int64, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ends = time.Time{}
	if err == nil && seconds != nil {
		k.ends = now.Add(time.Duration(*seconds) * time.Second)
	}
}

// cutOff reports whether the watch before was cut off. Its server may have begun
// anew since, with another etcd, whose versions may have come to the same
// numbers: to go on from one would miss all that is different. What there is has
// to be listed.
func (k *watched) cutOff(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	cut := !k.ends.IsZero() && now.Before(k.ends.Add(-endSlack))
	k.ends = time.Time{}
	return cut
}

// opaque hides from the library what kind of error it is when it would sleep on it
// without an eye on its context: half a minute, in which nothing could end. Of
// other errors it waits in a way that can be ended.
func opaque(err error) error {
	if err == nil || !utilnet.IsConnectionRefused(err) && !apierrors.IsTooManyRequests(err) && !apierrors.IsInternalError(err) {
		return err
	}
	return errors.New(err.Error())
}

// noteDeleted remembers that the server said of an object that it was deleted. One
// that a new list does not have was only lost.
func (k *watched) noteDeleted(x any) {
	o, ok := x.(*unstructured.Unstructured)
	if !ok {
		return // cache.DeletedFinalStateUnknown
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.deleted == nil || len(k.deleted) >= maxDeleted {
		k.deleted = make(map[string]bool)
	}
	k.deleted[o.GetNamespace()+"/"+o.GetName()] = true
}

// Deleted reports whether the server said of an object that it was deleted.
func (w *Watch) Deleted(r schema.GroupVersionResource, namespace, name string) bool {
	for _, k := range w.kinds {
		if k.GroupVersionResource == r {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.deleted[namespace+"/"+name]
		}
	}
	return false
}

// slim drops of every object what nobody here reads: which fields managers other
// than slicewire own. Their names stay.
func slim(x any) (any, error) {
	o, ok := x.(*unstructured.Unstructured)
	if !ok {
		return x, nil
	}
	managed, found, _ := unstructured.NestedSlice(o.Object, "metadata", "managedFields")
	if !found {
		return x, nil
	}
	for _, m := range managed {
		if e, ok := m.(map[string]any); ok && e["manager"] != FieldManager {
			delete(e, "fieldsV1")
		}
	}
	return o, unstructured.SetNestedSlice(o.Object, managed, "metadata", "managedFields")
}

// note remembers how a list or watch went, and tells readers when it changed.
func (w *Watch) note(k *watched, err error) {
	k.mu.Lock()
	absent := apierrors.IsNotFound(err) || k.Optional && apierrors.IsForbidden(err)
	if absent {
		err = nil
	}
	news := absent != k.absent || (err == nil) != (k.err == nil)
	k.absent, k.err = absent, err
	k.mu.Unlock()
	if news {
		w.signal()
	}
}

func (w *Watch) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Changed is told, level-triggered, that objects or state may be others.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Run watches until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	// What goes wrong is told by State; the library's own words about it are not.
	ctx = klog.NewContext(ctx, logr.Discard())
	var all sync.WaitGroup
	for _, k := range w.kinds {
		all.Go(func() { k.informer.RunWithContext(ctx) })
		all.Go(func() {
			if cache.WaitForCacheSync(ctx.Done(), k.informer.HasSynced) {
				w.signal()
			}
		})
	}
	all.Go(func() { w.ask(ctx) })
	all.Wait()
	return nil
}

// ask asks for the server's health again and again.
func (w *Watch) ask(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		err := w.client.Ask(ctx)
		if ctx.Err() != nil {
			return
		}
		w.mu.Lock()
		news := (err == nil) != (w.asked == nil) || w.heard.IsZero()
		w.asked = err
		if err == nil {
			w.heard = time.Now()
		}
		w.mu.Unlock()
		if news {
			w.signal()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// State returns how the watch stands with its server.
func (w *Watch) State() State {
	w.mu.Lock()
	s := State{Synced: true, Heard: w.heard, Err: w.asked}
	w.mu.Unlock()
	for _, k := range w.kinds {
		k.mu.Lock()
		if s.Err == nil {
			s.Err = k.err
		}
		if k.absent {
			s.Absent = append(s.Absent, k.GroupVersionResource)
		}
		s.Synced = s.Synced && (k.absent || k.informer.HasSynced())
		k.mu.Unlock()
	}
	return s
}

// Objects returns a resource's objects by namespace and name. They are shared.
func (w *Watch) Objects(r schema.GroupVersionResource) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, k := range w.kinds {
		if k.GroupVersionResource != r {
			continue
		}
		for _, x := range k.informer.GetStore().List() {
			if o, ok := x.(*unstructured.Unstructured); ok {
				out = append(out, o)
			}
		}
	}
	slices.SortFunc(out, func(a, b *unstructured.Unstructured) int {
		return strings.Compare(a.GetNamespace()+"\x00"+a.GetName(), b.GetNamespace()+"\x00"+b.GetName())
	})
	return out
}

// Items returns what was packed of a resource's objects, in any order.
func (w *Watch) Items(r schema.GroupVersionResource) (out []any) {
	for _, k := range w.kinds {
		if k.GroupVersionResource == r {
			out = append(out, k.informer.GetStore().List()...)
		}
	}
	return out
}

// Item returns what was packed of an object, nil when there is none.
func (w *Watch) Item(r schema.GroupVersionResource, namespace, name string) any {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	for _, k := range w.kinds {
		if k.GroupVersionResource != r {
			continue
		}
		if x, found, err := k.informer.GetStore().GetByKey(key); found && err == nil {
			return x
		}
	}
	return nil
}

// Get returns an object, nil when there is none. It is shared.
func (w *Watch) Get(r schema.GroupVersionResource, namespace, name string) *unstructured.Unstructured {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	for _, k := range w.kinds {
		if k.GroupVersionResource != r {
			continue
		}
		if x, found, err := k.informer.GetStore().GetByKey(key); found && err == nil {
			if o, ok := x.(*unstructured.Unstructured); ok {
				return o
			}
		}
	}
	return nil
}
