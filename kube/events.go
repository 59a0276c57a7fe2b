package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var eventsResource = schema.GroupVersionResource{Version: "v1", Resource: "events"}

// An Event is one thing that happened to an object, under one of the names of
// KubeSlice's (see EventType and EventReason).
type Event struct {
	Name    string // "SliceCreated"
	Message string
	On      *unstructured.Unstructured

	// What KubeSlice's monitoring selects events by; empty: not told.
	Project, Cluster, Slice string
}

const (
	maxEventQueue   = 256       // events that wait to be written; more are dropped and counted
	maxEventsKnown  = 4096      // of which it is known that they were written
	maxEventMessage = 1000      // bytes; the server takes 1,024
	eventQuiet      = time.Hour // after which the same event is written again
)

// A Recorder writes events. It never makes its callers wait.
type Recorder struct {
	client     *Client
	log        *slog.Logger
	controller string
	instance   string
	queue      chan Event
	dropped    atomic.Uint64
	writes     atomic.Uint64
}

// NewRecorder makes a recorder whose events say that they come from a
// controller, as KubeSlice names its own, on an instance.
func NewRecorder(c *Client, controller, instance string, log *slog.Logger) *Recorder {
	return &Recorder{client: c, log: log, controller: controller, instance: instance, queue: make(chan Event, maxEventQueue)}
}

// Record has an event written, once an hour at most while nothing about it
// changes. When too many wait it is dropped and counted.
func (r *Recorder) Record(e Event) {
	select {
	case r.queue <- e:
	default:
		r.dropped.Add(1)
	}
}

// Dropped returns how many events were never written: too many waited, or the
// server refused them.
func (r *Recorder) Dropped() uint64 { return r.dropped.Load() }

// Writes returns how many requests that write were made.
func (r *Recorder) Writes() uint64 { return r.writes.Load() }

// told is an event that was written.
type told struct {
	at    time.Time
	count int64
}

// Run writes events until ctx ends.
func (r *Recorder) Run(ctx context.Context) error {
	known := map[string]told{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.queue:
			now := time.Now()
			name := eventName(&e)
			last, again := known[name]
			if again && now.Sub(last.at) < eventQuiet {
				continue
			}
			if len(known) >= maxEventsKnown {
				clear(known)
			}
			if err := r.write(ctx, name, &e, last, now); err != nil {
				r.dropped.Add(1)
				r.log.Warn("event not written", "event", e.Name, "err", err)
				continue
			}
			known[name] = told{now, last.count + 1}
		}
	}
}

// eventName names equal events equally, on every node and after a restart.
func eventName(e *Event) string {
	h := sha256.New()
	for _, s := range []string{string(e.On.GetUID()), e.On.GetKind(), e.On.GetNamespace(), e.On.GetName(), e.Name, e.Message, e.Cluster} {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	name := e.On.GetName()
	return name[:min(len(name), 200)] + "." + hex.EncodeToString(h.Sum(nil)[:8])
}

func (r *Recorder) write(ctx context.Context, name string, e *Event, last told, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	r.writes.Add(1)
	namespace := cmp.Or(e.On.GetNamespace(), metav1.NamespaceDefault)
	events := r.client.Dynamic.Resource(eventsResource).Namespace(namespace)
	if last.count == 0 {
		_, err := events.Create(ctx, r.object(name, namespace, e, now), metav1.CreateOptions{FieldManager: FieldManager})
		if !apierrors.IsAlreadyExists(err) {
			return err
		}
		last.count = 1 // by a former run, or by another node
	}
	patch, err := json.Marshal(map[string]any{"count": last.count + 1, "lastTimestamp": stamp(now)})
	if err != nil {
		return err
	}
	_, err = events.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: FieldManager})
	if apierrors.IsNotFound(err) { // it has aged out
		_, err = events.Create(ctx, r.object(name, namespace, e, now), metav1.CreateOptions{FieldManager: FieldManager})
	}
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (r *Recorder) object(name, namespace string, e *Event, now time.Time) *unstructured.Unstructured {
	labels := map[string]any{LabelEventController: label(r.controller), LabelEventTitle: label(e.Name), LabelEventNamespace: label(e.On.GetNamespace())}
	for key, v := range map[string]string{LabelEventCluster: e.Cluster, LabelEventSlice: e.Slice, LabelEventProject: e.Project} {
		if v != "" {
			labels[key] = label(v)
		}
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Event",
		"metadata": map[string]any{"name": name, "namespace": namespace, "labels": labels},
		"involvedObject": map[string]any{
			"apiVersion": e.On.GetAPIVersion(), "kind": e.On.GetKind(), "namespace": e.On.GetNamespace(), "name": e.On.GetName(),
			"uid": string(e.On.GetUID()), "resourceVersion": e.On.GetResourceVersion(),
		},
		"reason": EventReason(e.Name), "message": cut(e.Message, maxEventMessage), "type": EventType(e.Name), "action": e.Name,
		"count": int64(1), "firstTimestamp": stamp(now), "lastTimestamp": stamp(now),
		"source":             map[string]any{"component": r.controller},
		"reportingComponent": r.controller, "reportingInstance": r.instance,
	}}
}

// label makes a text fit for the value of a label.
func label(s string) string {
	s = strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' {
			return c
		}
		return '-'
	}, s)
	return strings.Trim(cut(s, 63), "-_.")
}

// cut shortens a text to n bytes, at a border of its characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && s[n]&0xc0 == 0x80 {
		n--
	}
	return s[:n]
}
