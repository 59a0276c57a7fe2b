package hub

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay/manifest"
)

// A document is an object of the hub as it was last seen.
type document struct {
	ID   string          `json:"id"`             // "hub:SliceConfig/kubeslice-demo/red"
	Kind string          `json:"kind"`           //
	Rev  string          `json:"rev"`            // tells two versions of it apart
	Body json.RawMessage `json:"body"`           // without what is no part of what it asks for
	Gone time.Time       `json:"gone,omitzero"`  // when it was first missed; zero: it is there
	Held bool            `json:"held,omitempty"` // it is missed with many others, and counts on

	object   *manifest.Object
	problems []manifest.Problem
}

// idPrefix begins the place of every object of the hub in what is said of it.
const idPrefix = "hub:"

// same reports whether two versions ask for the same.
func (d *document) same(e *document) bool {
	return e != nil && d.Rev == e.Rev && string(d.Body) == string(e.Body)
}

// parse reads the body as it would be read from a file.
func (d *document) parse() {
	set, problems := manifest.Parse(d.ID, d.Body)
	for i := range problems {
		problems[i].Line = 0 // there are no lines that anybody has seen
	}
	d.problems = problems
	if len(set.Objects) == 1 {
		d.object = set.Objects[0]
		d.object.Remote = true
		d.checkName()
	}
}

// checkName refuses a WorkerSliceConfig that has not the name of what it is. Its
// number would count for a site beside the one that is worked out.
func (d *document) checkName() {
	part, ok := d.object.Body.(*manifest.WorkerSliceConfig)
	if !ok {
		return
	}
	labels := part.Metadata.Labels
	slice, cluster := cmp.Or(part.Spec.SliceName, labels[kube.LabelOriginalSlice]), labels[kube.LabelWorkerCluster]
	if want := slice + "-" + cluster; cluster != "" && d.object.Name != want {
		d.problems = append(d.problems, manifest.Problem{Severity: manifest.Error, File: d.ID, Field: "metadata.name",
			Message: fmt.Sprintf("a WorkerSliceConfig is named for its slice and its cluster (label %s): %.130q", kube.LabelWorkerCluster, want)})
	}
}

// documents keeps what was read of objects, so that only those that change are
// read again.
type documents map[string]*document

// of returns the document of an object, the one before if nothing has changed.
func (ds documents) of(o *unstructured.Unstructured) *document {
	id := fmt.Sprintf("%s%s/%s/%s", idPrefix, o.GetKind(), o.GetNamespace(), o.GetName())
	rev := string(o.GetUID()) + "/" + o.GetResourceVersion()
	if d := ds[id]; d != nil && d.Rev == rev && d.Gone.IsZero() {
		return d
	}
	d := &document{ID: id, Kind: o.GetKind(), Rev: rev}
	body, err := json.Marshal(asked(o))
	if err != nil { // it came as JSON
		d.problems = []manifest.Problem{{Severity: manifest.Error, File: id, Message: err.Error()}}
		return d
	}
	if before := ds[id]; before != nil && before.Gone.IsZero() && string(before.Body) == string(body) {
		c := *before // only its version is another: it was read already
		c.Rev = rev
		return &c
	}
	d.Body = body
	d.parse()
	return d
}

// asked returns the object without what managers and the server keep in its
// metadata.
func asked(o *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for k, v := range o.Object {
		out[k] = v
	}
	meta, _ := o.Object["metadata"].(map[string]any)
	kept := map[string]any{}
	for _, k := range []string{"name", "namespace", "labels", "annotations", "creationTimestamp"} {
		if v, there := meta[k]; there {
			kept[k] = v
		}
	}
	if a, ok := kept["annotations"].(map[string]any); ok {
		b := map[string]any{}
		for k, v := range a {
			if !strings.HasPrefix(k, "kubectl.kubernetes.io/") {
				b[k] = v
			}
		}
		kept["annotations"] = b
	}
	out["metadata"] = kept
	if status, ok := out["status"].(map[string]any); ok {
		s := map[string]any{}
		for k, v := range status {
			if k != "conditions" { // what is said of the object, by us too
				s[k] = v
			}
		}
		out["status"] = s
	}
	return out
}
