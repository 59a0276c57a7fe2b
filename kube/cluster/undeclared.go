package cluster

import (
	"regexp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// undeclaredField finds in what a server says of an object the fields of its status
// that the definition of its kind lacks.
var undeclaredField = regexp.MustCompile(`\.(status(?:\.\w+)+)[^\s:]*: field not declared in schema`)

// maxLacks bounds how often in a row a status is tried with fewer fields.
const maxLacks = 16

// undeclared returns the paths of the fields of a status that a definition lacks, as
// KubeSlice's own, or an older one, lacks those that came later; none where the
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
