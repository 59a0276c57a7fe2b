package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/kube/kubetest"
)

// dualServices are one pod behind a Service of both families and another, which
// listens at its IPv6 address only, behind one of IPv6; both are exported.
var dualServices = kubetest.Servers("iperf", "both", 1, "serve") + strings.Replace(kubetest.Pods("iperf", "six", "sh", "-c", "exec peer serve [${IPS#*,}]:8080"),
	"        securityContext", `        env: [{name: IPS, valueFrom: {fieldRef: {fieldPath: status.podIPs}}}]
        securityContext`, 1) + `
---
apiVersion: v1
kind: Service
metadata: {name: both, namespace: iperf}
spec: {ipFamilyPolicy: PreferDualStack, selector: {app: both}, ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: six, namespace: iperf}
spec: {ipFamilyPolicy: SingleStack, ipFamilies: [IPv6], selector: {app: six}, ports: [{name: tcp, port: 80, targetPort: 8080}, {name: udp, port: 80, targetPort: 8080, protocol: UDP}]}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: both, namespace: iperf}
---
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceExport
metadata: {name: six, namespace: iperf}
`

// Between dual-stack clusters, unmodified pods reach what the other one exports
// over IPv4 and IPv6, by the ClusterIPs and by the A and AAAA records of its
// name, TCP and UDP; also a service whose pod has ears for IPv6 only.
func TestDualStackServices(t *testing.T) {
	t.Parallel()
	m := startRigOf(t, kubetest.Options{Nodes: 1, DualStack: true}, kubesliceExample(t, "01-sliceconfig-iperf-isolated.yaml"))
	one, two := m.rig.Clusters[0], m.rig.Clusters[1]
	m.client(t, 1, "iperf")
	m.client(t, 1, "stranger")
	one.Apply(t, dualServices)
	one.Rollout(t, "iperf", "deployment/both")
	one.Rollout(t, "iperf", "deployment/six")
	for _, name := range []string{"both", "six"} {
		ips := m.bothFamilies(t, name)
		kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
			said, err := two.ExecErr(ctx, "iperf", "deployment/client", "peer", "lookup", name+".iperf.svc.clusterset.local")
			got := strings.Fields(said)
			slices.Sort(got)
			if want := slices.Sorted(slices.Values(ips)); err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("%s has the addresses %q, want the ClusterIPs %q", name, got, want)
			}
			return err
		})
		for _, network := range []string{"tcp", "udp"} {
			for _, ip := range ips {
				if who := m.answered(t, 1, network, net.JoinHostPort(ip, "80")); !strings.HasPrefix(who, name+"-") {
					t.Errorf("%s %s is answered by %s", network, ip, who)
				}
			}
			for _, family := range []string{"4", "6"} {
				if who := m.answered(t, 1, network+family, name+".iperf.svc.clusterset.local:80"); !strings.HasPrefix(who, name+"-") {
					t.Errorf("%s%s by name is answered by %s", network, family, who)
				}
			}
		}
		for _, ip := range ips {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			if said, err := two.ExecErr(ctx, "stranger", "deployment/client", "peer", "ask", "tcp", net.JoinHostPort(ip, "80"), "hello"); err == nil {
				t.Errorf("a pod of a namespace that is not bound hears %q from %s", said, ip)
			}
			cancel()
		}
	}
}

// bothFamilies waits until cluster 2 has an import with ClusterIPs of both
// families and an EndpointSlice of each, and returns the ClusterIPs, IPv4 first.
func (m *rigMesh) bothFamilies(t *testing.T, name string) (ips []string) {
	t.Helper()
	two := m.rig.Clusters[1]
	kubetest.Eventually(t, time.Minute, func(ctx context.Context) error {
		said, err := two.Kubectl(ctx, "", "get", "serviceimports.multicluster.x-k8s.io", "-n", "iperf", name, "-o", "jsonpath={.spec.ips[*]} {.spec.ipFamilies[*]}")
		if err != nil {
			return err
		}
		f := strings.Fields(said)
		if len(f) != 4 || f[2] != "IPv4" || f[3] != "IPv6" || !netip.MustParseAddr(f[0]).Is4() || !netip.MustParseAddr(f[1]).Is6() {
			return fmt.Errorf("the import of %s says %q, want an address of each family", name, said)
		}
		ips = f[:2]
		service, err := two.Kubectl(ctx, "", "get", "services", "-n", "iperf", "-l", "multicluster.kubernetes.io/service-name="+name, "-o", "jsonpath={.items[*].metadata.name} {.items[*].spec.clusterIPs[*]}")
		if err != nil {
			return err
		}
		s := strings.Fields(service)
		if len(s) != 3 || !slices.Equal(s[1:], ips) {
			return fmt.Errorf("the derived Service of %s is %q, the import has %q", name, s, ips)
		}
		types, err := two.Kubectl(ctx, "", "get", "endpointslices", "-n", "iperf", "-l", "kubernetes.io/service-name="+s[0], "-o", "jsonpath={.items[?(@.endpoints)].addressType}")
		got := strings.Fields(types)
		slices.Sort(got)
		if err == nil && !slices.Equal(got, []string{"IPv4", "IPv6"}) {
			err = fmt.Errorf("the EndpointSlices of %s are of the types %q", s[0], got)
		}
		return err
	})
	return ips
}
