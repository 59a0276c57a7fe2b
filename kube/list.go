package kube

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// listTimeout bounds one list.
const listTimeout = time.Minute

// list lists a resource. While the server does not answer, or does not have the
// resource, it asks again and again: the library would wait for up to a minute
// between two tries, and so long would what is there again not be seen.
func (w *Watch) list(ctx context.Context, k *watched, o metav1.ListOptions) (runtime.Object, error) {
	// All that there is now, whatever was seen before: the server may be another.
	o.ResourceVersion, o.ResourceVersionMatch = "", ""
	for {
		list, err := w.listOnce(ctx, k, o)
		if err == nil || ctx.Err() != nil || !passing(err) {
			return list, err
		}
		o.ResourceVersion, o.ResourceVersionMatch = "", ""    // the server may be another by then
		pause := time.NewTimer(askEvery/2 + rand.N(askEvery)) // not all nodes at once
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// listOnce lists a resource in the version that the server has.
func (w *Watch) listOnce(ctx context.Context, k *watched, o metav1.ListOptions) (list *unstructured.UnstructuredList, err error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	versions := []string{k.Version}
	if k.Older != "" {
		versions = append(versions, k.Older)
	}
	for i, v := range versions {
		list, err = w.client.Dynamic.Resource(k.GroupResource().WithVersion(v)).Namespace(k.Namespace).List(ctx, o)
		if err == nil {
			k.mu.Lock()
			k.older = i > 0
			k.mu.Unlock()
		}
		if !apierrors.IsNotFound(err) {
			break
		}
	}
	w.note(k, err)
	return list, err
}

// passing reports whether an error may go by itself: the server does not answer,
// is not well, or does not have the resource yet.
func passing(err error) bool {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		code := status.Status().Code
		return code == http.StatusNotFound || code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
	}
	return true
}
