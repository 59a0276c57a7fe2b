package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/api"
	"slicewire/kube/kubetest"
	"slicewire/overlay"
)

const rigSpace = "slicewire-system"

// A rigMesh is one gateway in a pod of each cluster of a rig, without any
// privilege, that reads KubeSlice's own example of a slice.
type rigMesh struct {
	rig   *kubetest.Rig
	sites []string // of the clusters

	authority authority
	dir       string
	slice     string   // the manifest
	gateways  []string // addresses of their pods
}

const rigDeployment = `
apiVersion: v1
kind: Namespace
metadata: {name: slicewire-system, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
%s
---
apiVersion: v1
kind: Secret
metadata: {name: identity, namespace: slicewire-system}
data: %s
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config, namespace: slicewire-system}
data: %s
---
apiVersion: v1
kind: Service
metadata: {name: slicewire-dns, namespace: slicewire-system}
spec:
  selector: {app: slicewire}
  ports:
  - {name: udp, port: 53, targetPort: 1053, protocol: UDP}
  - {name: tcp, port: 53, targetPort: 1053}
`

// rigGateway is a Deployment of one gateway whose identity and config are the Secret
// and the ConfigMap with what follows their names. Of a node, it has the network
// of its node and may do anything there.
func rigGateway(name, suffix string, ofNode bool) string {
	pod, first, rest := "securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}",
		"{allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}", "{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}"
	if ofNode {
		pod, first, rest = "hostNetwork: true", "{runAsUser: 0}", "{privileged: true, runAsUser: 0}"
	}
	return fmt.Sprintf(`
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: slicewire-system}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      serviceAccountName: slicewire
      terminationGracePeriodSeconds: 1
      %[3]s
      volumes:
      - {name: state, emptyDir: {medium: Memory}}
      - {name: identity, secret: {secretName: identity%[2]s}}
      - {name: config, configMap: {name: config%[2]s}}
      initContainers:
      - name: identity
        image: tools:1
        command: [sh, -c, "umask 077 && mkdir /state/s && cp -L /identity/* /state/s/"]
        securityContext: %[4]s
        volumeMounts: [{name: state, mountPath: /state}, {name: identity, mountPath: /identity}]
      containers:
      - name: slicewire
        image: slicewire:test
        args: [daemon, --config, /config/node.yaml]
        env:
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        securityContext: %[5]s
        volumeMounts: [{name: state, mountPath: /state}, {name: config, mountPath: /config}]
        readinessProbe: {exec: {command: [/slicewire, status, --socket, /state/sock]}, periodSeconds: 1}
`, name, suffix, pod, first, rest)
}

const rigNode = `version: 1
mesh: rig
site: %s
node: gw
state: /state/s
socket: /state/sock
manifests: [/config/slice.yaml]
gossip: {join: [%s]}
kubernetes:
  cluster: {dns: "0.0.0.0:1053", linger: 2s}
`

// startRig brings two clusters up and a mesh on them, with KubeSlice's example of
// a slice.
func startRig(t *testing.T, nodes int) *rigMesh {
	t.Helper()
	return startRigWith(t, nodes, kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))
}

func startRigWith(t *testing.T, nodes int, slice string) *rigMesh {
	t.Helper()
	return startRigOf(t, kubetest.Options{Nodes: nodes}, slice)
}

func startRigOf(t *testing.T, o kubetest.Options, slice string) *rigMesh {
	t.Helper()
	o.Clusters = 2
	m := &rigMesh{rig: kubetest.Start(t, o), sites: []string{"worker-1", "worker-2"}}
	m.rig.Add(t, kubetest.Slicewire(t), kubetest.Tools(t), kubetest.Iperf(t))
	dir := t.TempDir()
	manifest := filepath.Join(dir, "slice.yaml")
	if err := os.WriteFile(manifest, []byte(slice), 0o600); err != nil {
		t.Fatal(err)
	}
	m.authority, m.dir, m.slice = newAuthority(t, dir), dir, slice
	rights, err := os.ReadFile("../../deploy/rbac/cluster.yaml")
	if err != nil {
		t.Fatal(err)
	}
	join := ""
	for i, site := range m.sites {
		c := m.rig.Clusters[i]
		c.Must(t, "apply", "--server-side", "-f", "../../deploy/crds")
		state := filepath.Join(dir, site)
		m.authority.certify(t, manifest, site, "gw", state)
		config := map[string]string{"node.yaml": fmt.Sprintf(rigNode, site, join), "slice.yaml": slice}
		c.Apply(t, fmt.Sprintf(rigDeployment, rights, inline(t, secretOf(t, state)), inline(t, config))+rigGateway("slicewire", "", false))
		c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: iperf}}")
		c.Rollout(t, rigSpace, "deployment/slicewire")
		ip := c.Must(t, "get", "pods", "-n", rigSpace, "-l", "app=slicewire", "-o", "jsonpath={.items[0].status.podIP}")
		join = `"` + ip + `:7946"`
		m.gateways = append(m.gateways, ip)
		dns := c.Must(t, "get", "service", "-n", rigSpace, "slicewire-dns", "-o", "jsonpath={.spec.clusterIP}")
		c.Stub(t, fmt.Sprintf("slice.local:1053 {\n forward . %s\n}\nclusterset.local:1053 {\n forward . %s\n}\n", dns, dns))
	}
	return m
}

// kubesliceExample returns one of KubeSlice's examples, with local images that
// nobody has to fetch.
func kubesliceExample(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../overlay/manifest/testdata/kubeslice-examples", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(b), "imagePullPolicy: Always", "imagePullPolicy: IfNotPresent")
}

// secretOf returns the files of a folder in base64.
func secretOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]string)
	for _, f := range list {
		b, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out[f.Name()] = base64.StdEncoding.EncodeToString(b)
	}
	return out
}

func inline(t *testing.T, m map[string]string) string {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// client runs a pod of tools in a namespace of a cluster.
func (m *rigMesh) client(t *testing.T, cluster int, namespace string) {
	t.Helper()
	c := m.rig.Clusters[cluster]
	c.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Namespace
metadata: {name: %s}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: %s}
spec:
  selector: {matchLabels: {app: client}}
  template:
    metadata: {labels: {app: client}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: client, image: "tools:1", command: [sleep, "3600"]}]
`, namespace, namespace))
	c.Rollout(t, namespace, "deployment/client")
}

// firstByte returns a shell command that speaks to an iperf server until that
// says something.
func firstByte(name string) []string {
	return []string{"sh", "-c", `until [ "$(printf %037d 0 | nc -w 2 ` + name + ` 5201 2>/dev/null | head -c 1 | wc -c)" = 1 ]; do sleep 0.05; done`}
}

// status asks the daemon of a cluster.
func (m *rigMesh) status(t *testing.T, cluster int) (s api.Status) {
	t.Helper()
	said := m.rig.Clusters[cluster].Exec(t, rigSpace, "deployment/slicewire", "/slicewire", "status", "--socket", "/state/sock", "-o", "json")
	if err := json.Unmarshal([]byte(said), &s); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	return s
}

// An unmodified pod in cluster 2 reaches what KubeSlice's own example exports
// from cluster 1, by both its names, within five seconds of the export; a pod
// whose namespace the slice does not bind does not.
func TestPodsReachServicesOfTheOtherCluster(t *testing.T) {
	t.Parallel()
	m := startRig(t, 1)
	one, two := m.rig.Clusters[0], m.rig.Clusters[1]
	m.client(t, 1, "iperf")
	m.client(t, 1, "stranger")
	example := kubesliceExample(t, "08-iperf-server-deploy-and-serviceexport.yaml")
	server, export, ok := strings.Cut(example, "\n---\n")
	if !ok {
		t.Fatal("the example has another form")
	}
	one.Apply(t, server)
	one.Rollout(t, "iperf", "deployment/iperf-server")

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	heard := make(chan error, 1)
	go func() {
		_, err := two.ExecErr(ctx, "iperf", "deployment/client", firstByte("iperf-server.iperf.svc.slice.local")...)
		heard <- err
	}()
	began := time.Now()
	one.Apply(t, export)
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	took := time.Since(began)
	t.Logf("from the export to the first byte: %v", took)
	if took > 5*time.Second {
		t.Errorf("the first byte came %v after the export, want 5 s at most", took)
	}
	two.Exec(t, "iperf", "deployment/client", firstByte("iperf-server.iperf.svc.clusterset.local")...)

	if said, err := two.ExecErr(ctx, "stranger", "deployment/client", "sh", "-c", "printf %037d 0 | nc -w 2 iperf-server.iperf.svc.slice.local 5201 | wc -c"); err != nil || strings.TrimSpace(said) != "0" {
		t.Errorf("a pod of a namespace that is not bound hears %q, %v", said, err)
	}
	if n := m.status(t, 1).Slices[0].Drops[overlay.DropUnbound.String()]; n == 0 {
		t.Error("who was turned away is not counted")
	}
	for i := range m.sites { // with the rights that are shipped
		if c := m.status(t, i).Cluster; c == nil || !c.Synced || c.Fault != "" {
			t.Errorf("the part of cluster %d: %+v", i+1, c)
		}
		if said := m.rig.Clusters[i].Must(t, "logs", "-n", rigSpace, "deployment/slicewire"); strings.Contains(said, "forbidden") {
			t.Errorf("cluster %d denies something: %s", i+1, said)
		}
	}
}
