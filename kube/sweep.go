package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Swept is a resource that slicewire has written to, and what of it is to go.
type Swept struct {
	schema.GroupVersionResource
	Kind      string
	Namespace string // empty: all
	Objects   bool   // those that slicewire made
	Fields    bool   // what it wrote into those of others
	Status    bool   // what it wrote into statuses
}

// sweepPage is how many objects are read at a time.
const sweepPage = 500

// Sweep takes away all that slicewire has made and written, which is what its
// label and its field manager say, and nothing else. Resources that the server
// does not have, have nothing. It goes on after a fault and returns all of them;
// to do it again does the rest. changed is how many objects were removed or
// written.
func Sweep(ctx context.Context, client *Client, list []Swept) (changed int, err error) {
	applier := NewApplier(client)
	for _, s := range list {
		if e := s.sweep(ctx, client, applier); e != nil {
			err = errors.Join(err, e)
		}
	}
	return int(applier.Writes()), err
}

func (s *Swept) sweep(ctx context.Context, client *Client, applier *Applier) (err error) {
	o := metav1.ListOptions{Limit: sweepPage}
	if !s.Fields && !s.Status {
		o.LabelSelector = LabelManagedBy + "=" + ManagedBy
	}
	for {
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		page, e := client.Dynamic.Resource(s.GroupVersionResource).Namespace(s.Namespace).List(ask, o)
		cancel()
		if apierrors.IsNotFound(e) {
			return err
		}
		if e != nil {
			return errors.Join(err, fmt.Errorf("list %s: %w", s.Resource, e))
		}
		for i := range page.Items {
			err = errors.Join(err, s.clean(ctx, applier, &page.Items[i]))
		}
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return err
		}
	}
}

// clean takes away what slicewire has to do with one object.
func (s *Swept) clean(ctx context.Context, applier *Applier, live *unstructured.Unstructured) error {
	if Ours(live) {
		if !s.Objects {
			return nil
		}
		return applier.Delete(ctx, s.GroupVersionResource, live)
	}
	// To want nothing is to give up what was wanted before.
	nothing := func() *unstructured.Unstructured {
		u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": live.GetName()}}}
		u.SetGroupVersionKind(s.GroupVersion().WithKind(s.Kind))
		if n := live.GetNamespace(); n != "" {
			u.SetNamespace(n)
		}
		return u
	}
	var err error
	if s.Fields && manages(live, "") {
		_, err = applier.ApplyShared(ctx, s.GroupVersionResource, nothing(), nil)
	}
	if s.Status && manages(live, "status") {
		_, e := applier.apply(ctx, s.GroupVersionResource, nothing(), nil, "status")
		err = errors.Join(err, e)
	}
	if apierrors.IsNotFound(err) { // it has gone meanwhile
		return nil
	}
	return err
}

// manages reports whether slicewire owns fields of an object or of its status.
func manages(live *unstructured.Unstructured, subresource string) bool {
	for _, f := range live.GetManagedFields() {
		if f.Manager == FieldManager && f.Operation == metav1.ManagedFieldsOperationApply && f.Subresource == subresource {
			return true
		}
	}
	return false
}
