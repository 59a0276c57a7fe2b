package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
)

const chart = "../../deploy/chart/slicewire"

// helmEcho is a service that one cluster exports and pods of the other ask for.
var helmEcho = kubetest.Restricted("iperf") + kubetest.Servers("iperf", "echo", 1, "serve")

const helmExport = `
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: echo, namespace: iperf}
spec: {slice: iperf-slice, selector: {matchLabels: {app: echo}}, ports: [{name: tcp, containerPort: 8080, protocol: TCP}, {name: udp, containerPort: 8080, protocol: UDP}]}
`

// helm installs the second cluster with two gateways, tests it, changes a value,
// while pods go on reaching a service of the first cluster, and uninstalls it.
// Nothing is left then.
func (x *installation) helm(t *testing.T) {
	one, two := x.rig.Clusters[0], x.rig.Clusters[1]
	for _, c := range x.rig.Clusters {
		c.Apply(t, helmEcho)
		c.Rollout(t, "iperf", "deployment/echo")
	}
	one.Apply(t, helmExport)
	two.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+rigSpace+", labels: {pod-security.kubernetes.io/enforce: restricted}}}")
	before := settledObjects(t, two)
	values := []string{"-n", rigSpace, "--wait", "--timeout", "2m", "--set", "image.tag=test,mesh.name=rig,site=worker-2,replicas=2,crds.keep=false,cluster.linger=2s",
		"--set-file", "mesh.authority=" + x.authority.cert(), "--set", "mesh.issuers[0]=" + x.issuer, "--set", "mesh.gateways[0]=" + x.gossip,
		"--set-file", `manifests.slices\.yaml=` + x.manifest}
	began := time.Now()
	two.Helm(t, append([]string{"install", "slicewire", chart}, values...)...)
	t.Logf("installed after %v", time.Since(began).Round(100*time.Millisecond))
	unprivileged(t, two, 2)
	if said := two.Helm(t, "test", "slicewire", "-n", rigSpace, "--timeout", "2m"); !strings.Contains(said, "Succeeded") {
		t.Errorf("helm test says %s", said)
	}
	x.connected(t, "slicewire-0")

	address := ""
	kubetest.Eventually(t, patience, func(ctx context.Context) (err error) {
		address, err = two.Kubectl(ctx, "", "-n", "iperf", "get", "services", "-l", "multicluster.kubernetes.io/service-name=echo", "-o", "jsonpath={.items[0].spec.clusterIP}:{.items[0].spec.ports[0].port}")
		if err == nil {
			_, err = two.ExecErr(ctx, "iperf", "deployment/echo", "peer", "ask", "tcp", address, "hello")
		}
		return err
	})
	asked := make(chan error, 2)
	for _, network := range []string{"tcp", "udp"} {
		go func() {
			said, err := two.ExecErr(t.Context(), "iperf", "deployment/echo", "peer", "steady", network, address, "60s")
			t.Logf("%s while it is upgraded: %s", network, said)
			if err != nil {
				err = fmt.Errorf("%s while it is upgraded: %s%w", network, said, err)
			}
			asked <- err
		}()
	}
	began = time.Now()
	two.Helm(t, append([]string{"upgrade", "slicewire", chart, "--set", "logLevel=debug"}, values...)...)
	two.Rollout(t, rigSpace, "statefulset/slicewire")
	t.Logf("upgraded after %v", time.Since(began).Round(100*time.Millisecond))
	if args := two.Must(t, "-n", rigSpace, "get", "pods", "-o", "jsonpath={.items[*].spec.containers[*].args}"); strings.Count(args, "debug") != 2 {
		t.Errorf("after the upgrade pods run with %s", args)
	}
	for range 2 {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}

	began = time.Now()
	two.Helm(t, "uninstall", "slicewire", "-n", rigSpace, "--wait", "--timeout", "2m")
	t.Logf("uninstalled after %v", time.Since(began).Round(100*time.Millisecond))
	nothingLeft(t, two, before)
}
