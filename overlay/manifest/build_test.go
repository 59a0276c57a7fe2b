package manifest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

func sitesOf(t *testing.T, sum Summary, slice string) string {
	t.Helper()
	for _, s := range sum.Slices {
		if s.Name == slice {
			var out []string
			for _, x := range s.Sites {
				out = append(out, fmt.Sprintf("%s=%d:%s", x.Name, x.Index, x.Prefix))
			}
			return strings.Join(out, " ")
		}
	}
	return ""
}

func TestSitesGetTheirPrefixes(t *testing.T) {
	slice := func(extra string) string {
		return "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: red}\nspec:\n  sliceSubnet: 10.1.0.0/16\n" +
			"  sliceGatewayProvider: {sliceGatewayType: Wireguard}\n  standardQosProfileName: default\n" + extra
	}
	const ipam = "---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceIpam\nmetadata: {name: red}\nspec: {sliceName: red, sliceSubnet: 10.1.0.0/16, subnetSize: 24}\nstatus:\n  availableSubnets: 250\n  allocatedSubnets:\n"
	octet := func(cluster string, n int) string {
		return fmt.Sprintf("---\napiVersion: worker.kubeslice.io/v1alpha1\nkind: WorkerSliceConfig\nmetadata: {name: red-%s, labels: {worker-cluster: %s, original-slice-name: red}}\nspec: {octet: %d}\n", cluster, cluster, n)
	}
	for _, tt := range []struct {
		name     string
		text     string
		existing map[string]int
		want     string
	}{
		{"static, in the order of spec.clusters", slice("  clusters: [b, a]\n"), nil, "b=0:10.1.0.0/20 a=1:10.1.16.0/20"},
		{"Static is Local", slice("  clusters: [b, a]\n  sliceIpamType: Static\n"), nil, "b=0:10.1.0.0/20 a=1:10.1.16.0/20"},
		{"maxClusters sets the length", slice("  clusters: [b, a]\n  maxClusters: 2\n"), nil, "b=0:10.1.0.0/17 a=1:10.1.128.0/17"},
		{"an earlier index stays", slice("  clusters: [b, a]\n"), map[string]int{"a": 0, "gone": 1}, "a=0:10.1.0.0/20 b=1:10.1.16.0/20"},
		{"an octet fixes the index", slice("  clusters: [b, a]\n") + octet("a", 0), nil, "a=0:10.1.0.0/20 b=1:10.1.16.0/20"},
		{"an octet wins over an earlier index", slice("  clusters: [b, a]\n") + octet("a", 2), map[string]int{"a": 0, "b": 2}, "b=0:10.1.0.0/20 a=2:10.1.32.0/20"},
		{"an octet of one that left is free", slice("  clusters: [b, a]\n") + octet("c", 0), nil, "b=0:10.1.0.0/20 a=1:10.1.16.0/20"},
		{"dynamic without state: the index numbers the subnet", slice("  clusters: [b, a]\n  sliceIpamType: Dynamic\n"), map[string]int{"a": 5}, "b=0:10.1.0.0/24 a=5:10.1.5.0/24"},
		{"dynamic with another size", slice("  clusters: [b, a]\n  sliceIpamType: Dynamic\n  subnetSize: 28\n"), nil, "b=0:10.1.0.0/28 a=1:10.1.0.16/28"},
		{"dynamic keeps what a SliceIpam says", slice("  clusters: [b, a]\n  sliceIpamType: Dynamic\n") + ipam +
			"  - {clusterName: a, subnet: 10.1.7.0/24, status: InUse}\n", nil, "b=0:10.1.0.0/24 a=1:10.1.7.0/24"},
		{"dynamic reclaims what was released a day ago", slice("  clusters: [b]\n  sliceIpamType: Dynamic\n") + ipam +
			"  - {clusterName: x, subnet: 10.1.9.0/24, status: Released, releasedAt: \"2026-05-31T00:00:00Z\"}\n", nil, "b=0:10.1.9.0/24"},
		{"dynamic waits for what was released just now", slice("  clusters: [b]\n  sliceIpamType: Dynamic\n") + ipam +
			"  - {clusterName: x, subnet: 10.1.0.0/24, status: Released, releasedAt: \"2026-05-31T00:00:01Z\"}\n", nil, "b=0:10.1.1.0/24"},
		{"a slice without clusters", slice(""), nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sum, problems := build(tt.text, Options{Existing: map[string]map[string]int{"red": tt.existing}})
			if got := sitesOf(t, sum, "red"); got != tt.want || len(problems) != 0 || len(sum.Slices) != 1 {
				t.Errorf("got %q, want %q; %v", got, tt.want, problems)
			}
		})
	}
}

func TestADynamicSliceRunsOut(t *testing.T) {
	text := "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: red}\nspec:\n  sliceSubnet: 10.1.0.0/16\n  sliceIpamType: Dynamic\n  subnetSize: %d\n" +
		"  sliceGatewayProvider: {sliceGatewayType: Wireguard}\n  standardQosProfileName: default\n  clusters: [a, b, c]\n"
	sum, problems := build(fmt.Sprintf(text, 17), Options{})
	if len(sum.Slices) != 0 || !strings.Contains(problemLines(problems), "spec.clusters[2]: c: ") || !strings.Contains(problemLines(problems), "no available subnets") {
		t.Errorf("got %v", problems)
	}
	if _, problems = build(fmt.Sprintf(text, 16), Options{}); !has(problems, Error, "SliceConfig red", "spec.subnetSize", "longer than the slice's /16") {
		t.Errorf("got %v", problems)
	}
}

func TestNoNetworkNeedsNeitherSubnetNorGatewayNorQoS(t *testing.T) {
	sum, problems := build("apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: red}\nspec: {overlayNetworkDeploymentMode: no-network, clusters: [a]}\n", Options{})
	if len(problems) != 0 || len(sum.Slices) != 1 || sum.Slices[0].Subnet != "" || sum.Slices[0].Sites[0].Prefix != "" {
		t.Errorf("got %+v, %v", sum, problems)
	}
}

func TestOpenVPNIsSaidOnce(t *testing.T) {
	text := ""
	for _, n := range []string{"b", "a", "c"} {
		text += fmt.Sprintf("---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: %s}\nspec: {sliceSubnet: 10.1.0.0/16, sliceGatewayProvider: {}, standardQosProfileName: default, clusters: [x]}\n", n)
	}
	_, problems := build(text, Options{})
	if len(problems) != 1 || !strings.Contains(problems[0].Message, "OpenVPN is served by WireGuard (slices: a, b, c)") {
		t.Errorf("got %v", problems)
	}
}

func TestTheDefaultSliceGivesItsNamespacesUp(t *testing.T) {
	text := "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: demo-default-slice}\nspec: {overlayNetworkDeploymentMode: no-network, clusters: [a], namespaceIsolationProfile: {applicationNamespaces: [{namespace: shop, clusters: [a]}]}}\n" +
		"---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: red}\nspec: {overlayNetworkDeploymentMode: no-network, clusters: [a], namespaceIsolationProfile: {applicationNamespaces: [{namespace: shop, clusters: [a]}]}}\n"
	if sum, problems := build(text, Options{}); HasErrors(problems) || len(sum.Slices) != 2 {
		t.Errorf("got %v", problems)
	}
}

func TestServicesHaveAllTheirPortsAndNames(t *testing.T) {
	sum, _ := build(world, Options{})
	got := fmt.Sprint(sum.Slices[1].Services)
	want := "[{api shop [api.shop.svc.slice.local api.example.com] [{grpc 9000 TCP}]}" +
		" {old shop [old.shop.svc.slice.local] [{gopher 70 TCP}]}" +
		" {web shop [web.shop.svc.slice.local web.example.com] [{http 80 TCP} {dns 53 UDP}]}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if q := fmt.Sprint(sum.Slices[0].QoS, sum.Slices[1].QoS); q != "{900 100 0 EF} {5000 2000 1 AF11}" {
		t.Errorf("QoS %s", q)
	}
	if c := fmt.Sprint(sum.Clusters); c != "[{a [192.0.2.1] [dyn red]} {b [192.0.2.2] [dyn red]}]" {
		t.Errorf("clusters %s", c)
	}
}

func TestTheResultDoesNotDependOnTheOrderOfDocuments(t *testing.T) {
	const seed = 5
	r := rand.New(rand.NewPCG(seed, 0))
	docs := strings.Split(strings.TrimPrefix(world, "\n"), "---\n")
	want, _ := build(world, Options{})
	for range 20 {
		r.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
		got, problems := build(strings.Join(docs, "---\n"), Options{})
		if len(problems) != 0 || !reflect.DeepEqual(got, want) {
			t.Fatalf("seed %d: %v\n%+v", seed, problems, got)
		}
	}
}

func TestBuildLeavesTheSetAsItWas(t *testing.T) {
	set, _ := Parse("world.yaml", []byte(spoil(t, world, "maxClusters: 4\n", "maxClusters: 2\n  standardQosProfileName: gold\n")))
	first, p1 := Build(set, Options{Now: testNow})
	second, p2 := Build(set, Options{Now: testNow})
	if !reflect.DeepEqual(first, second) || !reflect.DeepEqual(p1, p2) || len(p1) == 0 {
		t.Errorf("building twice differs:\n%v\n%v", p1, p2)
	}
	for _, o := range set.Objects {
		if o.Broken {
			t.Errorf("%s was marked", o.ID())
		}
	}
}

func TestTheMeshNameComesFromOptionsThenNodeThenDefault(t *testing.T) {
	node := &NodeFile{Mesh: "mine"}
	for want, opts := range map[string]Options{
		DefaultMesh: {}, "mine": {Node: node}, "given": {Mesh: "given", Node: node},
	} {
		mesh, _ := Build(&Set{}, opts)
		if mesh.Name != want {
			t.Errorf("got %s, want %s", mesh.Name, want)
		}
	}
	set, _ := Parse("w", []byte(world))
	a, _ := Build(set, Options{Mesh: "m1", Now: testNow})
	b, _ := Build(set, Options{Mesh: "m2", Now: testNow})
	if a.Slices[0].Subnet6 == b.Slices[0].Subnet6 || a.Slices[0].Subnet6 != overlay.SliceSubnet6("m1", "dyn") {
		t.Error("the mesh's name is no part of the IPv6 subnet")
	}
}

func TestValidateUpdate(t *testing.T) {
	const service = "sliceGatewayServiceType: [{cluster: a, type: NodePort}]"
	const mode = "overlayNetworkDeploymentMode: single-network"
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name     string
		object   string
		was      [2]string // spoils the world before
		is       [2]string // spoils the world after
		rotating bool
		field    string // "" when it is allowed
		message  string
	}{
		{"the same is allowed", redID, [2]string{}, [2]string{}, true, "", ""},
		{"the subnet stays", redID, [2]string{}, [2]string{"sliceSubnet: 10.1.0.0/16", "sliceSubnet: 10.9.0.0/16"}, false, "spec.sliceSubnet", "10.1.0.0/16 cannot be changed to 10.9.0.0/16"},
		{"the slice type stays", redID, [2]string{}, [2]string{"  maxClusters: 4", "  sliceType: Other\n  maxClusters: 4"}, false, "spec.sliceType", "Application"},
		{"the gateway type stays", redID, [2]string{}, [2]string{"    sliceGatewayType: Wireguard", "    sliceGatewayType: OpenVPN"}, false, "spec.sliceGatewayProvider.sliceGatewayType", "Wireguard"},
		{"the misspelling is the same type", redID, [2]string{"    sliceGatewayType: Wireguard", "    sliceGatewayType: Wiregaurd"}, [2]string{}, false, "", ""},
		{"the CA type stays", redID, [2]string{}, [2]string{"sliceCaType: Local", "sliceCaType: Vault"}, false, "spec.sliceGatewayProvider.sliceCaType", "Local"},
		{"the provider stays", redID, [2]string{}, [2]string{"  sliceGatewayProvider:\n    sliceGatewayType: Wireguard\n    sliceCaType: Local\n    " + service + "\n", ""}, false, "spec.sliceGatewayProvider", "removed"},
		{"the IPAM type stays", redID, [2]string{}, [2]string{"sliceIpamType: Static", "sliceIpamType: Dynamic"}, false, "spec.sliceIpamType", "Static cannot be changed to Dynamic"},
		{"Local becomes Static", redID, [2]string{"sliceIpamType: Static", "sliceIpamType: Local"}, [2]string{}, false, "", ""},
		{"maxClusters stays", redID, [2]string{}, [2]string{"maxClusters: 4", "maxClusters: 8"}, false, "spec.maxClusters", "4 cannot"},
		{"the cipher stays", redID, [2]string{}, [2]string{"  maxClusters: 4", "  vpnConfig: {cipher: AES-128-CBC}\n  maxClusters: 4"}, false, "spec.vpnConfig.cipher", "AES-256-CBC"},
		{"the default cipher may be written out", redID, [2]string{}, [2]string{"  maxClusters: 4", "  vpnConfig: {cipher: AES-256-CBC}\n  maxClusters: 4"}, false, "", ""},
		{"clusters may change", redID, [2]string{}, [2]string{"  clusters: [a, b]\n", "  clusters: [b, c]\n"}, false, "", ""},
		{"the mode stays", redID, [2]string{}, [2]string{mode, "overlayNetworkDeploymentMode: no-network"}, false, "spec.overlayNetworkDeploymentMode", "single-network"},
		{"no-network may become networked", redID, [2]string{mode + "\n  sliceSubnet: 10.1.0.0/16\n", "overlayNetworkDeploymentMode: no-network\n"}, [2]string{}, false, "", ""},
		{"NodePort may become LoadBalancer", redID, [2]string{}, [2]string{service, "sliceGatewayServiceType: [{cluster: a, type: LoadBalancer}]"}, false, "", ""},
		{"LoadBalancer stays", redID, [2]string{service, "sliceGatewayServiceType: [{cluster: '*', type: LoadBalancer}]"}, [2]string{}, false, "spec.sliceGatewayProvider.sliceGatewayServiceType", "cluster a cannot go from LoadBalancer to NodePort"},
		{"the protocol stays", redID, [2]string{}, [2]string{service, "sliceGatewayServiceType: [{cluster: '*', protocol: TCP}]"}, false, "spec.sliceGatewayProvider.sliceGatewayServiceType", "protocol of cluster a cannot go from UDP to TCP"},
		{"renewing now is allowed", redID, [2]string{}, [2]string{"  maxClusters: 4", "  renewBefore: \"2026-06-01T00:00:00Z\"\n  maxClusters: 4"}, false, "", ""},
		{"renewing in the future is not", redID, [2]string{}, [2]string{"  maxClusters: 4", "  renewBefore: 2026-06-01T00:00:01Z\n  maxClusters: 4"}, false, "spec.renewBefore", "in the future"},
		{"renewing while rotating is not", redID, [2]string{}, [2]string{"  maxClusters: 4", "  renewBefore: 2026-05-01T00:00:00Z\n  maxClusters: 4"}, true, "spec.renewBefore", "being rotated"},
		{"an octet stays", "WorkerSliceConfig ks-demo/red-a", [2]string{}, [2]string{"octet: 2}", "octet: 3}"}, false, "spec.octet", "2 cannot"},
		{"an octet is not removed", "WorkerSliceConfig ks-demo/red-a", [2]string{}, [2]string{", octet: 2}", "}"}, false, "spec.octet", "2 cannot"},
		{"an octet may be added", "WorkerSliceConfig ks-demo/red-a", [2]string{", octet: 2}", "}"}, [2]string{}, false, "", ""},
		{"a gateway number stays", "WorkerSliceGateway ks-demo/red-a-b", [2]string{}, [2]string{"gatewayNumber: 0", "gatewayNumber: 1"}, false, "spec.gatewayNumber", "0 cannot"},
		{"an IPAM's slice stays", ipamID, [2]string{}, [2]string{"{sliceName: dyn,", "{sliceName: red,"}, false, "spec.sliceName", "dyn cannot"},
		{"an IPAM's subnet stays", ipamID, [2]string{}, [2]string{"sliceSubnet: 10.2.0.0/16,", "sliceSubnet: 10.3.0.0/16,"}, false, "spec.sliceSubnet", "10.2.0.0/16 cannot"},
		{"an IPAM in use keeps its size", ipamID, [2]string{}, [2]string{"subnetSize: 26", "subnetSize: 27"}, false, "spec.subnetSize", "while 1 subnets are allocated"},
		{"an IPAM's size does not go down", ipamID, [2]string{}, [2]string{"subnetSize: 26}\nstatus:\n  allocatedSubnets:\n  - {clusterName: a, subnet: 10.2.0.64/26, status: InUse}\n", "subnetSize: 25}\nstatus:\n  allocatedSubnets:\n"}, false, "spec.subnetSize", "26 cannot go down to 25"},
		{"an unused IPAM's size may go up", ipamID, [2]string{}, [2]string{"subnetSize: 26}\nstatus:\n  allocatedSubnets:\n  - {clusterName: a, subnet: 10.2.0.64/26, status: InUse}\n", "subnetSize: 27}\nstatus:\n  allocatedSubnets:\n"}, false, "", ""},
		{"a QoS profile may change", "SliceQoSConfig ks-demo/gold", [2]string{}, [2]string{"dscpClass: EF}", "dscpClass: AF11}"}, false, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			find := func(change [2]string) *Object {
				text := world
				if change != [2]string{} {
					text = spoil(t, world, change[0], change[1])
				}
				set, _ := Parse("world.yaml", []byte(text))
				for _, o := range set.Objects {
					if o.ID() == tt.object {
						return o
					}
				}
				t.Fatalf("no %s", tt.object)
				return nil
			}
			got := ValidateUpdate(find(tt.was), find(tt.is), now, tt.rotating)
			if tt.field == "" {
				if len(got) != 0 {
					t.Errorf("refused: %v", got)
				}
				return
			}
			if len(got) == 0 || !has(got, Error, tt.object, tt.field, tt.message) {
				t.Errorf("want %s: %s, got %v", tt.field, tt.message, got)
			}
		})
	}
	set, _ := Parse("world.yaml", []byte(world))
	if got := ValidateUpdate(set.Objects[0], set.Objects[1], now, false); len(got) != 1 || got[0].Field != "metadata.name" {
		t.Errorf("one slice became another: %v", got)
	}
}
