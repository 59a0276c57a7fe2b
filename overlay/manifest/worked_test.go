package manifest

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const workedWorld = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: Cluster
metadata: {name: a, namespace: n}
spec: {nodeIPs: [192.0.2.1]}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red, namespace: n, creationTimestamp: "2026-01-01T00:00:00Z"}
spec:
  sliceSubnet: 10.10.0.0/16
  sliceGatewayProvider:
    sliceGatewayType: Wireguard
    sliceGatewayServiceType: [{cluster: '*', type: LoadBalancer}]
  clusters: [a, b, c]
  standardQosProfileName: gold
  namespaceIsolationProfile:
    isolationEnabled: true
    applicationNamespaces: [{namespace: all, clusters: ['*']}, {namespace: some, clusters: [b]}]
    allowedNamespaces: [{namespace: kube-system, clusters: [a]}]
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceQoSConfig
metadata: {name: gold, namespace: n}
spec: {priority: 0, bandwidthCeilingKbps: 9, bandwidthGuaranteedKbps: 0, dscpClass: EF}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: ServiceExportConfig
metadata: {name: web-all-b, namespace: n}
spec:
  {serviceName: web, serviceNamespace: all, sourceCluster: b, sliceName: red, aliases: [x.y],
   serviceDiscoveryEndpoints: [{podName: p2, cluster: b, nsmIp: 10.10.16.5, port: 80}], serviceDiscoveryPorts: [{name: http, port: 80}]}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: ServiceExportConfig
metadata: {name: web-all-a, namespace: n}
spec:
  {serviceName: web, serviceNamespace: all, sourceCluster: a, sliceName: red,
   serviceDiscoveryEndpoints: [{podName: p1, cluster: a, nsmIp: 10.10.0.5, port: 80}], serviceDiscoveryPorts: [{name: http, port: 80}]}
`

func TestWorkedObjectsAreKubeSlices(t *testing.T) {
	work := func(now string) map[string]Worked {
		set, problems := Parse("x", []byte(workedWorld))
		at, err := time.Parse(time.RFC3339, now)
		if err != nil || HasErrors(problems) {
			t.Fatal(err, problems)
		}
		mesh, problems := Build(set, Options{Now: at})
		if HasErrors(problems) {
			t.Fatal(problems)
		}
		out := map[string]Worked{}
		for _, w := range Work(set, &mesh, at) {
			out[w.Kind+" "+w.Name] = w
		}
		return out
	}
	all := work("2026-01-05T00:00:00Z")
	if len(all) != 3+6+3+1 {
		t.Errorf("%d objects", len(all))
	}
	at := func(object, path string) any {
		var v any = all[object].Spec
		for _, step := range strings.Split(path, ".") {
			m, _ := v.(map[string]any)
			v = m[step]
		}
		return v
	}
	for _, c := range []struct {
		object, path string
		want         any
	}{
		{"WorkerSliceConfig red-a", "octet", int64(0)}, // there, though it is zero
		{"WorkerSliceConfig red-c", "octet", int64(2)},
		{"WorkerSliceConfig red-c", "ipamClusterOctet", int64(2)},
		{"WorkerSliceConfig red-c", "clusterSubnetCIDR", "10.10.32.0/20"}, // as a user of KubeSlice saw it
		{"WorkerSliceConfig red-c", "qosProfileDetails.bandwidthGuaranteedKbps", int64(0)},
		{"WorkerSliceConfig red-c", "qosProfileDetails.dscpClass", "EF"},
		{"WorkerSliceConfig red-b", "namespaceIsolationProfile.applicationNamespaces", []any{"all", "some"}},
		{"WorkerSliceConfig red-c", "namespaceIsolationProfile.applicationNamespaces", []any{"all"}},
		{"WorkerSliceConfig red-a", "namespaceIsolationProfile.allowedNamespaces", []any{"kube-system"}},
		{"WorkerSliceConfig red-c", "namespaceIsolationProfile.allowedNamespaces", nil},
		{"WorkerSliceConfig red-c", "sliceGatewayProvider.sliceGatewayServiceType", "LoadBalancer"},
		{"WorkerSliceConfig red-c", "sliceGatewayProvider.sliceGatewayProtocol", "UDP"},
		{"WorkerSliceGateway red-a-c", "gatewayHostType", "Server"},
		{"WorkerSliceGateway red-c-a", "gatewayHostType", "Client"},
		{"WorkerSliceGateway red-c-a", "remoteGatewayConfig.nodeIps", []any{"192.0.2.1"}},
		{"WorkerSliceGateway red-c-a", "localGatewayConfig.vpnIp", "10.10.255.2"},
		{"WorkerSliceGateway red-b-c", "gatewayNumber", int64(1)},
		{"WorkerSliceGateway red-b-c", "gatewayCredentials.secretName", "red-b-c"},
		{"WorkerServiceImport web-all-red-c", "sourceClusters", []any{"a", "b"}},
		{"WorkerServiceImport web-all-red-c", "aliases", nil}, // of the first export alone
		{"VpnKeyRotation red", "rotationCount", int64(1)},
		{"VpnKeyRotation red", "certificateCreationTime", "2026-01-01T00:00:00Z"},
		{"VpnKeyRotation red", "certificateExpiryTime", "2026-01-30T23:00:00Z"},
	} {
		if got := at(c.object, c.path); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s: %#v, want %#v", c.object, c.path, got, c.want)
		}
	}
	if n := len(at("WorkerServiceImport web-all-red-a", "serviceDiscoveryEndpoints").([]any)); n != 2 {
		t.Errorf("%d endpoints of two exports", n)
	}
	want := map[string]string{"original-slice-name": "red", "project-namespace": "n", "kubeslice-manager": "controller", "worker-cluster": "c", "standard-qos-profile": "gold"}
	if got := all["WorkerSliceConfig red-c"].Labels; !reflect.DeepEqual(got, want) {
		t.Errorf("labels %v", got)
	}
	later := work("2026-03-05T00:00:00Z")["VpnKeyRotation red"].Spec
	if later["rotationCount"] != int64(3) || later["certificateCreationTime"] != "2026-03-02T00:00:00Z" {
		t.Errorf("two months later: %v", later)
	}
	if again := fmt.Sprint(work("2026-01-05T00:00:00Z")); again != fmt.Sprint(work("2026-01-09T00:00:00Z")) {
		t.Error("what is worked out changes with the time of day")
	}
}

func TestStatusesOfTheMomentDoNotTakeSlicesAway(t *testing.T) {
	text := strings.Replace(workedWorld, "spec: {nodeIPs: [192.0.2.1]}\n", "spec: {nodeIPs: [192.0.2.1]}\nstatus: {registrationStatus: Pending}\n", 1)
	set, _ := Parse("x", []byte(text))
	for live, want := range map[bool]int{true: 1, false: 0} {
		mesh, problems := Build(set, Options{Live: live})
		if len(mesh.Slices) != want || HasErrors(problems) == live {
			t.Errorf("live %v: %d slices, %v", live, len(mesh.Slices), problems)
		}
	}
}

func TestTheHubOfANodeFileIsChecked(t *testing.T) {
	const head = "version: 1\nsite: a\nnode: b\n"
	for _, c := range []struct{ text, says string }{
		{"kubernetes:\n  hub: {namespace: kubeslice-demo}\n", ""},
		{"kubernetes:\n  hub: {kubeconfig: hub.yaml, namespace: kubeslice-demo, controller: reader, holdFor: 2h, cniSubnets: [10.244.0.0/16]}\n", ""},
		{"kubernetes:\n  hub: {}\n", "namespace"},
		{"kubernetes:\n  hub: {namespace: 'a b'}\n", "DNS label"},
		{"kubernetes:\n  hub: {namespace: a, holdFor: 5s}\n", "no time from 1m"},
		{"kubernetes:\n  hub: {namespace: a, controller: somebody}\n", "controller"},
		{"kubernetes:\n  hub: {namespace: a, cniSubnets: [10.1.2.3/8]}\n", "not a CIDR"},
		{"kubernetes:\n  hub: {namespace: a, token: x}\n", "token"},
	} {
		n, problems := ParseNode("/etc/slicewire/node.yaml", []byte(head+c.text))
		switch {
		case c.says == "" && HasErrors(problems):
			t.Errorf("%s: %v", c.text, problems)
		case c.says == "" && len(n.Manifests) != 0:
			t.Errorf("%s: reads %v besides", c.text, n.Manifests)
		case c.says != "" && !strings.Contains(fmt.Sprint(problems), c.says):
			t.Errorf("%s: %v, want %q", c.text, problems, c.says)
		}
	}
	n, _ := ParseNode("/etc/slicewire/node.yaml", []byte(head+"kubernetes:\n  hub: {kubeconfig: hub.yaml, namespace: a}\n"))
	if h := n.Kubernetes.Hub; h.Kubeconfig != "/etc/slicewire/hub.yaml" || h.Hold() != 24*time.Hour || h.Controller != "auto" {
		t.Errorf("%+v", h)
	}
	n, _ = ParseNode("/etc/slicewire/node.yaml", []byte(head+"manifests: [more]\nkubernetes:\n  hub: {namespace: a}\n"))
	if len(n.Manifests) != 1 {
		t.Error("manifests that are named beside a hub are not read")
	}
}

// What one cluster is told of its slices is what is in the objects for it, also
// where the slice is in no namespace.
func TestWorkerSlicesAreThoseOfTheObjects(t *testing.T) {
	for _, text := range []string{workedWorld, strings.ReplaceAll(workedWorld, ", namespace: n", "")} {
		set, problems := Parse("x", []byte(text))
		mesh, more := Build(set, Options{})
		if HasErrors(problems) || HasErrors(more) {
			t.Fatal(problems, more)
		}
		b := WorkerSlices(set, &mesh, "b")
		if len(b) != 1 || len(b["red"].Gateways) != 2 {
			t.Fatalf("b has %+v", b)
		}
		objects := 0
		for _, w := range Work(set, &mesh, time.Time{}) {
			var is any
			switch w.Name {
			case "red-b":
				is = b["red"].Config
			case "red-b-a":
				is = b["red"].Gateways[0]
			case "red-b-c":
				is = b["red"].Gateways[1]
			default:
				continue
			}
			if objects++; !reflect.DeepEqual(plain(is), w.Spec) {
				t.Errorf("%s has\n%v, the cluster is told\n%v", w.Name, w.Spec, plain(is))
			}
		}
		if want := 3 * strings.Count(text, "name: red, namespace"); objects != want {
			t.Errorf("%d objects, want %d", objects, want)
		}
		if g := b["red"].Gateways; g[0].GatewayHostType != "Client" || g[1].GatewayHostType != "Server" || b["red"].Config.ClusterSubnetCIDR != g[1].LocalGatewayConfig.GatewaySubnet {
			t.Errorf("b has %+v", b)
		}
		if other := WorkerSlices(set, &mesh, "d"); len(other) != 0 {
			t.Errorf("who is no part of it has %v", other)
		}
	}
}
