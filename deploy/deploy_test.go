package deploy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the kustomize bases anew")

// Programs that read what is made here, as modules.
const (
	helm      = "helm.sh/helm/v4/cmd/helm@v4.3.1"
	kustomize = "sigs.k8s.io/kustomize/kustomize/v5@v5.8.1"
)

// needed are values without which nothing can be installed.
func needed() map[string]any {
	return map[string]any{
		"site": "worker-1", "manifests": map[string]any{"slices.yaml": "kind: SliceConfig\n"},
		"mesh": map[string]any{"authority": "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n", "issuers": []any{"192.0.2.1:51820"}, "gateways": []any{"192.0.2.1:7946"}},
	}
}

// cases are values for each flavour.
func cases() map[string]map[string]any {
	rootless := needed()
	rootless["replicas"] = 3
	rootless["admit"] = []any{map[string]any{"site": "worker-2", "jwks": `{"keys":[]}`, "gateway": true}, map[string]any{"site": "worker-1", "verify": "tokenreview", "gateway": true}}
	rootless["nodeFile"] = map[string]any{"uplinkKbps": 1000, "publish": []any{map[string]any{"slice": "s"}}}
	edge, node := needed(), needed()
	edge["flavour"] = "edge"
	node["flavour"] = "node"
	node["cni"] = map[string]any{"enabled": true}
	edge["webhook"] = map[string]any{"enabled": true, "slice": "red"}
	node["cluster"] = map[string]any{"enabled": false}
	node["image"] = map[string]any{"tag": "v9", "pullSecrets": []any{"s"}}
	return map[string]map[string]any{
		"rootless": rootless, "edge": edge, "node": node,
		"seeded": {"site": "a", "identity": map[string]any{"secret": "x"}, "hub": map[string]any{"namespace": "kubeslice-demo", "kubeconfigSecret": "k"}, "service": map[string]any{"type": "None"}},
		"hub":    {"flavour": "hub", "hub": map[string]any{"namespace": "kubeslice-demo", "workers": []any{"worker-1", "worker-2"}}},
	}
}

// goRun runs a program of a module and returns what it prints.
func goRun(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"run"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "HOME="+t.TempDir(), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "GOCACHE="+goEnv(t, "GOCACHE"))
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", args[0], err, said.String())
	}
	return out
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// objects reads a stream into its objects by kind and name.
func objects(t *testing.T, text string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, doc := range split(text) {
		var v struct {
			Kind     string
			Metadata struct{ Name string }
		}
		data, err := yaml.YAMLToJSONStrict([]byte(doc))
		if err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		if err := json.Unmarshal(data, &v); err != nil {
			t.Fatal(err)
		}
		name := v.Kind + "/" + v.Metadata.Name
		if out[name] != "" {
			t.Errorf("%s is there twice", name)
		}
		out[name] = string(data)
	}
	return out
}

// What the program prints is what Helm makes of the chart, whose lint and schema
// agree.
func TestHelmMakesTheSame(t *testing.T) {
	for name, values := range cases() {
		t.Run(name, func(t *testing.T) {
			text, err := yaml.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			theirs := objects(t, string(goRun(t, helm, "template", "slicewire", chartFolder, "--namespace", DefaultNamespace, "-f", file)))
			made, err := Render(Release{Values: values, Hooks: true})
			if err != nil {
				t.Fatal(err)
			}
			ours := objects(t, made)
			if ours["Namespace/"+DefaultNamespace] == "" {
				t.Error("the namespace is missing")
			}
			delete(ours, "Namespace/"+DefaultNamespace) // Helm's --create-namespace
			for name := range theirs {
				if ours[name] != theirs[name] {
					t.Errorf("%s is\n%s\nHelm makes\n%s", name, ours[name], theirs[name])
				}
			}
			if len(ours) != len(theirs) {
				t.Errorf("%d objects, Helm makes %d", len(ours), len(theirs))
			}
			goRun(t, helm, "lint", chartFolder, "-f", file)
		})
	}
}

func TestValuesThatCannotBeAreRefused(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"flavour: other", "choose rootless"},
		{"sight: x", "the chart has none of that name"},
		{"image: {tga: x}", "value image.tga"},
		{"image: x", "a value for a value"},
		{"site: ''", "how is this cluster called"},
		{"mesh: {authority: ''}", "mesh.authority: want"},
		{"service: {tunnel: 31821}", "end in 0"},
		{"{identity: {secret: s}, replicas: 2}", "want replicas 1"},
		{"flavour: hub", "hub.namespace: want"},
		{"cni: {enabled: true}", "want flavour node"},
		{"webhook: {enabled: true}", "webhook.slice: which"},
		{"{webhook: {enabled: true}, mesh: {authority: a, issuers: []}}", "webhook.enabled: want"},
	} {
		var change map[string]any
		if err := yaml.Unmarshal([]byte(c.set), &change); err != nil {
			t.Fatal(err)
		}
		values := needed()
		for k, v := range change {
			values[k] = v
		}
		if _, err := Render(Release{Values: values}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.set, err, c.want)
		}
	}
}

// The flavours that need no privilege ask for none.
func TestRootlessAsksForNoPrivilege(t *testing.T) {
	for _, flavour := range []string{"rootless", "edge"} {
		values := needed()
		values["flavour"] = flavour
		text, err := Render(Release{Values: values, Hooks: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"privileged: true", "hostPath", "hostNetwork", "hostPID", "add:", "secrets]"} {
			if strings.Contains(text, word) {
				t.Errorf("%s has %q", flavour, word)
			}
		}
	}
}

// What rights the chart gives in a cluster is what is tried right by right.
func TestRightsAreThoseThatAreTried(t *testing.T) {
	want, err := os.ReadFile("rbac/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := os.ReadFile("rbac/issuer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, err := Render(Release{Values: cases()["rootless"]})
	if err != nil {
		t.Fatal(err)
	}
	for role, file := range map[string][]byte{"ClusterRole/slicewire-cluster": want, "ClusterRole/slicewire-issuer": issuer} {
		if ours, theirs := rules(t, objects(t, text)[role]), rules(t, objects(t, string(file))[role]); ours != theirs {
			t.Errorf("the chart gives\n%s\ndeploy/rbac\n%s", ours, theirs)
		}
	}
	text, err = Render(Release{Values: needed()})
	if err != nil || strings.Contains(text, "tokenreviews") {
		t.Errorf("who lets no pods in may ask about tokens: %v", err)
	}
}

func rules(t *testing.T, object string) string {
	t.Helper()
	var v struct{ Rules []json.RawMessage }
	if err := json.Unmarshal([]byte(object), &v); err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range v.Rules {
		out = append(out, string(r))
	}
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// bases are the kustomize bases: the chart's manifests with values that whoever
// uses them puts his own in place of.
func bases() map[string]map[string]any {
	out := make(map[string]map[string]any)
	for _, flavour := range Flavours {
		values := map[string]any{
			"flavour": flavour, "site": "my-site", "hub": map[string]any{},
			"mesh": map[string]any{"authority": "put the certificate of the mesh's authority here\n", "issuers": []any{"192.0.2.1:51820"}, "gateways": []any{"192.0.2.1:7946"}},
		}
		if flavour == "hub" {
			values["hub"] = map[string]any{"namespace": "kubeslice-my-project", "workers": []any{"my-site"}}
		}
		out[flavour] = values
	}
	return out
}

// The kustomize bases are what the chart makes (go test ./deploy -update writes
// them), and kustomize takes them.
func TestKustomizeBases(t *testing.T) {
	for flavour, values := range bases() {
		text, err := Render(Release{Values: values})
		if err != nil {
			t.Fatal(err)
		}
		text = "# Made from the chart by `go test ./deploy -run Kustomize -update`. Do not edit.\n" + text
		dir := filepath.Join("kustomize", flavour)
		files := map[string]string{"manifests.yaml": text, "kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [manifests.yaml]\n"}
		for name, want := range files {
			path := filepath.Join(dir, name)
			if *update {
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := os.ReadFile(path)
			if err != nil || string(got) != want {
				t.Errorf("%s is not what the chart makes (%v): go test ./deploy -run Kustomize -update", path, err)
			}
		}
		built := objects(t, string(goRun(t, kustomize, "build", dir)))
		want := objects(t, text)
		if len(built) != len(want) {
			t.Errorf("%s: kustomize makes %d objects of %d", flavour, len(built), len(want))
		}
		for name := range want {
			if built[name] != want[name] {
				t.Errorf("%s: kustomize makes of %s\n%s\nwant\n%s", flavour, name, built[name], want[name])
			}
		}
	}
}

// What the chart gives workers on a hub is what is tried there.
func TestHubRightsAreThoseThatAreTried(t *testing.T) {
	text, err := Render(Release{Values: map[string]any{"flavour": "hub", "hub": map[string]any{"namespace": "kubeslice-demo", "workers": []any{"worker-1"}}}})
	if err != nil {
		t.Fatal(err)
	}
	ours := objects(t, text)
	for file, role := range map[string]string{"hub/role-worker.yaml": "Role/slicewire-worker-1", "hub/role-controller.yaml": "Role/slicewire-controller"} {
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if ours, theirs := rules(t, ours[role]), rules(t, objects(t, string(want))[role]); ours != theirs {
			t.Errorf("the chart's %s gives\n%s\n%s\n%s", role, ours, file, theirs)
		}
	}
}
