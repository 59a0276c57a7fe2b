package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
	"slicewire/overlay"
)

// The parts of TestMultiClusterServices, which have one rig.

// toldServices is a service whose server reads the PROXY protocol.
var toldServices = kubetest.Servers("iperf", "told", 1, "proxied") + `
---
apiVersion: v1
kind: Service
metadata: {name: told, namespace: iperf}
spec: {selector: {app: told}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: told, namespace: iperf, annotations: {slicewire.io/proxy-protocol: v2}}
`

// inClient runs a command in the pod of tools of a cluster until it says what is
// wanted.
func (m *rigMesh) inClient(t *testing.T, cluster int, want string, command ...string) {
	t.Helper()
	kubetest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
		said, err := m.rig.Clusters[cluster].ExecErr(ctx, "iperf", "deployment/client", command...)
		if said = strings.TrimSpace(said); said != want {
			return fmt.Errorf("%v: %q, want %q (%w)", command, said, want, err)
		}
		return nil
	})
}

// serviceNames asks, in a pod of the other cluster, for every kind of record, and
// then speaks to what SRV records lead to.
func (m *rigMesh) serviceNames(t *testing.T) {
	m.inClient(t, 1, "1.0.0", "peer", "txt", "dns-version.clusterset.local")
	for _, zone := range []string{overlay.ClusterSetZone, overlay.Zone} {
		m.inClient(t, 1, "80 echo.iperf.svc."+zone+".", "peer", "srv", "_tcp._tcp.echo.iperf.svc."+zone)
		m.inClient(t, 1, "80 echo.iperf.svc."+zone+".", "peer", "srv", "_udp._udp.echo.iperf.svc."+zone)
		db := "worker-1.db.iperf.svc." + zone + "."
		m.inClient(t, 1, "8080 db-0."+db+"\n8080 db-1."+db, "peer", "srv", "_tcp._tcp.db.iperf.svc."+zone)
		if who := m.answered(t, 1, "tcp", "db-1."+db+":8080"); who != "db-1" {
			t.Errorf("where an SRV record leads answers %s, want db-1", who)
		}
	}
	m.inClient(t, 1, "", "peer", "lookup", "worker-1.db.iperf.svc.clusterset.local.") // it has no records, but names below it
	for _, name := range []string{
		"worker-1.echo.iperf.svc.clusterset.local", // all of one cluster
		"echo-0.worker-1.echo.iperf.svc.clusterset.local", "nobody.iperf.svc.clusterset.local",
		"_other._tcp.echo.iperf.svc.clusterset.local",
	} {
		said, err := m.rig.Clusters[1].ExecErr(t.Context(), "iperf", "deployment/client", "nslookup", "-type=a", name+".")
		if err == nil || !strings.Contains(said+err.Error(), "NXDOMAIN") {
			t.Errorf("%s is answered %q, %v, want NXDOMAIN", name, said, err)
		}
	}
}

// addressOfTheService checks that the cluster's own DNS names the clusterset IP,
// by the Service that stands for the import: there is no need for another PTR
// record.
func (m *rigMesh) addressOfTheService(t *testing.T) {
	two := m.rig.Clusters[1]
	ip := two.Must(t, "get", "serviceimports.multicluster.x-k8s.io", "-n", "iperf", "echo", "-o", "jsonpath={.spec.ips[0]}")
	m.inClient(t, 1, ip, "peer", "lookup", "echo.iperf.svc.clusterset.local")
	said := two.Exec(t, "iperf", "deployment/client", "nslookup", ip)
	if !strings.Contains(said, "slicewire-") || !strings.Contains(said, ".iperf.svc.cluster.local") {
		t.Errorf("%s is called %q", ip, said)
	}
}

// clientsOfServices checks whom servers see: the slicewire pod of their cluster,
// and by the PROXY protocol the node by which the client came onto the slice.
func (m *rigMesh) clientsOfServices(t *testing.T) {
	one, two := m.rig.Clusters[0], m.rig.Clusters[1]
	one.Apply(t, toldServices)
	one.Rollout(t, "iperf", "deployment/told")
	m.answered(t, 1, "tcp", "told.iperf.svc.clusterset.local:80")
	door := m.status(t, 1).Slices[0].Address.String()
	pod := one.Must(t, "get", "pods", "-n", rigSpace, "-l", "app=slicewire", "-o", "jsonpath={.items[0].status.podIP}")
	for name, want := range map[string]string{"echo": pod, "told": door} {
		said := two.Exec(t, "iperf", "deployment/client", "peer", "ask", "tcp", name+".iperf.svc.clusterset.local:80", "hello")
		f := strings.Fields(said)
		if len(f) != 3 {
			t.Fatalf("%s says %q", name, said)
		}
		if at, err := netip.ParseAddrPort(f[1]); err != nil || at.Addr().String() != want {
			t.Errorf("%s sees %s as its client, want %s", name, f[1], want)
		}
	}
	one.Apply(t, strings.ReplaceAll(toldServices, "proxy-protocol: v2", "proxy-protocol: v9"))
	kubetest.Eventually(t, 30*time.Second, func(ctx context.Context) error {
		said, err := one.Kubectl(ctx, "", "get", "serviceexports.multicluster.x-k8s.io", "-n", "iperf", "told", "-o", `jsonpath={.status.conditions[?(@.type=="Valid")].message}`)
		if err == nil && !strings.Contains(said, `is v2, not "v9"`) {
			err = fmt.Errorf("an export with another version says %q", said)
		}
		return err
	})
}

// rightsOfServices checks who may write ServiceImports, and that no EndpointSlice
// claims to be one of an import: those of derived Services are these'.
func (m *rigMesh) rightsOfServices(t *testing.T) {
	two := m.rig.Clusters[1]
	two.Must(t, "create", "rolebinding", "dev", "-n", "iperf", "--clusterrole=admin", "--user=dev")
	try := func(args ...string) string {
		said, err := two.Kubectl(t.Context(), "", append([]string{"-n", "iperf"}, args...)...)
		if err != nil {
			said += err.Error()
		}
		return said
	}
	if said := try("--as=dev", "delete", "serviceimports.multicluster.x-k8s.io", "echo"); !strings.Contains(said, "orbidden") {
		t.Errorf("a namespace's administrator removes an import: %s", said)
	}
	if said := try("--as=dev", "get", "pods"); strings.Contains(said, "orbidden") {
		t.Errorf("the binding does not work: %s", said)
	}
	daemon := "--as=system:serviceaccount:" + rigSpace + ":slicewire"
	if said := strings.TrimSpace(try("auth", "can-i", "patch", "serviceimports.multicluster.x-k8s.io", daemon)); said != "yes" {
		t.Errorf("the daemon may write imports: %s", said)
	}
	if said := try("auth", "can-i", "get", "secrets", daemon); !strings.HasPrefix(said, "no") {
		t.Errorf("the daemon may read Secrets: %s", said)
	}
	if said := two.Must(t, "get", "endpointslices", "-A", "-l", "multicluster.kubernetes.io/service-name", "-o", "name"); said != "" {
		t.Errorf("EndpointSlices claim to be of imports, without what the API wants of these: %s", said)
	}
	if said := two.Must(t, "get", "endpointslices", "-n", "iperf", "-l", "app.kubernetes.io/managed-by=slicewire", "-o", "name"); len(strings.Fields(said)) < 4 {
		t.Errorf("EndpointSlices of derived Services: %q, want those of echo, db and two pods at least", said)
	}
}

// servicesOfALostCluster ends the gateway of cluster 1: what is there has no names
// any more in cluster 2.
func (m *rigMesh) servicesOfALostCluster(t *testing.T) {
	one := m.rig.Clusters[0]
	const db0, db = "db-0.worker-1.db.iperf.svc.clusterset.local", "db.iperf.svc.clusterset.local"
	if who := m.answered(t, 1, "tcp", db0+":8080"); who != "db-0" {
		t.Fatalf("%s answers", who)
	}
	one.Must(t, "-n", rigSpace, "scale", "deployment/slicewire", "--replicas=0")
	one.Must(t, "-n", rigSpace, "delete", "pods", "-l", "app=slicewire", "--force", "--grace-period=0", "--ignore-not-found")
	for _, name := range []string{db0, db} {
		m.inClient(t, 1, "", "peer", "lookup", name)
	}
}
