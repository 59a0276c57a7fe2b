package crd

import (
	"embed"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"slicewire/overlay/manifest"
)

// A node is a JSON object of a definition.
type node = map[string]any

//go:embed mcs/*.yaml
var mcs embed.FS

// Files returns the definitions as YAML, by file name.
func Files() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, k := range manifest.Kinds() {
		d, err := definition(k)
		if err != nil {
			return nil, err
		}
		text, err := yaml.Marshal(d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
		out[d["metadata"].(node)["name"].(string)+".yaml"] = append([]byte(heading), text...)
	}
	theirs, err := mcs.ReadDir("mcs")
	if err != nil {
		return nil, err
	}
	for _, f := range theirs {
		text, err := mcs.ReadFile("mcs/" + f.Name())
		if err != nil {
			return nil, err
		}
		group, plural, _ := strings.Cut(strings.TrimSuffix(f.Name(), ".yaml"), "_")
		out[plural+"."+group+".yaml"] = text
	}
	return out, nil
}

const heading = "# Made from overlay/manifest and kube/crd by `go test ./kube/crd -update`. Do not edit.\n"

// about says what the definition of a kind has besides its fields.
type about struct {
	plural  string
	short   []string
	text    string
	columns []column
}

// A column is shown by kubectl get.
type column struct {
	name, kind, path string
	wide             bool // by -o wide only
}

func definition(k manifest.Kind) (node, error) {
	a, ok := kinds[k.Name]
	if !ok {
		return nil, fmt.Errorf("%s: no plural nor columns are known", k.Name)
	}
	group, version, _ := strings.Cut(k.APIVersion, "/")
	s := schemaOf(k.Body)
	s["description"] = a.text
	completeStatus(s)
	for _, r := range rules[k.Name] {
		if err := r.put(s); err != nil {
			return nil, fmt.Errorf("%s: %w", k.Name, err)
		}
	}
	names := node{"kind": k.Name, "listKind": k.Name + "List", "plural": a.plural, "singular": strings.ToLower(k.Name), "categories": []string{"slicewire"}}
	if len(a.short) > 0 {
		names["shortNames"] = a.short
	}
	var columns []node
	for _, c := range append(slices.Clone(a.columns), column{name: "Age", kind: "date", path: ".metadata.creationTimestamp"}) {
		n := node{"name": c.name, "type": c.kind, "jsonPath": c.path}
		if c.wide {
			n["priority"] = 1
		}
		columns = append(columns, n)
	}
	return node{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": node{"name": a.plural + "." + group},
		"spec": node{
			"group": group, "scope": "Namespaced", "names": names,
			"versions": []node{{
				"name": version, "served": true, "storage": true,
				"subresources":             node{"status": node{}},
				"additionalPrinterColumns": columns,
				"schema":                   node{"openAPIV3Schema": s},
			}},
		},
	}, nil
}

// completeStatus has every status hold conditions.
func completeStatus(s node) {
	props := s["properties"].(node)
	status, ok := props["status"].(node)
	if !ok {
		status = node{"type": "object"}
		props["status"] = status
	}
	fields, ok := status["properties"].(node)
	if !ok {
		fields = node{}
		status["properties"] = fields
	}
	fields["conditions"] = conditions()
}

// conditions are metav1.Condition's.
func conditions() node {
	text := func(more node) node {
		n := node{"type": "string"}
		maps.Copy(n, more)
		return n
	}
	return node{
		"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": []string{"type"},
		"items": node{
			"type": "object", "required": []string{"lastTransitionTime", "message", "reason", "status", "type"},
			"properties": node{
				"type":               text(node{"maxLength": 316, "pattern": `^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$`}),
				"status":             text(node{"enum": []string{"True", "False", "Unknown"}}),
				"reason":             text(node{"minLength": 1, "maxLength": 1024, "pattern": `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$`}),
				"message":            text(node{"maxLength": 32768}),
				"lastTransitionTime": text(node{"format": "date-time"}),
				"observedGeneration": node{"type": "integer", "format": "int64", "minimum": 0},
			},
		},
	}
}
