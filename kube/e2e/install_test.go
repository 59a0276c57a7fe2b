package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
)

// An installation is what a test knows of a mesh that was installed as operators
// do it.
type installation struct {
	rig       *kubetest.Rig
	sites     []string
	authority authority // of the mesh
	manifest  string    // file with KubeSlice's example of a slice
	issuer    string    // host:port
	gossip    string
	manifests [2]string // what was applied to each cluster
}

// generate prints manifests for a site as `slicewire generate manifests` does.
func generate(t *testing.T, args ...string) string {
	t.Helper()
	out, said, code := run(t, "", append([]string{"generate", "manifests", "--set", "image.tag=test", "--set", "mesh.name=rig"}, args...)...)
	if code != 0 {
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
	x := &installation{rig: rig, sites: []string{"worker-1", "worker-2"}, manifest: filepath.Join(dir, "manifests", "slices.yaml")}
	if err := os.Mkdir(filepath.Join(dir, "manifests"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x.manifest, []byte(kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	x.authority = newAuthority(t, dir)
	host := rig.Clusters[0].Must(t, "get", "nodes", "-o", `jsonpath={.items[0].status.addresses[?(@.type=="InternalIP")].address}`)
	x.issuer, x.gossip = host+":31820", host+":31830"
	return x, dir
}

// first installs the gateway of the first cluster, with more values than it needs.
func (x *installation) first(t *testing.T, dir string, more ...string) {
	t.Helper()
	state := filepath.Join(dir, "first")
	x.authority.certify(t, x.manifest, "worker-1", "slicewire-0", state)
	x.authority.intermediate(t, x.manifest, state, x.sites...)
	secret, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]string{"name": "first", "namespace": rigSpace}, "data": secretOf(t, state)})
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
	return []string{"--set-file", "mesh.authority=" + x.authority.cert(), "--set", "mesh.issuers=" + x.issuer, "--set", "mesh.gateways=" + x.gossip}
}

// status asks the gateway of a cluster.
func (x *installation) status(ctx context.Context, cluster int) (api.Status, error) {
	return x.statusOf(ctx, cluster, "slicewire-0")
}

func (x *installation) statusOf(ctx context.Context, cluster int, pod string) (s api.Status, err error) {
	text, err := x.rig.Clusters[cluster].ExecErr(ctx, rigSpace, pod, "/slicewire", "status", "--socket", "/state/slicewire.sock", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &s)
	}
	return s, err
}

// installTime is how long the installation of two clusters may take.
const installTime = time.Minute

// Two clusters are installed with what `slicewire generate manifests` prints,
// under PodSecurity restricted; the second one's gateway joins with nothing but
// its pod's token, and the sites are connected through NodePorts. Uninstalling
// leaves nothing. Then the second cluster is installed by Helm and by kustomize, in
// other flavours, each time to the same end.
func TestInstallations(t *testing.T) { // alone: what it loses while it upgrades is counted
	rig := kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 1})
	rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t))
	began := time.Now()
	before := settledObjects(t, rig.Clusters[1])
	x := install(t, rig)
	x.connected(t, "slicewire-0")
	took := time.Since(began)
	t.Logf("installed and connected after %v", took.Round(100*time.Millisecond))
	if took > installTime {
		t.Errorf("two clusters are installed and connected after %v, want %v at most", took, installTime)
	}
	for _, c := range rig.Clusters {
		unprivileged(t, c, 1)
	}
	if out, err := rig.Clusters[1].ExecErr(t.Context(), rigSpace, "slicewire-0", "/slicewire", "await", "slicewire-ready."+rigSpace+".svc:7946"); err != nil {
		t.Errorf("what helm test does: %s, %v", out, err)
	}
	x.sidecar(t)
	x.removed(t, 1)
	nothingLeft(t, rig.Clusters[1], before)
	t.Run("Helm", x.helm)
	t.Run("flavours", x.flavours)
}

// removed uninstalls a cluster without Helm, as the documentation says.
func (x *installation) removed(t *testing.T, cluster int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c := x.rig.Clusters[cluster]
	if out, err := c.Kubectl(ctx, x.manifests[cluster], "delete", "-f", "-", "--wait"); err != nil {
		t.Fatalf("uninstall: %s %v", out, err)
	}
	if out, said, code := run(t, "", "uninstall", "--kubeconfig", c.Kubeconfig); code != 0 {
		t.Fatalf("uninstall: %s %s", out, said)
	}
}

// connected waits until the second cluster has a tunnel to the first.
func (x *installation) connected(t *testing.T, pod string) {
	t.Helper()
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		s, err := x.statusOf(ctx, 1, pod)
		if err != nil {
			return err
		}
		if len(s.Slices) != 1 || len(s.Slices[0].Peers) == 0 || s.Slices[0].Peers[0].LastHandshake == nil {
			return fmt.Errorf("slices %+v, members %+v", s.Slices, s.Gossip)
		}
		return nil
	})
}

// unprivileged checks what runs in slicewire's namespace of a cluster: a container
// for each gateway and nothing else, none of which has or could have a privilege.
func unprivileged(t *testing.T, c *kubetest.Cluster, gateways int) {
	t.Helper()
	var list struct {
		Items []struct {
			Spec struct {
				HostNetwork, HostPID, HostIPC bool
				Containers                    []struct {
					SecurityContext struct{ Privileged, AllowPrivilegeEscalation *bool }
				}
				Volumes []map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(c.Must(t, "-n", rigSpace, "get", "pods", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	containers := 0
	for i := range list.Items {
		s := &list.Items[i].Spec
		containers += len(s.Containers)
		if s.HostNetwork || s.HostPID || s.HostIPC {
			t.Errorf("%s: a pod is in a namespace of its host", c.Name)
		}
		for _, x := range s.Containers {
			if p, e := x.SecurityContext.Privileged, x.SecurityContext.AllowPrivilegeEscalation; p != nil && *p || e == nil || *e {
				t.Errorf("%s: a container has a privilege, or may get it", c.Name)
			}
		}
		for _, v := range s.Volumes {
			if v["hostPath"] != nil {
				t.Errorf("%s: a pod has %v", c.Name, v)
			}
		}
	}
	if containers != gateways {
		t.Errorf("%s: %d containers for %d gateways, want one for each", c.Name, containers, gateways)
	}
	if level := c.Must(t, "get", "namespace", rigSpace, "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); level != "restricted" {
		t.Errorf("%s: PodSecurity of the namespace is %q", c.Name, level)
	}
}

// nothingLeft waits until a cluster is as it was before.
func nothingLeft(t *testing.T, c *kubetest.Cluster, before map[string]string) {
	t.Helper()
	kubetest.Eventually(t, patience, func(context.Context) error {
		var differ []string
		now := objectsOf(t, c)
		for name, state := range now {
			if was, there := before[name]; !there || was != state {
				differ = append(differ, "+"+name+" "+state)
			}
		}
		for name, state := range before {
			if is, there := now[name]; !there || is != state {
				differ = append(differ, "-"+name+" "+state)
			}
		}
		if len(differ) > 0 {
			return fmt.Errorf("uninstalling changes %q", differ)
		}
		return nil
	})
}

var sidecarPods = kubetest.Restricted("iperf") + kubetest.Pods("iperf", "app", "peer", "serve", ":8080")

// sidecar puts a sidecar into a Deployment of the second cluster, in a namespace
// whose pods may be nodes, under PodSecurity restricted. What its pod serves has
// an address on the slice, which the gateway of the first cluster hears of.
func (x *installation) sidecar(t *testing.T) {
	t.Helper()
	in := sidecar{authority: x.authority, manifest: x.manifest, site: "worker-2", slice: "iperf-slice", issuer: x.issuer, gateway: x.gossip, publish: []string{"app=8080"}}
	out, said := in.inject(t, sidecarPods)
	if said != "Deployment/app\n" {
		t.Errorf("injected %q", said)
	}
	c := x.rig.Clusters[1]
	began := time.Now()
	c.Apply(t, out)
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

// settledObjects is objectsOf, when the cluster itself makes no more of them.
func settledObjects(t *testing.T, c *kubetest.Cluster) (last map[string]string) {
	t.Helper()
	kubetest.Eventually(t, patience, func(context.Context) error {
		now := objectsOf(t, c)
		if maps.Equal(last, now) {
			return nil
		}
		last = now
		return errors.New("there are still more of its objects")
	})
	return last
}

// objectsOf lists all objects of a cluster by kind and name, with the labels and
// annotations of those that slicewire may write into. What is made and goes by
// itself, as events do, is left out.
func objectsOf(t *testing.T, c *kubetest.Cluster) map[string]string {
	t.Helper()
	kinds := strings.Join(slices.DeleteFunc(strings.Fields(c.Must(t, "api-resources", "--verbs=list", "-o", "name")), func(k string) bool {
		return strings.HasPrefix(k, "events") || k == "componentstatuses"
	}), ",")
	var list struct {
		Items []struct {
			APIVersion, Kind string
			Metadata         struct {
				Namespace, Name     string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := json.Unmarshal([]byte(c.Must(t, "get", kinds, "-A", "--ignore-not-found", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string, len(list.Items))
	for i := range list.Items {
		x := &list.Items[i]
		state := ""
		if x.Metadata.Namespace == "kube-node-lease" || x.Kind == "CSINode" {
			continue // a kubelet's, which makes them when it gets round to it
		}
		if x.Kind == "Namespace" {
			delete(x.Metadata.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
			state = fmt.Sprint(x.Metadata.Labels, x.Metadata.Annotations)
		}
		out[strings.Join([]string{x.APIVersion, x.Kind, x.Metadata.Namespace, x.Metadata.Name}, " ")] = state
	}
	return out
}
