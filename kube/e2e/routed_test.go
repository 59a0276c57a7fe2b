package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
)

// podsOfTwo is where pods of the rig's second cluster are.
const podsOfTwo = "10.241.0.0/16"

// routedNode is what a node of a site in the network of a cluster's node, with a
// device there, goes by.
const routedNode = `
apiVersion: v1
kind: Secret
metadata: {name: identity-n2, namespace: slicewire-system}
data: %s
---
apiVersion: v1
kind: ConfigMap
metadata: {name: config-n2, namespace: slicewire-system}
data: %s
`

const routedConfig = `version: 1
mesh: rig
site: worker-2
node: n2
state: /state/s
socket: /state/sock
advertise: ["${POD_IP}:51820"]
manifests: [/config/slice.yaml]
gossip: {join: ["%s:7946"]}
kubernetes:
  cluster: {dns: "0.0.0.0:1054", linger: 2s, routed: true}
routes:
- {slice: %s, prefix: %s, via: /proc/1/ns/net/sw0}
`

// routedServices gives cluster 2 a way to the slice by its node: pods are told
// addresses of the slice, and servers of cluster 1 are told of the pod itself.
func (m *rigMesh) routedServices(t *testing.T) {
	two := m.rig.Clusters[1]
	two.Must(t, "label", "namespace", rigSpace, "pod-security.kubernetes.io/enforce=privileged", "--overwrite")
	state := filepath.Join(m.dir, "n2")
	manifest := filepath.Join(m.dir, "routed.yaml")
	if err := os.WriteFile(manifest, []byte(m.slice), 0o600); err != nil {
		t.Fatal(err)
	}
	m.authority.certify(t, manifest, "worker-2", "n2", state, "--index", "1", "--no-gateway")
	slice := m.status(t, 1).Slices[0]
	config := map[string]string{"node.yaml": fmt.Sprintf(routedConfig, m.gateways[1], slice.Name, podsOfTwo), "slice.yaml": m.slice}
	two.Apply(t, fmt.Sprintf(routedNode, inline(t, secretOf(t, state)), inline(t, config))+rigGateway("routed", "-n2", true))
	two.Rollout(t, rigSpace, "deployment/routed")
	two.Exec(t, rigSpace, "deployment/routed", "/slicewire", "attach", "--socket", "/state/sock", "--slice", slice.Name, "--netns", "/proc/1/ns/net", "--name", "sw0")
	node := two.Must(t, "get", "pods", "-n", rigSpace, "-l", "app=routed", "-o", "jsonpath={.items[0].status.podIP}")
	two.Stub(t, fmt.Sprintf("slice.local:1053 {\n forward . %s:1054\n}\nclusterset.local:1053 {\n forward . %s:1054\n}\n", node, node))
	m.rig.Clusters[0].Apply(t, toldServices)

	pod := two.Must(t, "get", "pods", "-n", "iperf", "-l", "app=client", "-o", "jsonpath={.items[0].status.podIP}")
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		said, err := two.ExecErr(ctx, "iperf", "deployment/client", "peer", "lookup", "told.iperf.svc.slice.local")
		if err != nil {
			return err
		}
		first, _, _ := strings.Cut(said, "\n")
		if a, err := netip.ParseAddr(first); err != nil || !slice.Subnet.Contains(a) {
			return fmt.Errorf("the name is answered with %q, want an address of %v", said, slice.Subnet)
		}
		said, err = two.ExecErr(ctx, "iperf", "deployment/client", "peer", "ask", "tcp", first+":80", "hello")
		if f := strings.Fields(said); err != nil || len(f) != 3 || !strings.HasPrefix(f[1], pod+":") {
			return fmt.Errorf("the server says %q, want it to see %s (%w)", said, pod, err)
		}
		return nil
	})
}
