package kube

import (
	"encoding/json"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Ours reports whether slicewire made the object.
func Ours(o *unstructured.Unstructured) bool {
	return o != nil && o.GetLabels()[LabelManagedBy] == ManagedBy
}

// Differs reports whether applying want would change live: a field of want that
// live has otherwise, or one that slicewire owns and no longer wants. Fields of
// others and defaults that the server has filled in are no difference. live nil
// always differs.
func Differs(want, live *unstructured.Unstructured, subresource string) bool {
	if live == nil {
		return true
	}
	owned := ownedFields(live, subresource)
	if owned == nil {
		return true // never applied, or taken over: own it
	}
	for key, v := range want.Object {
		switch key {
		case "apiVersion", "kind":
		case "metadata":
			if !metadataWithin(v, live.Object[key], owned["f:metadata"]) {
				return true
			}
		default:
			if !within(v, live.Object[key], owned["f:"+key]) {
				return true
			}
		}
	}
	return !wanted(owned, want.Object)
}

// metadataWithin leaves out what names the object.
func metadataWithin(want, live, owned any) bool {
	w, _ := want.(map[string]any)
	l, _ := live.(map[string]any)
	tree, _ := owned.(map[string]any)
	for key, v := range w {
		if key == "name" || key == "namespace" || key == "creationTimestamp" {
			continue
		}
		if !within(v, l[key], tree["f:"+key]) {
			return false
		}
	}
	return true
}

// within reports whether live has all of want. Lists are compared whole, but for
// those whose entries have owners of their own: there every wanted entry has to
// be.
func within(want, live, owned any) bool {
	tree, _ := owned.(map[string]any)
	switch w := want.(type) {
	case map[string]any:
		l, ok := live.(map[string]any)
		if !ok {
			return len(w) == 0 && live == nil
		}
		for k, v := range w {
			if !within(v, l[k], tree["f:"+k]) {
				return false
			}
		}
		return true
	case []any:
		l, ok := live.([]any)
		if !ok {
			return len(w) == 0 && live == nil
		}
		if keyed(tree) {
			for _, x := range w {
				if !anyWithin(x, l) {
					return false
				}
			}
			return true
		}
		if len(l) != len(w) {
			return false
		}
		for i := range w {
			if !within(w[i], l[i], nil) {
				return false
			}
		}
		return true
	case nil:
		return live == nil
	}
	return sameScalar(want, live)
}

func anyWithin(want any, list []any) bool {
	for _, x := range list {
		if within(want, x, nil) {
			return true
		}
	}
	return false
}

// keyed reports whether the entries of a list have owners of their own.
func keyed(tree map[string]any) bool {
	for k := range tree {
		if strings.HasPrefix(k, "k:") || strings.HasPrefix(k, "v:") {
			return true
		}
	}
	return false
}

// sameScalar compares numbers by value: those that came as JSON are int64 or
// float64, those that were put together may be any.
func sameScalar(a, b any) bool {
	if a == b {
		return true
	}
	x, y := reflect.ValueOf(a), reflect.ValueOf(b)
	switch {
	case x.CanInt() && y.CanInt():
		return x.Int() == y.Int()
	case x.CanInt() && y.CanFloat():
		return float64(x.Int()) == y.Float()
	case x.CanFloat() && y.CanInt():
		return x.Float() == float64(y.Int())
	}
	return false
}

// ownedFields returns the tree of fields that slicewire has applied, nil when it
// has applied none.
func ownedFields(o *unstructured.Unstructured, subresource string) map[string]any {
	managed, _, _ := unstructured.NestedSlice(o.Object, "metadata", "managedFields")
	for _, m := range managed {
		e, _ := m.(map[string]any)
		if e["manager"] != FieldManager || e["operation"] != "Apply" {
			continue
		}
		if s, _ := e["subresource"].(string); s != subresource {
			continue
		}
		if tree, ok := e["fieldsV1"].(map[string]any); ok {
			return tree
		}
	}
	return nil
}

// wanted reports whether want has every field of the tree.
func wanted(tree map[string]any, want any) bool {
	for key, sub := range tree {
		below, _ := sub.(map[string]any)
		kind, rest, _ := strings.Cut(key, ":")
		switch kind {
		case ".": // the field itself
		case "f":
			m, ok := want.(map[string]any)
			if !ok {
				return false
			}
			v, there := m[rest]
			if !there || !wanted(below, v) {
				return false
			}
		case "k":
			item := entryOf(want, rest)
			if item == nil || !wanted(below, item) {
				return false
			}
		case "v":
			var v any
			if json.Unmarshal([]byte(rest), &v) != nil || !hasValue(want, v) {
				return false
			}
		}
	}
	return true
}

// entryOf finds the entry of a list whose keys are those given as JSON. A key
// that it leaves out has its default.
func entryOf(list any, keysJSON string) any {
	var keys map[string]any
	items, _ := list.([]any)
	if json.Unmarshal([]byte(keysJSON), &keys) != nil {
		return nil
	}
	for _, x := range items {
		item, _ := x.(map[string]any)
		same := item != nil
		for k, v := range keys {
			if w, there := item[k]; there && !sameScalar(w, v) {
				same = false
			}
		}
		if same {
			merged := map[string]any{}
			for k, v := range keys {
				merged[k] = v
			}
			for k, v := range item {
				merged[k] = v
			}
			return merged
		}
	}
	return nil
}

func hasValue(list, v any) bool {
	items, _ := list.([]any)
	for _, x := range items {
		if sameScalar(x, v) {
			return true
		}
	}
	return false
}
