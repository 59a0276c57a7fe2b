package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
)

// kubesliceWorker is what is in a worker's cluster of KubeSlice's: the operator,
// which does not run here, the slice, and what it has written into the namespace.
const kubesliceWorker = `
apiVersion: networking.kubeslice.io/v1beta1
kind: Slice
metadata: {name: iperf-slice, namespace: kubeslice-system}
spec: {}
---
apiVersion: v1
kind: Namespace
metadata:
  name: iperf
  labels: {kubeslice.io/slice: iperf-slice, kubeslice.io/inject: "true"}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: iperf-slice-iperf, namespace: iperf}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubeslice.io/slice: iperf-slice}}}]}]
  egress: [{to: [{namespaceSelector: {matchLabels: {kubeslice.io/slice: iperf-slice}}}]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: iperf}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata:
      labels: {app: client, kubeslice.io/pod-type: app, kubeslice.io/slice: iperf-slice}
      annotations: {kubeslice.io/status: injected, networkservicemesh.io: "kernel://vl3-service-iperf-slice/nsm0"}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: client, image: "tools:1", command: [sleep, infinity]}]
`

const kubesliceOperator = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: kubeslice-operator, namespace: kubeslice-system}
spec:
  selector: {matchLabels: {app: kubeslice-operator}}
  template:
    metadata: {labels: {app: kubeslice-operator}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: manager, image: "tools:1", command: [sleep, infinity]}]
`

// kubesliceDefinitions are KubeSlice's groups as KubeSlice has them: the kinds
// have no conditions that slicewire could write, and no rules.
func kubesliceDefinitions(t *testing.T, c *kubetest.Cluster, groups ...string) string {
	t.Helper()
	list, err := filepath.Glob("../../deploy/crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range list {
		for _, g := range groups {
			if !strings.HasSuffix(path, "."+g+".yaml") {
				continue
			}
			var d map[string]any
			text := c.Must(t, "create", "--dry-run=client", "-o", "json", "-f", path)
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				t.Fatal(err)
			}
			plain, err := json.Marshal(withoutOurs(d))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(plain))
		}
	}
	if len(out) == 0 {
		t.Fatalf("no definitions of %v", groups)
	}
	return strings.Join(out, "\n---\n")
}

// withoutOurs takes out of a definition what is slicewire's own.
func withoutOurs(v any) any {
	switch x := v.(type) {
	case map[string]any:
		delete(x, "conditions")
		delete(x, "x-kubernetes-validations")
		for k, y := range x {
			x[k] = withoutOurs(y)
		}
	case []any:
		for i, y := range x {
			x[i] = withoutOurs(y)
		}
	}
	return v
}

// kubeslice puts KubeSlice into both clusters: its definitions and its operator as
// a release of Helm's, and its objects. The first cluster is the hub, too.
func (x *installation) kubeslice(t *testing.T) {
	t.Helper()
	one := x.rig.Clusters[0]
	chart := filepath.Join(t.TempDir(), "kubeslice-worker")
	if err := os.MkdirAll(filepath.Join(chart, "templates"), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(chart, "Chart.yaml"), "apiVersion: v2\nname: kubeslice-worker\nversion: 1.0.0\n")
	writeFile(t, filepath.Join(chart, "templates", "crds.yaml"), kubesliceDefinitions(t, one, "networking.kubeslice.io"))
	writeFile(t, filepath.Join(chart, "templates", "operator.yaml"), kubesliceOperator)
	one.Apply(t, kubesliceDefinitions(t, one, "controller.kubeslice.io", "worker.kubeslice.io"))
	one.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: kubeslice-demo}}")
	one.Must(t, "wait", "--for=condition=Established", "crd/clusters.controller.kubeslice.io", "crd/sliceconfigs.controller.kubeslice.io")
	one.Apply(t, kubesliceClusters)
	one.Apply(t, kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))
	for _, c := range x.rig.Clusters {
		c.Helm(t, "install", "kubeslice-worker", chart, "-n", "kubeslice-system", "--create-namespace", "--wait")
		c.Must(t, "wait", "--for=condition=Established", "crd/slices.networking.kubeslice.io", "crd/serviceexports.networking.kubeslice.io")
		c.Apply(t, kubesliceWorker)
		c.Rollout(t, "iperf", "deployment/client")
	}
	one.Apply(t, kubesliceExample(t, "08-iperf-server-deploy-and-serviceexport.yaml"))
	one.Rollout(t, "iperf", "deployment/iperf-server")
}

// Two clusters with KubeSlice move to slicewire as docs/migrate-from-kubeslice.md
// says, block by block.
func TestTheMigrationAsItIsWritten(t *testing.T) {
	t.Parallel()
	x := &installation{rig: kubetest.Start(t, kubetest.Options{Clusters: 2, Nodes: 1})}
	x.rig.Add(t, kubetest.Tools(t))
	image := kubetest.Slicewire(t)
	image.Names = []string{"docker.io/library/slicewire:0.1.0"} // as the manifests name it
	x.rig.Add(t, image, kubetest.Iperf(t))
	x.kubeslice(t)
	one, two := x.rig.Clusters[0], x.rig.Clusters[1]
	sh := newDocShell(t, x.rig)
	blocks := shellBlocks(t, "../../docs/migrate-from-kubeslice.md")
	if len(blocks) != 7 {
		t.Fatalf("the document has %d blocks for its 7 steps", len(blocks))
	}
	reaches := func(when string) {
		t.Helper()
		kubetest.Eventually(t, patience, func(ctx context.Context) error {
			_, err := two.ExecErr(ctx, "iperf", "deployment/client", firstByte("iperf-server.iperf.svc.slice.local")...)
			if err != nil {
				err = fmt.Errorf("%s: %w", when, err)
			}
			return err
		})
	}
	for i, block := range blocks {
		began := time.Now()
		said := sh.run(t, block)
		t.Logf("step %d took %v", i+1, time.Since(began).Round(100*time.Millisecond))
		switch i + 1 {
		case 4:
			if !strings.Contains(said, "iperf-slice") {
				t.Errorf("the status says\n%s", said)
			}
			if made := two.Must(t, "get", "services,networkpolicies", "-A", "-l", "app.kubernetes.io/managed-by=slicewire", "-o", "name"); made != "" {
				t.Errorf("beside KubeSlice it has made %s", made)
			}
		case 6:
			for j, c := range x.rig.Clusters {
				text, err := os.ReadFile(filepath.Join(sh.dir, fmt.Sprintf("worker-%d.corefile", j+1)))
				if err != nil {
					t.Fatal(err)
				}
				c.Stub(t, strings.ReplaceAll(string(text), ":53 {", ":1053 {")) // where the rig's listens
			}
			reaches("beside KubeSlice")
			for _, c := range x.rig.Clusters {
				if made := c.Must(t, "get", "slices,slicegateways", "-A", "-l", "app.kubernetes.io/managed-by=slicewire", "-o", "name"); made != "" {
					t.Errorf("beside KubeSlice's operator there is %s", made)
				}
			}
		case 7:
			kubetest.Eventually(t, patience, func(ctx context.Context) error {
				said, err := one.Kubectl(ctx, "", "-n", "iperf", "get", "serviceexports.networking.kubeslice.io", "iperf-server", "-o", "jsonpath={.status.exportStatus}")
				if err == nil && said != "READY" {
					err = fmt.Errorf("the export that was put back is %q", said)
				}
				return err
			})
			reaches("without KubeSlice")
			x.seesSlices(t)
		}
	}
	for _, c := range []*kubetest.Cluster{one, two} {
		if left := c.Must(t, "-n", "kubeslice-system", "get", "deployments", "-o", "name"); left != "" {
			t.Errorf("of KubeSlice %s is left", left)
		}
	}
}

// seesSlices waits until both clusters have what KubeSlice's users look at, with the
// tunnel up.
func (x *installation) seesSlices(t *testing.T) {
	t.Helper()
	for i, gateway := range []string{"iperf-slice-worker-1-worker-2", "iperf-slice-worker-2-worker-1"} {
		kubetest.Eventually(t, patience, func(ctx context.Context) error {
			const want = "iperf-slice Slice [iperf] "
			said, err := x.rig.Clusters[i].Kubectl(ctx, "", "-n", "kubeslice-system", "get", "slices,slicegateways", "-o",
				`jsonpath={range .items[*]}{.metadata.name} {.kind} {.status.applicationNamespaces}{.status.gatewayPodStatus[*].tunnelStatus.TunnelState} {end}`)
			if said = strings.ReplaceAll(said, `"`, ""); err == nil && strings.TrimSpace(said) != want+gateway+" SliceGateway UP" {
				err = fmt.Errorf("worker-%d shows %q", i+1, said)
			}
			return err
		})
	}
}

// shellBlocks are the fenced blocks of shell of a document.
func shellBlocks(t *testing.T, path string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var block []string
	indent, inside := "", false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		switch plain := strings.TrimLeft(line, " "); {
		case !inside && plain == "```sh":
			indent, inside, block = line[:len(line)-len(plain)], true, nil
		case inside && plain == "```":
			inside = false
			out = append(out, strings.Join(block, "\n"))
		case inside:
			block = append(block, strings.TrimPrefix(line, indent))
		}
	}
	return out
}

// A docShell is a shell that has the programs and contexts that documents name.
type docShell struct {
	dir string
	in  io.WriteCloser
	out *bufio.Reader
}

const docDone = "-- the block is done --"

func newDocShell(t *testing.T, rig *kubetest.Rig) *docShell {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"kubectl", "helm"} {
		if err := os.Symlink(rig.Program(p), filepath.Join(bin, p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(program, filepath.Join(bin, "slicewire")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "kubeconfig"), contexts(t, map[string]*kubetest.Cluster{"hub": rig.Clusters[0], "worker-1": rig.Clusters[0], "worker-2": rig.Clusters[1]}))
	cmd := exec.CommandContext(t.Context(), "bash", "-e", "-o", "pipefail", "-s")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+filepath.Join(dir, "kubeconfig"), "HOME="+dir)
	s := &docShell{dir: dir}
	var err error
	if s.in, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	s.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.in.Close()
		_ = cmd.Wait() // what it said of a fault was reported
	})
	return s
}

// run runs a block, or fails the test with what it says.
func (s *docShell) run(t *testing.T, block string) string {
	t.Helper()
	if _, err := io.WriteString(s.in, "{\n"+block+"\n} < /dev/null\necho '"+docDone+"'\n"); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for {
		line, err := s.out.ReadString('\n')
		if strings.TrimSpace(line) == docDone {
			return said.String()
		}
		said.WriteString(line)
		if err != nil {
			t.Fatalf("the block\n%s\nfails:\n%s", block, said.String())
		}
	}
}

// contexts makes a kubeconfig with a context for each cluster.
func contexts(t *testing.T, clusters map[string]*kubetest.Cluster) string {
	t.Helper()
	var out struct {
		APIVersion string           `json:"apiVersion"`
		Kind       string           `json:"kind"`
		Clusters   []map[string]any `json:"clusters"`
		Users      []map[string]any `json:"users"`
		Contexts   []map[string]any `json:"contexts"`
	}
	out.APIVersion, out.Kind = "v1", "Config"
	for name, c := range clusters {
		var own struct{ Clusters, Users []map[string]any }
		if err := json.Unmarshal([]byte(c.Must(t, "config", "view", "--raw", "--flatten", "-o", "json")), &own); err != nil || len(own.Clusters) != 1 || len(own.Users) != 1 {
			t.Fatalf("kubeconfig of %s: %v", c.Name, err)
		}
		own.Clusters[0]["name"], own.Users[0]["name"] = name, name
		out.Clusters, out.Users = append(out.Clusters, own.Clusters[0]), append(out.Users, own.Users[0])
		out.Contexts = append(out.Contexts, map[string]any{"name": name, "context": map[string]string{"cluster": name, "user": name}})
	}
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
