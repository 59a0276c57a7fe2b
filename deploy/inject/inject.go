package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// maxInput bounds what is read.
const maxInput = 64 << 20

// Names in a pod that are ours: nothing else is ever removed.
const (
	nameJoin    = "slicewire-join"
	nameSidecar = "slicewire"
	volumeState = "slicewire-state"
	volumeConf  = "slicewire-config"
	volumeToken = "slicewire-token"
	annotations = "sidecar.slicewire.io/"
)

// A Result says what was done.
type Result struct {
	Out     []byte
	Changed []string // kind/name of each workload
}

// Inject adds the sidecar to every workload of a stream of YAML documents.
func Inject(in []byte, s Sidecar) (Result, error) {
	if err := s.validate(); err != nil {
		return Result{}, err
	}
	return each(in, func(p pod) error {
		p.remove()
		return p.add(s)
	})
}

// Uninject removes what Inject has added.
func Uninject(in []byte) (Result, error) {
	return each(in, func(p pod) error {
		p.remove()
		return nil
	})
}

// separator is a line between two documents.
var separator = regexp.MustCompile(`(?m)^---([ \t].*)?$`)

// each calls change for each pod of a stream, and puts the stream together again.
func each(in []byte, change func(pod) error) (Result, error) {
	var r Result
	if len(in) > maxInput {
		return r, fmt.Errorf("more than %d MiB", maxInput>>20)
	}
	var out bytes.Buffer
	at := 0
	for _, cut := range append(separator.FindAllIndex(in, -1), []int{len(in), len(in)}) {
		text := in[at:cut[0]]
		done, names, err := document(text, change)
		if err != nil {
			line := bytes.Count(in[:at], []byte("\n")) + 1
			return r, fmt.Errorf("document at line %d: %w", line, err)
		}
		r.Changed = append(r.Changed, names...)
		out.Write(done)
		out.Write(in[cut[0]:cut[1]])
		at = cut[1]
	}
	r.Out = out.Bytes()
	return r, nil
}

// document changes the pods of one document.
func document(text []byte, change func(pod) error) ([]byte, []string, error) {
	var root yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&root); errors.Is(err, io.EOF) {
		return text, nil, nil
	} else if err != nil {
		return nil, nil, err
	}
	var before, now any
	if err := root.Decode(&before); err != nil {
		return nil, nil, err
	}
	var names []string
	for _, p := range podsOf(root.Content[0]) {
		if err := change(p); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", p.name, err)
		}
		names = append(names, p.name)
	}
	if err := root.Decode(&now); err != nil {
		return nil, nil, err
	}
	if reflect.DeepEqual(before, now) { // nothing but, at most, an order that means nothing
		return text, nil, nil
	}
	after, err := encode(&root)
	if err != nil {
		return nil, nil, err
	}
	if lead := len(text) - len(bytes.TrimLeft(text, "\n")); lead > 0 {
		after = append([]byte("\n"), after...)
	}
	return after, names, nil
}

func encode(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(n); err != nil {
		return nil, err
	}
	return b.Bytes(), e.Close()
}

// templates are the ways from an object of a kind to its pod.
var templates = map[string][]string{
	"Pod": nil, "Deployment": {"spec", "template"}, "StatefulSet": {"spec", "template"}, "DaemonSet": {"spec", "template"},
	"ReplicaSet": {"spec", "template"}, "Job": {"spec", "template"}, "CronJob": {"spec", "jobTemplate", "spec", "template"},
}

// podsOf finds the pods of an object, or of those of a List.
func podsOf(object *yaml.Node) (pods []pod) {
	object = follow(object)
	kind := scalar(get(object, "kind"))
	if kind == "List" {
		if items := follow(get(object, "items")); items != nil && items.Kind == yaml.SequenceNode {
			for _, item := range items.Content {
				pods = append(pods, podsOf(item)...)
			}
		}
		return pods
	}
	way, ok := templates[kind]
	if !ok {
		return nil
	}
	name := kind + "/" + scalar(get(get(object, "metadata"), "name"))
	for _, key := range way {
		object = get(object, key)
	}
	if spec := get(object, "spec"); spec != nil && spec.Kind == yaml.MappingNode {
		pods = append(pods, pod{name: name, object: object, spec: spec})
	}
	return pods
}

// A pod is the template of one, or one itself.
type pod struct {
	name         string // of the workload
	object, spec *yaml.Node
}

// remove takes out what is ours.
func (p pod) remove() {
	removeNamed(p.spec, "initContainers", nameJoin, nameSidecar)
	removeNamed(p.spec, "volumes", volumeState, volumeConf, volumeToken)
	meta := get(p.object, "metadata")
	notes := get(meta, "annotations")
	if notes == nil || notes.Kind != yaml.MappingNode {
		return
	}
	had := false
	for i := 0; i+1 < len(notes.Content); {
		if strings.HasPrefix(notes.Content[i].Value, annotations) {
			notes.Content = append(notes.Content[:i], notes.Content[i+2:]...)
			had = true
			continue
		}
		i += 2
	}
	if had && len(notes.Content) == 0 {
		drop(meta, "annotations")
		if len(meta.Content) == 0 {
			drop(p.object, "metadata")
		}
	}
}

// add puts in what is ours, the containers before all others: they may use it.
func (p pod) add(s Sidecar) error {
	for _, key := range []string{"initContainers", "volumes"} {
		if n := get(p.spec, key); n != nil && n.Kind != yaml.SequenceNode && n.Tag != "!!null" {
			return fmt.Errorf("%s is no list", key)
		}
	}
	for _, c := range []string{"containers", "initContainers"} {
		if list := get(p.spec, c); list != nil && named(list, nameSidecar) {
			return fmt.Errorf("it has a container named %q of its own", nameSidecar)
		}
	}
	if scalar(get(p.spec, "hostNetwork")) == "true" {
		return errors.New("it is in its node's network: ports of several sidecars would be one")
	}
	parts, err := s.parts()
	if err != nil {
		return err
	}
	insert(p.spec, "initContainers", parts.containers, true)
	insert(p.spec, "volumes", parts.volumes, false)
	notes := mapping(mapping(p.object, "metadata"), "annotations")
	for i := 0; i+1 < len(parts.annotations.Content); i += 2 {
		notes.Content = append(notes.Content, parts.annotations.Content[i], parts.annotations.Content[i+1])
	}
	return nil
}
