package inject

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
	sigs "sigs.k8s.io/yaml"
)

var example = Sidecar{
	Image: "docker.io/library/slicewire:1", Mesh: "lab", Site: "worker-1", Slice: "iperf-slice", Authority: "-----BEGIN X-----\nabc\n-----END X-----\n",
	Issuers: []string{"192.0.2.1:51820"}, Gateways: []string{"192.0.2.1:7946"}, Manifests: "kind: SliceConfig\n", Proxy: "127.0.0.1:1080",
	Publish: []Published{{Service: "web", Port: 8080, Protocol: "TCP"}},
}

const stream = `# not a workload
apiVersion: v1
kind: Service
metadata:   {name:   web}
---
apiVersion: apps/v1
kind: Deployment # the web
metadata: {name: web}
spec:
  template:
    metadata:
      labels: {app: web}
    spec:
      # what comes first
      initContainers:
      - name: prepare
        image: x
      containers:
      - name: web # this one
        image: y
        args: ["--port", "8080", 'a: b']
---
kind: List
apiVersion: v1
items:
- {apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {a: b}}, spec: {containers: [{name: c, image: i}], volumes: []}}
- apiVersion: batch/v1
  kind: CronJob
  metadata: {name: j}
  spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: c, image: i}]}}}}}
---
`

// value is what a stream means, without what is of no meaning.
func value(t *testing.T, text []byte) string {
	t.Helper()
	var all []any
	for doc := range bytes.SplitSeq(text, []byte("\n---")) {
		var v any
		if err := sigs.Unmarshal(doc, &v); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		all = append(all, v)
	}
	out, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestInjectIsUndoneAndRepeated(t *testing.T) {
	once, err := Inject([]byte(stream), example)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(once.Changed, " "); got != "Deployment/web Pod/p CronJob/j" {
		t.Errorf("changed %s", got)
	}
	head, _, _ := strings.Cut(stream, "---")
	if !strings.HasPrefix(string(once.Out), head) {
		t.Error("a document without a workload was changed")
	}
	for _, comment := range []string{"# the web", "# what comes first", "# this one"} {
		if !strings.Contains(string(once.Out), comment) {
			t.Errorf("comment %q is lost", comment)
		}
	}
	twice, err := Inject(once.Out, example)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(twice.Out, once.Out) || len(twice.Changed) != 0 {
		t.Errorf("injecting again changes %v", twice.Changed)
	}
	undone, err := Uninject(once.Out)
	if err != nil {
		t.Fatal(err)
	}
	// An empty list that was there goes with our last item of it.
	want := strings.Replace(stream, ", volumes: []", "", 1)
	if got, want := value(t, undone.Out), value(t, []byte(want)); got != want {
		t.Errorf("undone:\n%s\nwant\n%s", got, want)
	}
	nothing, err := Uninject([]byte(stream))
	if err != nil || string(nothing.Out) != stream {
		t.Errorf("taking out what is not in changes the stream, %v", err)
	}
}

func TestTheSidecarComesFirstAndNeedsNothing(t *testing.T) {
	r, err := Inject([]byte(stream), example)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Spec struct {
			Template struct {
				Metadata struct{ Annotations map[string]string }
				Spec     struct {
					InitContainers []struct {
						Name            string
						RestartPolicy   string         `yaml:"restartPolicy"`
						SecurityContext map[string]any `yaml:"securityContext"`
					} `yaml:"initContainers"`
				}
			}
		}
	}
	if err := yaml.Unmarshal(bytes.Split(r.Out, []byte("\n---"))[1], &d); err != nil {
		t.Fatal(err)
	}
	c := d.Spec.Template.Spec.InitContainers
	if len(c) != 3 || c[0].Name != nameJoin || c[1].Name != nameSidecar || c[1].RestartPolicy != "Always" || c[2].Name != "prepare" {
		t.Fatalf("init containers %+v", c)
	}
	for _, x := range c[:2] {
		if x.SecurityContext["allowPrivilegeEscalation"] != false || x.SecurityContext["runAsNonRoot"] != true {
			t.Errorf("%s: %v", x.Name, x.SecurityContext)
		}
	}
	notes := d.Spec.Template.Metadata.Annotations
	if !strings.Contains(notes[annotations+"node.yaml"], "site: worker-1") || notes[annotations+"ca.crt"] != example.Authority || notes[annotations+"manifests.yaml"] != example.Manifests {
		t.Errorf("annotations %q", notes)
	}
	changed := example
	changed.Image = "docker.io/library/slicewire:2"
	again, err := Inject(r.Out, changed)
	if err != nil || strings.Contains(string(again.Out), "slicewire:1") || strings.Count(string(again.Out), "slicewire:2") != 6 {
		t.Errorf("injecting another image: %v", err)
	}
}

func TestWhatCannotBeInjectedIsSaid(t *testing.T) {
	pod := func(spec string) string { return "kind: Pod\nmetadata: {name: p}\nspec: " + spec + "\n" }
	for _, c := range []struct{ name, text, want string }{
		{"the node's network", pod("{hostNetwork: true, containers: []}"), "node's network"},
		{"a container of our name", pod("{containers: [{name: slicewire}]}"), "of its own"},
		{"a list that is none", pod("{containers: [], volumes: 7}"), "volumes is no list"},
		{"no YAML", "a: [", "document at line 1"},
	} {
		if _, err := Inject([]byte(c.text), example); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for name, change := range map[string]func(*Sidecar){
		"a site with a line":   func(s *Sidecar) { s.Site = "a\nb" },
		"an image with a line": func(s *Sidecar) { s.Image = "a\nb" },
		"no issuer":            func(s *Sidecar) { s.Issuers = nil },
		"a gateway's quote":    func(s *Sidecar) { s.Gateways = []string{`a":1`} },
		"too much":             func(s *Sidecar) { s.Manifests = strings.Repeat("a", maxNotes) },
		"a port twice":         func(s *Sidecar) { s.Publish = append(s.Publish, s.Publish...) },
		"a port of zero":       func(s *Sidecar) { s.Publish = []Published{{Service: "a", Protocol: "TCP"}} },
	} {
		s := example
		change(&s)
		if _, err := Inject([]byte(stream), s); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func FuzzInject(f *testing.F) {
	f.Add([]byte(stream))
	f.Add([]byte("kind: Pod\nspec: &a {x: *a}\n"))
	f.Add([]byte("{kind: List, items: [{kind: Pod, spec: {}}]}"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Inject(in, example)
		if err != nil {
			return
		}
		again, err := Inject(r.Out, example)
		if err != nil {
			t.Fatalf("what was injected cannot be read: %v\n%s", err, r.Out)
		}
		if !bytes.Equal(again.Out, r.Out) {
			t.Fatalf("injecting again changes\n%s\ninto\n%s", r.Out, again.Out)
		}
	})
}
