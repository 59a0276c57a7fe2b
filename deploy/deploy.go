// Package deploy has what is needed to run slicewire in Kubernetes: the Helm
// chart, which is the one source of all manifests, the definitions of custom
// resources, and a renderer for both, so that the program prints them without
// Helm.
//
// The renderer knows the functions that the chart uses and no others; a test
// compares what it makes with what Helm makes. It never talks to a cluster. All
// functions may be called concurrently.
package deploy

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// The chart's symbolic link to crds is not followed.
//
//go:embed all:chart/slicewire crds
var files embed.FS

const chartFolder = "chart/slicewire"

// A Release is what is to be installed.
type Release struct {
	Name      string         // of the release and of most objects; empty: slicewire
	Namespace string         // empty: slicewire-system
	Values    map[string]any // in place of the chart's values
	Hooks     bool           // also what only Helm runs: its test, and what comes after an uninstall
}

// Flavours are the values of "flavour".
var Flavours = []string{"rootless", "edge", "node", "hub"}

// DefaultNamespace is where slicewire runs unless told otherwise.
const DefaultNamespace = "slicewire-system"

// Render returns manifests, one YAML document after another, the namespace first.
func Render(r Release) (string, error) {
	if r.Name == "" {
		r.Name = "slicewire"
	}
	if r.Namespace == "" {
		r.Namespace = DefaultNamespace
	}
	values, err := r.values()
	if err != nil {
		return "", err
	}
	docs, err := render(r, values)
	if err != nil {
		return "", err
	}
	all := append([]string{namespaceOf(r.Namespace, values)}, docs...)
	return strings.Join(all, "---\n"), nil
}

// namespaceOf is the namespace with the strictest standard that the flavour
// passes.
func namespaceOf(name string, values map[string]any) string {
	level := "restricted"
	if values["flavour"] == "node" {
		level = "privileged"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Namespace
metadata:
  name: %s
  labels:
    pod-security.kubernetes.io/enforce: %s
`, name, level)
}

// values are the chart's with the release's in their place.
func (r *Release) values() (map[string]any, error) {
	text, err := files.ReadFile(chartFolder + "/values.yaml")
	if err != nil {
		return nil, err
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, err
	}
	if err := merge(values, r.Values, ""); err != nil {
		return nil, err
	}
	if f, _ := values["flavour"].(string); !slices.Contains(Flavours, f) {
		return nil, fmt.Errorf("flavour %q: choose %s", f, strings.Join(Flavours, ", "))
	}
	return values, nil
}

// open are values whose keys are the user's.
var open = []string{"manifests", "nodeFile", "resources", "nodeSelector", "podAnnotations", "global"}

// merge puts from over into. Unlike Helm it refuses what the chart does not know.
func merge(into, from map[string]any, at string) error {
	for _, k := range slices.Sorted(keysOf(from)) {
		v := from[k]
		was, known := into[k]
		if !known && (at == "" || !slices.Contains(open, strings.TrimSuffix(at, "."))) {
			return fmt.Errorf("value %s%s: the chart has none of that name", at, k)
		}
		m, isMap := v.(map[string]any)
		old, wasMap := was.(map[string]any)
		switch {
		case v == nil:
			delete(into, k)
		case wasMap && isMap:
			if err := merge(old, m, at+k+"."); err != nil {
				return err
			}
		case known && was != nil && wasMap != isMap:
			return fmt.Errorf("value %s%s: want what values.yaml has, a value for a value and keys for keys", at, k)
		default:
			into[k] = v
		}
	}
	return nil
}

// Definitions returns the definitions of custom resources, by file name.
func Definitions() (map[string]string, error) {
	list, err := fs.ReadDir(files, "crds")
	if err != nil {
		return nil, err
	}
	out := make(map[string]string)
	for _, e := range list {
		text, err := files.ReadFile(path.Join("crds", e.Name()))
		if err != nil {
			return nil, err
		}
		out[e.Name()] = string(text)
	}
	if len(out) == 0 {
		return nil, errors.New("no definitions")
	}
	return out, nil
}
