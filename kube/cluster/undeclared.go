package cluster

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// undeclaredField finds in what a server says of an object the fields that the
// definition of its kind lacks: any of its status, and of the rest those that
// slicewire can do without.
var undeclaredField = regexp.MustCompile(`\.(status(?:\.\w+)+|spec\.ipFamilies)[^\s:]*: field not declared in schema`)

// maxLacks bounds how often in a row an object is tried with fewer fields.
const maxLacks = 16

// undeclared returns the paths of the fields that a definition lacks, as KubeSlice's
// own, or an older one, lacks those that came later; none where the
// error is another or nil.
func undeclared(err error) (paths []string) {
	if err == nil {
		return nil
	}
	for _, m := range undeclaredField.FindAllStringSubmatch(err.Error(), -1) {
		if !slices.Contains(paths, m[1]) {
			paths = append(paths, m[1])
		}
	}
	return paths
}

// without takes fields out of an object.
func without(u *unstructured.Unstructured, paths []string) {
	for _, p := range paths {
		unstructured.RemoveNestedField(u.Object, strings.Split(p, ".")...)
	}
}

// fitting is what is wanted without what the cluster's definition is known to lack.
func (w *writer) fitting(k Kind, u *unstructured.Unstructured) *unstructured.Unstructured {
	w.mu.Lock()
	lacks := w.lacks[k]
	w.mu.Unlock()
	without(u, lacks)
	return u
}

// declared has u written, and again without what the cluster's definition turns out
// to lack.
func (w *writer) declared(k Kind, u *unstructured.Unstructured, write func() error) error {
	err := write()
	for range maxLacks {
		lacks := undeclared(err) // the server may tell of one at a time
		if len(lacks) == 0 {
			break
		}
		w.mu.Lock()
		w.lacks[k] = append(slices.Clone(w.lacks[k]), lacks...)
		w.mu.Unlock()
		without(u, lacks)
		err = write()
	}
	return err
}
