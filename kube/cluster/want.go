package cluster

import (
	"strings"
	"unicode"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/kube"
	"slicewire/overlay"
)

// A want is an object as slicewire wants it. It is made when it is looked at: all
// of them together are large.
type want struct {
	Ref
	whole  func() *unstructured.Unstructured // nil: leave it alone
	status func() *unstructured.Unstructured // nil: leave it alone
	shared bool                              // another's object, of which some fields are ours
	event  string                            // of KubeSlice's, when it was written; empty: none
	failed string                            // and when it could not be
	slice  string
}

// kindInfo is how the API names a kind.
type kindInfo struct {
	resource  schema.GroupVersionResource
	kind      string
	older     string // a version that does where the server lacks the other; empty: none
	namespace string // the only one whose objects are looked at; empty: all
	optional  bool   // packets do not go by it: who may not read it goes on without
}

// kinds are the kinds, by Kind.
func kinds() [numKinds]kindInfo {
	gvr := func(group, version, resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: group, Version: version, Resource: resource}
	}
	return [numKinds]kindInfo{
		KindNamespace:     {resource: gvr("", "v1", "namespaces"), kind: "Namespace"},
		KindPod:           {resource: gvr("", "v1", "pods"), kind: "Pod"},
		KindService:       {resource: gvr("", "v1", "services"), kind: "Service"},
		KindEndpointSlice: {resource: gvr("discovery.k8s.io", "v1", "endpointslices"), kind: "EndpointSlice"},
		KindNetworkPolicy: {resource: gvr("networking.k8s.io", "v1", "networkpolicies"), kind: "NetworkPolicy"},
		KindExport:        {resource: gvr(kube.GroupNetworking, "v1beta1", "serviceexports"), kind: "ServiceExport"},
		KindImport:        {resource: gvr(kube.GroupNetworking, "v1beta1", "serviceimports"), kind: "ServiceImport"},
		KindMCSExport:     {resource: gvr(kube.GroupMCS, "v1beta1", "serviceexports"), kind: "ServiceExport", older: "v1alpha1"},
		KindMCSImport:     {resource: gvr(kube.GroupMCS, "v1beta1", "serviceimports"), kind: "ServiceImport", older: "v1alpha1"},
		KindSlice:         {resource: gvr(kube.GroupNetworking, "v1beta1", "slices"), kind: "Slice", namespace: overlay.SystemNamespace, optional: true},
		KindSliceGateway:  {resource: gvr(kube.GroupNetworking, "v1beta1", "slicegateways"), kind: "SliceGateway", namespace: overlay.SystemNamespace, optional: true},
	}
}

// object begins an object of a kind.
func (k *kindInfo) object(r Ref) *unstructured.Unstructured {
	u := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": r.Name}}}
	u.SetGroupVersionKind(k.resource.GroupVersion().WithKind(k.kind))
	if r.Namespace != "" {
		u.SetNamespace(r.Namespace)
	}
	return u
}

// made begins an object that is slicewire's own.
func (k *kindInfo) made(r Ref, slice string, labels map[string]string) *unstructured.Unstructured {
	u := k.object(r)
	all := map[string]string{kube.LabelManagedBy: kube.ManagedBy}
	for key, v := range labels {
		all[key] = v
	}
	u.SetLabels(all)
	u.SetAnnotations(map[string]string{kube.AnnotationSlice: slice})
	return u
}

// conditions makes a list of conditions; those that say what the old status says
// keep the time since which they do.
func conditions(old map[string]any, generation int64, now string, list ...condition) []any {
	before := objectsIn(old, "conditions")
	var out []any
	for _, c := range list {
		since := now
		for _, b := range before {
			if text(b, "type") == c.kind && text(b, "status") == c.status && text(b, "lastTransitionTime") != "" {
				since = text(b, "lastTransitionTime")
			}
		}
		out = append(out, map[string]any{
			"type": c.kind, "status": c.status, "reason": c.reason, "message": cut(c.message),
			"lastTransitionTime": since, "observedGeneration": generation,
		})
	}
	return out
}

// A condition is one of a status.
type condition struct{ kind, status, reason, message string }

// maxMessage is what the API takes of a condition's message, less a bit.
const maxMessage = 30000

// cut makes a text fit for a condition's message: valid, on one line, bounded.
func cut(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + " ..."
	}
	return s
}
