package hub

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/kube"
)

var leases = schema.GroupVersionResource{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}

// A lease keeps two nodes from writing the same objects at once. It is taken when
// there is something to write and not kept up after: a mesh that has settled
// writes nothing, leases neither. Applying is idempotent, so that two writers by
// a wrong clock cost requests and nothing else.
const (
	leaseFor   = 15 * time.Second
	leaseFresh = 5 * time.Second // an own lease that has run for less is not taken anew
)

// takeLease takes a lease or returns how long to wait for it.
func (h *Hub) takeLease(ctx context.Context, name string) (wait time.Duration, err error) {
	me := h.cfg.Site + "/" + h.cfg.Node
	all := h.cfg.Client.Dynamic.Resource(leases).Namespace(h.cfg.Namespace)
	now := time.Now().UTC()
	spec := map[string]any{"holderIdentity": me, "leaseDurationSeconds": int64(leaseFor / time.Second), "renewTime": now.Format(metav1.RFC3339Micro)}
	o, err := all.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = all.Create(ctx, &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
			"metadata": map[string]any{"name": name, "namespace": h.cfg.Namespace, "labels": map[string]any{kube.LabelManagedBy: kube.ManagedBy}},
			"spec":     spec,
		}}, metav1.CreateOptions{FieldManager: kube.FieldManager})
		if apierrors.IsAlreadyExists(err) {
			return time.Second, nil
		}
		return 0, err
	}
	if err != nil {
		return 0, err
	}
	holder, _, _ := unstructured.NestedString(o.Object, "spec", "holderIdentity")
	text, _, _ := unstructured.NestedString(o.Object, "spec", "renewTime")
	renewed, err := time.Parse(time.RFC3339Nano, text)
	age := now.Sub(renewed)
	switch {
	case err != nil: // never taken
	case holder == me && age >= 0 && age < leaseFresh:
		return 0, nil
	case holder != me && age < leaseFor && age > -leaseFor:
		return min(leaseFor-age, leaseFor), nil
	}
	o = o.DeepCopy()
	if err := unstructured.SetNestedMap(o.Object, spec, "spec"); err != nil {
		return 0, err
	}
	_, err = all.Update(ctx, o, metav1.UpdateOptions{FieldManager: kube.FieldManager})
	if apierrors.IsConflict(err) {
		return time.Second, nil
	}
	return 0, err
}
