package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"slicewire/deploy/inject"
)

// LabelInject on a pod asks for the sidecar when it is "true". AnnotationPublish
// says what the pod's containers serve, as `slicewire inject --publish` does,
// with commas between.
const (
	LabelInject       = "slicewire.io/inject"
	AnnotationPublish = "slicewire.io/publish"
)

// A pod is what is read of one.
type pod struct {
	Metadata struct {
		Labels      map[string]string `json:"labels"`
		Annotations map[string]any    `json:"annotations"`
	} `json:"metadata"`
	Spec struct {
		InitContainers []any `json:"initContainers"`
		Volumes        []any `json:"volumes"`
	} `json:"spec"`
}

// An operation is one of a JSON patch.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// Mutate answers a request: a pod that asks for it gets the sidecar, others are
// let through as they are. One that cannot get it is refused, with the reason:
// without its sidecar it would be on no slice.
func Mutate(r *admission.AdmissionRequest, s inject.Sidecar) *admission.AdmissionResponse {
	out := &admission.AdmissionResponse{UID: r.UID, Allowed: true}
	if r.Operation != admission.Create || r.Kind.Group != "" || r.Kind.Kind != "Pod" || r.SubResource != "" {
		return out
	}
	patch, err := patchOf(r.Object.Raw, s)
	if err != nil {
		out.Allowed = false
		out.Result = &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "slicewire's sidecar: " + err.Error()}
		return out
	}
	if patch != nil {
		kind := admission.PatchTypeJSONPatch
		out.Patch, out.PatchType = patch, &kind
	}
	return out
}

// patchOf works out what makes a pod one with a sidecar; nil: nothing.
func patchOf(raw []byte, s inject.Sidecar) ([]byte, error) {
	var was pod
	if err := json.Unmarshal(raw, &was); err != nil {
		return nil, fmt.Errorf("the pod: %w", err)
	}
	if was.Metadata.Labels[LabelInject] != "true" {
		return nil, nil
	}
	if text, ok := was.Metadata.Annotations[AnnotationPublish].(string); ok {
		s.Publish = nil
		for one := range strings.SplitSeq(text, ",") {
			p, err := inject.ParsePublished(strings.TrimSpace(one))
			if err != nil {
				return nil, fmt.Errorf("annotation %s: %w", AnnotationPublish, err)
			}
			s.Publish = append(s.Publish, p)
		}
	}
	raw, err := withKind(raw)
	if err != nil {
		return nil, err
	}
	made, err := inject.Inject(raw, s)
	if err != nil {
		return nil, err
	}
	if len(made.Changed) == 0 {
		return nil, nil
	}
	data, err := yaml.YAMLToJSON(made.Out)
	if err != nil {
		return nil, err
	}
	var now pod
	if err := json.Unmarshal(data, &now); err != nil {
		return nil, err
	}
	// To add what is there is to replace it.
	return json.Marshal([]operation{
		{"add", "/spec/initContainers", now.Spec.InitContainers},
		{"add", "/spec/volumes", now.Spec.Volumes},
		{"add", "/metadata/annotations", now.Metadata.Annotations},
	})
}

// withKind is the pod as one document of a manifest: API servers leave out what
// kind it is.
func withKind(raw []byte) ([]byte, error) {
	object := make(map[string]json.RawMessage)
	if err := json.Unmarshal(raw, &object); err != nil {
		return nil, err
	}
	object["kind"], object["apiVersion"] = json.RawMessage(`"Pod"`), json.RawMessage(`"v1"`)
	out, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(out, []byte("\n---")) {
		return nil, errors.New("a separator of documents in the pod")
	}
	return out, nil
}
