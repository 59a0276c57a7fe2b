package kube

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// An Applier writes objects by server-side apply, and only those that differ
// from what is there.
type Applier struct {
	client *Client
	writes atomic.Uint64
}

// NewApplier makes one for a client.
func NewApplier(c *Client) *Applier { return &Applier{client: c} }

// Writes returns how many requests that write were made.
func (a *Applier) Writes() uint64 { return a.writes.Load() }

// ErrNotOurs says that an object of that name exists and was not made by
// slicewire.
var ErrNotOurs = errors.New("exists and was not made by slicewire (label " + LabelManagedBy + "): rename or remove it")

// Apply has want there, whole as far as slicewire owns it: fields that it wrote
// before and want lacks go. live is what a Watch has of it, nil if nothing.
// wrote tells whether a request was made. An object of others is refused with
// ErrNotOurs.
func (a *Applier) Apply(ctx context.Context, r schema.GroupVersionResource, want, live *unstructured.Unstructured) (wrote bool, err error) {
	if live != nil && !Ours(live) {
		return false, fmt.Errorf("%s %s/%s: %w", want.GetKind(), want.GetNamespace(), want.GetName(), ErrNotOurs)
	}
	return a.apply(ctx, r, want, live, "")
}

// ApplyShared applies some fields of an object that may be another's.
func (a *Applier) ApplyShared(ctx context.Context, r schema.GroupVersionResource, want, live *unstructured.Unstructured) (wrote bool, err error) {
	return a.apply(ctx, r, want, live, "")
}

// ApplyStatus applies the status of an object, whoever made it.
func (a *Applier) ApplyStatus(ctx context.Context, r schema.GroupVersionResource, want, live *unstructured.Unstructured) (wrote bool, err error) {
	return a.apply(ctx, r, want, live, "status")
}

func (a *Applier) apply(ctx context.Context, r schema.GroupVersionResource, want, live *unstructured.Unstructured, subresource string) (bool, error) {
	if !Differs(want, live, subresource) {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a.writes.Add(1)
	o := metav1.ApplyOptions{FieldManager: FieldManager, Force: true}
	objects := a.client.Dynamic.Resource(r).Namespace(want.GetNamespace())
	var err error
	if subresource == "" {
		_, err = objects.Apply(ctx, want.GetName(), want, o)
	} else {
		_, err = objects.ApplyStatus(ctx, want.GetName(), want, o)
	}
	if err != nil {
		return true, fmt.Errorf("apply %s %s/%s: %w", want.GetKind(), want.GetNamespace(), want.GetName(), err)
	}
	return true, nil
}

// Delete removes an object that slicewire made, if it is still the one that was
// seen. One that is gone already is no error.
func (a *Applier) Delete(ctx context.Context, r schema.GroupVersionResource, live *unstructured.Unstructured) error {
	if !Ours(live) {
		return fmt.Errorf("delete %s %s/%s: %w", live.GetKind(), live.GetNamespace(), live.GetName(), ErrNotOurs)
	}
	if live.GetDeletionTimestamp() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a.writes.Add(1)
	uid := live.GetUID()
	err := a.client.Dynamic.Resource(r).Namespace(live.GetNamespace()).Delete(ctx, live.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // a conflict: it is another one by now
		return fmt.Errorf("delete %s %s/%s: %w", live.GetKind(), live.GetNamespace(), live.GetName(), err)
	}
	return nil
}
