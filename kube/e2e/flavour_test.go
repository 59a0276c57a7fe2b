package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"slicewire/kube/kubetest"
)

// hubSpace is the namespace of a project on the hub.
const hubSpace = "kubeslice-demo"

const kubesliceClusters = `
{apiVersion: controller.kubeslice.io/v1alpha1, kind: Cluster, metadata: {name: worker-1, namespace: kubeslice-demo}, spec: {networkInterface: eth0}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: Cluster, metadata: {name: worker-2, namespace: kubeslice-demo}, spec: {networkInterface: eth0}}
`

// flavours brings the other flavours up, one after another: a hub by Helm on the
// first cluster; on the second nodes that read it, and then a gateway that only dials.
// Of each nothing is left.
func (x *installation) flavours(t *testing.T) {
	one, two := x.rig.Clusters[0], x.rig.Clusters[1]
	one.Must(t, "apply", "--server-side", "--force-conflicts", "-f", "../../deploy/crds") // with the worker's beside it
	one.Must(t, "wait", "--for=condition=Established", "crd/clusters.controller.kubeslice.io", "crd/sliceconfigs.controller.kubeslice.io")
	for _, name := range []string{hubSpace, "slicewire-hub"} {
		one.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+name+", labels: {pod-security.kubernetes.io/enforce: restricted}}}")
	}
	one.Apply(t, kubesliceClusters)
	one.Apply(t, kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))
	before := settledObjects(t, one)
	one.Helm(t, "install", "hub", chart, "-n", "slicewire-hub", "--wait", "--timeout", "2m", "--set", "flavour=hub,hub.namespace="+hubSpace+",hub.workers[0]=worker-2,crds.install=false,image.tag=test")
	x.nodes(t, two, hubConfig(t, one))
	two.Must(t, "delete", "namespace", "iperf", "--ignore-not-found", "--wait")
	if lease := one.Must(t, "-n", hubSpace, "get", "leases", "-o", "name"); !strings.Contains(lease, "slicewire") {
		t.Errorf("the nodes have written nothing to the hub: leases %q", lease)
	}
	one.Helm(t, "uninstall", "hub", "-n", "slicewire-hub", "--wait", "--timeout", "2m")
	nothingLeft(t, one, before)
	if left := one.Must(t, "-n", hubSpace, "get", "sliceconfigs,clusters", "-o", "jsonpath={.items[*].status}"); left != "" {
		t.Errorf("on the hub the statuses %s are left", left)
	}
	x.edge(t, two)
}

// hubConfig makes a kubeconfig for a worker with the token that it has on the hub.
func hubConfig(t *testing.T, hub *kubetest.Cluster) string {
	t.Helper()
	token := strings.TrimSpace(hub.Must(t, "-n", hubSpace, "create", "token", "slicewire-worker-2", "--duration=1h"))
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "hub",
		"clusters": []any{map[string]any{"name": "hub", "cluster": map[string]any{"server": hub.API, "certificate-authority-data": []byte(hub.CA)}}},
		"users":    []any{map[string]any{"name": "hub", "user": map[string]any{"token": token}}},
		"contexts": []any{map[string]any{"name": "hub", "context": map[string]any{"cluster": "hub", "user": "hub"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// nodes installs a gateway on every node, which reads the hub, and uninstalls it.
func (x *installation) nodes(t *testing.T, c *kubetest.Cluster, kubeconfig string) {
	t.Helper()
	c.Must(t, "delete", "namespace", rigSpace, "--ignore-not-found", "--wait")
	before := settledObjects(t, c)
	x.manifests[1] = generate(t, "--flavour", "node", "--set", "site=worker-2", "--set-file", "mesh.authority="+x.authority.cert(), "--set", "mesh.issuers="+x.issuer,
		"--set", "mesh.gateways="+x.gossip, "--set", "hub.namespace="+hubSpace, "--set", "hub.kubeconfigSecret=hub")
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "hub", "namespace": rigSpace}, "stringData": map[string]string{"kubeconfig": kubeconfig}})
	if err != nil {
		t.Fatal(err)
	}
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+rigSpace+"}}")
	c.Apply(t, string(secret))
	c.Apply(t, x.manifests[1])
	c.Rollout(t, rigSpace, "daemonset/slicewire")
	x.connected(t, "daemonset/slicewire")
	if ready := c.Must(t, "-n", rigSpace, "get", "daemonset", "slicewire", "-o", "jsonpath={.status.numberReady}"); ready != "1" {
		t.Errorf("%s nodes are ready, want the one that there is", ready)
	}
	s, err := x.statusOf(t.Context(), 1, "daemonset/slicewire")
	if err != nil || s.Hub == nil || !s.Hub.Synced || len(s.Hub.Refused) > 0 || s.Cluster == nil || s.Cluster.Fault != "" {
		t.Errorf("a node's status: hub %+v, cluster %+v, %v", s.Hub, s.Cluster, err)
	}
	x.removed(t, 1)
	nothingLeft(t, c, before)
}

// edge installs a gateway that only dials, with kustomize: the base with what is
// the mesh's own in its place.
func (x *installation) edge(t *testing.T, c *kubetest.Cluster) {
	t.Helper()
	before := settledObjects(t, c)
	base, err := filepath.Abs("../../deploy/kustomize/edge")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "base"), os.DirFS(base)); err != nil { // kustomize wants it beside
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(base, "manifests.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct{ Data map[string]string }
	for doc := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(doc, "kind: ConfigMap\n") {
			if err := yaml.Unmarshal([]byte(doc), &config); err != nil {
				t.Fatal(err)
			}
		}
	}
	authority, err := os.ReadFile(x.authority.cert())
	if err != nil {
		t.Fatal(err)
	}
	slice, err := os.ReadFile(x.manifest)
	if err != nil {
		t.Fatal(err)
	}
	node := strings.NewReplacer(`"default"`, "rig", "my-site", "worker-2", "192.0.2.1:7946", x.gossip, "manifests: []", "manifests: [slices.yaml]").Replace(config.Data["node.yaml"])
	if !strings.Contains(node, "reachable: false") || !strings.Contains(node, x.gossip) {
		t.Fatalf("the base's node file is\n%s", node)
	}
	patch, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"name": "slicewire", "namespace": rigSpace},
		"data": map[string]string{"node.yaml": node, "ca.crt": string(authority), "issuers": x.issuer + "\n", "slices.yaml": string(slice)}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "mesh.yaml"), string(patch))
	writeFile(t, filepath.Join(dir, "kustomization.yaml"), "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [base]\npatches: [{path: mesh.yaml}]\nimages: [{name: docker.io/library/slicewire, newTag: test}]\n")
	c.Must(t, "apply", "-k", dir)
	c.Rollout(t, rigSpace, "statefulset/slicewire")
	x.connected(t, "slicewire-0")
	unprivileged(t, c, 1)
	if s, err := x.statusOf(t.Context(), 1, "slicewire-0"); err != nil || !s.Gossip.Leaf || !s.Gateway {
		t.Errorf("who only dials is to be a leaf that is a gateway: leaf %v, gateway %v, %v", s.Gossip.Leaf, s.Gateway, err)
	}
	x.manifests[1] = c.Must(t, "kustomize", dir)
	x.removed(t, 1)
	nothingLeft(t, c, before)
}
