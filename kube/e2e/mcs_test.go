package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
)

// mcsServices are a service with an address and a headless one of a StatefulSet,
// both exported by the Multi-Cluster Services API.
var mcsServices = kubetest.Servers("iperf", "echo", 1, "serve") + `
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: iperf}
spec: {selector: {app: echo}, ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: iperf}
spec:
  serviceName: db
  replicas: 2
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{name: db, image: "tools:1", command: [peer, serve, ":8080"], readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: iperf}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: echo, namespace: iperf}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: db, namespace: iperf}
`

// answered waits until a name answers a pod of cluster 2, and returns who does.
func (m *rigMesh) answered(t *testing.T, cluster int, network, to string) (who string) {
	t.Helper()
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		said, err := m.rig.Clusters[cluster].ExecErr(ctx, "iperf", "deployment/client", "peer", "ask", network, to, "hello")
		f := strings.Fields(said)
		if err != nil || len(f) != 3 || f[2] != "hello" {
			return fmt.Errorf("%s %s: %q, %w", network, to, said, err)
		}
		who = f[0]
		return nil
	})
	return who
}

// The Multi-Cluster Services API between two clusters: TCP and UDP by the
// clusterset's name, in both clusters; a local service of the same name is left as
// it is; the pods of a StatefulSet by their own names; endpoints of both clusters
// behind one name; and a conflict is told to both.
func TestMultiClusterServices(t *testing.T) {
	t.Parallel()
	m := startRigWith(t, 1, strings.NewReplacer("metadata:\n", "metadata:\n  annotations: {slicewire.io/site-routes: \"worker-2="+podsOfTwo+"\"}\n",
		"isolationEnabled: true", "isolationEnabled: false").Replace(kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))) // isolation denies what is behind a route
	one, two := m.rig.Clusters[0], m.rig.Clusters[1]
	m.client(t, 0, "iperf")
	m.client(t, 1, "iperf")
	one.Apply(t, mcsServices)
	one.Rollout(t, "iperf", "deployment/echo")
	one.Rollout(t, "iperf", "statefulset/db")
	for _, network := range []string{"tcp", "udp"} {
		for cluster := range 2 {
			if who := m.answered(t, cluster, network, "echo.iperf.svc.clusterset.local:80"); !strings.HasPrefix(who, "echo-") {
				t.Errorf("%s from cluster %d is answered by %s", network, cluster+1, who)
			}
		}
	}
	for _, zone := range []string{"clusterset.local", "slice.local"} {
		for _, pod := range []string{"db-0", "db-1"} {
			if who := m.answered(t, 1, "tcp", pod+".worker-1.db.iperf.svc."+zone+":8080"); who != pod {
				t.Errorf("%s in %s is %s", pod, zone, who)
			}
		}
	}
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		said, err := two.ExecErr(ctx, "iperf", "deployment/client", "peer", "lookup", "db.iperf.svc.clusterset.local")
		if err == nil && len(strings.Fields(said)) != 2 {
			err = fmt.Errorf("a headless service has the addresses %q, want those of its two pods", said)
		}
		return err
	})
	t.Run("names", m.serviceNames)
	t.Run("address", m.addressOfTheService)
	t.Run("clients", m.clientsOfServices)
	t.Run("rights", m.rightsOfServices)
	if ip := two.Must(t, "get", "serviceimports.multicluster.x-k8s.io", "-n", "iperf", "echo", "-o", "jsonpath={.spec.ips[0]} {.spec.type}"); !strings.HasSuffix(ip, " ClusterSetIP") || strings.HasPrefix(ip, " ") {
		t.Errorf("the import has %q", ip)
	}

	// The same service in the other cluster, under another port: a conflict, and the
	// older one stands.
	two.Apply(t, kubetest.Servers("iperf", "echo", 1, "serve"))
	two.Apply(t, `
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: iperf}
spec: {selector: {app: echo}, ports: [{name: tcp, port: 81, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: echo, namespace: iperf}
`)
	two.Rollout(t, "iperf", "deployment/echo")
	for i, c := range m.rig.Clusters {
		kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
			said, err := c.Kubectl(ctx, "", "get", "serviceexports.multicluster.x-k8s.io", "-n", "iperf", "echo", "-o", `jsonpath={.status.conditions[?(@.type=="Conflict")].reason}`)
			if err == nil && said != "PortConflict" {
				err = fmt.Errorf("the export of cluster %d says %q", i+1, said)
			}
			return err
		})
	}
	if who := m.answered(t, 1, "tcp", "echo.iperf.svc.cluster.local:81"); !strings.HasPrefix(who, "echo-") {
		t.Errorf("the local service is answered by %s", who)
	}
	ours := two.Pods(t, "iperf", "app=echo")[0]
	answers := make(map[string]bool)
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		said, _ := two.ExecErr(ctx, "iperf", "deployment/client", "peer", "ask", "udp", "echo.iperf.svc.clusterset.local:80", "hello")
		if f := strings.Fields(said); len(f) > 0 {
			answers[f[0]] = true
		}
		if len(answers) < 2 || !answers[ours] {
			return fmt.Errorf("answered by %v, want pods of both clusters", answers)
		}
		return nil
	})

	one.Must(t, "delete", "serviceexports.multicluster.x-k8s.io", "-n", "iperf", "echo")
	two.Must(t, "delete", "serviceexports.multicluster.x-k8s.io", "-n", "iperf", "echo")
	for i, c := range m.rig.Clusters {
		kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
			said, err := c.Kubectl(ctx, "", "get", "serviceimports.multicluster.x-k8s.io", "-n", "iperf", "-o", "name")
			if err == nil && strings.Contains(said, "echo") {
				err = fmt.Errorf("cluster %d still imports it: %q", i+1, said)
			}
			return err
		})
	}
	t.Run("routed", m.routedServices)
	t.Run("unreached", m.servicesOfALostCluster)
}
