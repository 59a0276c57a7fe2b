//go:build !nokube

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/deploy/inject"
	"slicewire/kube/kubetest"
	"slicewire/overlay"
)

// An installation is what a test knows of a mesh that was installed as operators
// do it.
type installation struct {
	rig       *kubetest.Rig
	sites     []string
	authority stateDir // of the mesh
	manifest  string   // file with KubeSlice's example of a slice
	issuer    string   // host:port
	gossip    string
	manifests [2]string // what was applied to each cluster
}

// generate prints manifests for a site as `slicewire generate manifests` does.
func generate(t *testing.T, args ...string) string {
	t.Helper()
	out, said, code := program(t, append([]string{"generate", "manifests", "--set", "image.tag=test", "--set", "mesh.name=rig"}, args...)...)
	if code != exitOK {
		t.Fatalf("generate manifests: %d %s", code, said)
	}
	return out
}

// install makes a mesh of two clusters: the first one's gateway has its identity
// and its issuer's key from a Secret, the second one's joins with its pod's token.
func install(t *testing.T, rig *kubetest.Rig) *installation {
	t.Helper()
	x, dir := newInstallation(t, rig)
	x.first(t, dir)
	x.second(t, "statefulset/slicewire")
	return x
}

// newInstallation makes the mesh's authority and manifests, in a folder.
func newInstallation(t *testing.T, rig *kubetest.Rig) (*installation, string) {
	t.Helper()
	dir := t.TempDir()
	x := &installation{rig: rig, sites: []string{"worker-1", "worker-2"}, authority: stateDir(filepath.Join(dir, "ca")), manifest: filepath.Join(dir, "manifests", "slices.yaml")}
	if err := os.Mkdir(filepath.Join(dir, "manifests"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.manifest, []byte(kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := initAuthority(x.authority, "rig", time.Now()); err != nil {
		t.Fatal(err)
	}
	host := rig.Clusters[0].Must(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	x.issuer, x.gossip = host+":31820", host+":31830"
	return x, dir
}

// first installs the gateway of the first cluster, with more values than it needs.
func (x *installation) first(t *testing.T, dir string, more ...string) {
	t.Helper()
	state := stateDir(filepath.Join(dir, "first"))
	request, err := requestIdentity(state)
	if err != nil {
		t.Fatal(err)
	}
	s := signing{authority: x.authority, manifests: []string{x.manifest}, id: overlay.NodeID{Site: "worker-1", Node: "slicewire-0"}, life: certLife}
	bundle, err := s.sign(request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := installBundle(state, bundle, time.Now); err != nil {
		t.Fatal(err)
	}
	makeIssuer(t, dir, string(state), x.sites)
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "first", "namespace": rigSpace}, "data": secretOf(t, string(state))})
	if err != nil {
		t.Fatal(err)
	}
	keys := func(cluster int) string { return x.rig.Clusters[cluster].Must(t, "get", "--raw", "/openid/v1/jwks") }
	values := filepath.Join(dir, "values.yaml")
	text, err := json.Marshal(map[string]any{"admit": []any{
		map[string]any{"site": "worker-2", "jwks": keys(1), "gateway": true},
		map[string]any{"site": "worker-2", "jwks": keys(1), "namespace": "iperf", "serviceAccount": "*"},
		map[string]any{"site": "worker-1", "jwks": keys(0), "namespace": "iperf", "serviceAccount": "*"},
	}})
	if err := errors.Join(err, os.WriteFile(values, text, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := x.rig.Clusters[0]
	x.manifests[0] = generate(t, append(more, "--set", "site=worker-1", "--set", "identity.secret=first", "-f", values, "--set-file", "manifests.slices.yaml="+x.manifest)...)
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+rigSpace+"}}")
	c.Apply(t, string(secret))
	c.Apply(t, x.manifests[0])
	c.Rollout(t, rigSpace, "statefulset/slicewire")
}

// second installs the workload of the second cluster, with more values than it
// needs.
func (x *installation) second(t *testing.T, workload string, more ...string) {
	t.Helper()
	c := x.rig.Clusters[1]
	x.manifests[1] = generate(t, append(append(more, "--set", "site=worker-2", "--set-file", "manifests.slices.yaml="+x.manifest), x.reach()...)...)
	c.Apply(t, x.manifests[1])
	c.Rollout(t, rigSpace, workload)
}

// reach is what nodes that join have to know of the mesh.
func (x *installation) reach() []string {
	return []string{"--set-file", "mesh.authority=" + x.authority.path(fileAuthorityCert), "--set", "mesh.issuers=" + x.issuer, "--set", "mesh.gateways=" + x.gossip}
}

// status asks the gateway of a cluster.
func (x *installation) status(ctx context.Context, cluster int) (s Status, err error) {
	text, err := x.rig.Clusters[cluster].ExecErr(ctx, rigSpace, "slicewire-0", "/slicewire", "status", "--socket", "/state/slicewire.sock", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// Two clusters are installed with what `slicewire generate manifests` prints,
// under PodSecurity restricted; the second one's gateway joins with nothing but
// its pod's token, and the sites are connected through NodePorts. Uninstalling
// leaves nothing.
func TestInstallFromGeneratedManifests(t *testing.T) {
	rig := kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 1})
	rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t))
	before := objectsOf(t, rig.Clusters[1])
	began := time.Now()
	x := install(t, rig)
	t.Logf("installed after %v", time.Since(began).Round(100*time.Millisecond))
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		s, err := x.status(ctx, 1)
		if err != nil {
			return err
		}
		if len(s.Slices) != 1 || len(s.Slices[0].Peers) != 1 || s.Slices[0].Peers[0].LastHandshake == nil {
			return fmt.Errorf("slices %+v, members %+v", s.Slices, s.Gossip)
		}
		return nil
	})
	t.Logf("connected after %v", time.Since(began).Round(100*time.Millisecond))
	if out, err := rig.Clusters[1].ExecErr(t.Context(), rigSpace, "slicewire-0", "/slicewire", "await", "slicewire-ready."+rigSpace+".svc:7946"); err != nil {
		t.Errorf("what helm test does: %s, %v", out, err)
	}
	x.sidecar(t)
	c := rig.Clusters[1]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if out, err := c.Kubectl(ctx, x.manifests[1], "delete", "-f", "-", "--wait"); err != nil {
		t.Errorf("uninstall: %s %v", out, err)
	}
	kubetest.Eventually(t, patience, func(context.Context) error {
		var left []string
		for name := range objectsOf(t, c) {
			if !before[name] {
				left = append(left, name)
			}
		}
		if len(left) > 0 {
			return fmt.Errorf("uninstalling leaves %v", left)
		}
		return nil
	})
}

const sidecarPods = `
apiVersion: v1
kind: Namespace
metadata: {name: iperf, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: iperf}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: app
        image: tools:1
        command: [peer, serve, ":8080"]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`

// sidecar puts a sidecar into a Deployment of the second cluster, in a namespace
// whose pods may be nodes, under PodSecurity restricted. What its pod serves has
// an address on the slice, which the gateway of the first cluster hears of.
func (x *installation) sidecar(t *testing.T) {
	t.Helper()
	var out, said strings.Builder
	in := injecting{authority: x.authority.path(fileAuthorityCert), manifests: []string{x.manifest}, publish: []string{"app=8080"}}
	in.sidecar = inject.Sidecar{Image: kubetest.SlicewireImage, Site: "worker-2", Slice: "iperf-slice", Issuers: []string{x.issuer}, Gateways: []string{x.gossip}, Proxy: defaultProxy}
	if err := in.run(strings.NewReader(sidecarPods), &out, &said); err != nil {
		t.Fatal(err)
	}
	if said.String() != "Deployment/app\n" {
		t.Errorf("injected %q", said.String())
	}
	c := x.rig.Clusters[1]
	began := time.Now()
	c.Apply(t, out.String())
	c.Rollout(t, "iperf", "deployment/app")
	kubetest.Eventually(t, patience, func(ctx context.Context) error {
		s, err := x.status(ctx, 0)
		if err != nil {
			return err
		}
		for _, service := range s.Slices[0].Services {
			if service.Name == "app" && service.Namespace == "iperf" {
				return nil
			}
		}
		return fmt.Errorf("services %+v", s.Slices[0].Services)
	})
	t.Logf("a pod with a sidecar is on the slice after %v", time.Since(began).Round(100*time.Millisecond))
	c.Must(t, "delete", "namespace", "iperf", "--wait")
}

// objectsOf lists all objects of a cluster by kind and name.
func objectsOf(t *testing.T, c *kubetest.Cluster) map[string]bool {
	t.Helper()
	kinds := strings.Join(strings.Fields(c.Must(t, "api-resources", "--verbs=list", "-o", "name")), ",")
	out := make(map[string]bool)
	for line := range strings.Lines(c.Must(t, "get", kinds, "-A", "-o", "name", "--ignore-not-found")) {
		if l := strings.TrimSpace(line); !strings.HasPrefix(l, "event") && !strings.HasPrefix(l, "lease") && !strings.HasPrefix(l, "componentstatus") {
			out[l] = true
		}
	}
	return out
}
