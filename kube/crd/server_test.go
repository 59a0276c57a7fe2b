package crd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/kube"
	"slicewire/kube/apitest"
)

var server *apitest.Server

func TestMain(m *testing.M) {
	os.Exit(apitest.Main(m, func(s *apitest.Server) { server = s }))
}

// hub returns a client of a server that has the definitions, and a namespace of
// its own.
func hub(t *testing.T) (context.Context, *kube.Client, string) {
	t.Helper()
	if server == nil {
		t.Skip("no API server")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	c, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := apitest.InstallCRDs(ctx, c, folder); err != nil {
		t.Fatal(err)
	}
	name := "kubeslice-" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	name = name[:min(len(name), 60)]
	if err := apitest.Namespace(ctx, c, name); err != nil {
		t.Fatal(err)
	}
	return ctx, c, name
}

func TestManifestsOfKubeSlicesUsersApplyUnchanged(t *testing.T) {
	ctx, c, namespace := hub(t)
	files, err := filepath.Glob("../../overlay/manifest/testdata/kubeslice-examples/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	for _, n := range []string{"kubeslice-demo", "iperf"} {
		if err := apitest.Namespace(ctx, c, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := apitest.Put(ctx, c, namespace, string(text)); err != nil {
			t.Errorf("%s: %v", f, err)
		}
	}
}

const goodSlice = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red}
spec:
  overlayNetworkDeploymentMode: single-network
  sliceSubnet: 10.1.0.0/16
  sliceGatewayProvider:
    sliceGatewayType: Wireguard
    sliceGatewayServiceType: [{cluster: a, type: LoadBalancer}]
  clusters: [a, b]
  maxClusters: 4
  qosProfileDetails: {priority: 1, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: shop, clusters: ['*']}]
  externalGatewayConfig: [{gatewayType: none, clusters: [a]}]
  topology: {mode: FullMesh}
`

// edits are changes of a text: old, new, old, new.
func edited(t *testing.T, text string, edits ...string) string {
	t.Helper()
	for i := 0; i < len(edits); i += 2 {
		if !strings.Contains(text, edits[i]) {
			t.Fatalf("%q is not in the text", edits[i])
		}
		text = strings.Replace(text, edits[i], edits[i+1], 1)
	}
	return text
}

func TestServerRefusesWhatKubeSliceDoes(t *testing.T) {
	ctx, c, namespace := hub(t)
	qos := "  qosProfileDetails: {priority: 1, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}\n"
	for i, x := range []struct {
		name  string
		edits []string
		says  string // "" : it is taken
	}{
		{"the slice itself", nil, ""},
		{"a subnet that is not private", []string{"10.1.0.0/16", "11.1.0.0/16"}, "private /16"},
		{"a /24", []string{"10.1.0.0/16", "10.1.0.0/24"}, "private /16"},
		{"host bits", []string{"10.1.0.0/16", "10.1.1.0/16"}, "private /16"},
		{"172.32 is not private", []string{"10.1.0.0/16", "172.32.0.0/16"}, "private /16"},
		{"172.31 is", []string{"10.1.0.0/16", "172.31.0.0/16"}, ""},
		{"192.168 is", []string{"10.1.0.0/16", "192.168.0.0/16"}, ""},
		{"no subnet", []string{"  sliceSubnet: 10.1.0.0/16\n", ""}, "sliceSubnet is required"},
		{"no gateway provider", []string{"  sliceGatewayProvider:\n    sliceGatewayType: Wireguard\n    sliceGatewayServiceType: [{cluster: a, type: LoadBalancer}]\n", ""}, "sliceGatewayProvider is required"},
		{"no network needs neither", []string{"single-network", "no-network", "  sliceSubnet: 10.1.0.0/16\n", "", qos, ""}, ""},
		{"33 clusters at most", []string{"maxClusters: 4", "maxClusters: 33"}, "less than or equal to 32"},
		{"two clusters at least", []string{"maxClusters: 4", "maxClusters: 1"}, "greater than or equal to 2"},
		{"more clusters than maxClusters", []string{"[a, b]", "[a, b, c, d, e]"}, "more clusters than maxClusters"},
		{"a cluster twice", []string{"[a, b]", "[a, b, a]"}, "twice"},
		{"both QoS sources", []string{qos, qos + "  standardQosProfileName: gold\n"}, "exactly one of standardQosProfileName"},
		{"no QoS source", []string{qos, ""}, "exactly one of standardQosProfileName"},
		{"more guaranteed than the ceiling", []string{"bandwidthGuaranteedKbps: 2000", "bandwidthGuaranteedKbps: 6000"}, "must not be more than bandwidthCeilingKbps"},
		{"a negative rate", []string{"bandwidthGuaranteedKbps: 2000", "bandwidthGuaranteedKbps: -1"}, "greater than or equal to 0"},
		{"an unknown DSCP class", []string{"AF11", "AF99"}, "Unsupported value"},
		{"rotation too rare", []string{"maxClusters: 4", "maxClusters: 4\n  rotationInterval: 91"}, "less than or equal to 90"},
		{"a star beside names", []string{"['*']", "['*', a]"}, "only entry"},
		{"a namespace twice", []string{"{namespace: shop, clusters: ['*']}", "{namespace: shop, clusters: [a]}, {namespace: shop, clusters: [b]}"}, "duplicate entries"},
		{"a namespace with odd characters", []string{"namespace: shop", "namespace: sh.op"}, "should match"},
		{"a gateway of no member", []string{"{cluster: a, type", "{cluster: z, type"}, "not one of the slice's"},
		{"a gateway twice", []string{"[{cluster: a, type: LoadBalancer}]", "[{cluster: a}, {cluster: a}]"}, "twice"},
		{"a cluster in two entries", []string{"[{gatewayType: none, clusters: [a]}]", "[{gatewayType: none, clusters: [a]}, {clusters: [a]}]"}, "more than one entry"},
		{"hubs wanted", []string{"mode: FullMesh", "mode: HubAndSpoke"}, "1 or 2 hubs"},
		{"a hub that is a spoke", []string{"mode: FullMesh", "mode: HubAndSpoke, hubs: [a], spokes: [a]"}, "hub too"},
		{"a mode that there is not", []string{"single-network", "some-network"}, "Unsupported value"},
		{"a name with a dot", []string{"name: red", "name: r.ed"}, "DNS label"},
	} {
		t.Run(x.name, func(t *testing.T) {
			text := edited(t, goodSlice, x.edits...)
			if !strings.Contains(text, "r.ed") { // each its own object: updates have rules of their own
				text = edited(t, text, "name: red", fmt.Sprint("name: s", i))
			}
			refused(t, apitest.Put(ctx, c, namespace, text), x.says)
		})
	}
}

func refused(t *testing.T, err error, says string) {
	t.Helper()
	switch {
	case says == "" && err != nil:
		t.Errorf("refused: %v", err)
	case says != "" && err == nil:
		t.Errorf("taken; want an error with %q", says)
	case says != "" && !strings.Contains(err.Error(), says):
		t.Errorf("%v; want %q", err, says)
	}
}

func TestServerRefusesChangesThatKubeSliceDoes(t *testing.T) {
	ctx, c, namespace := hub(t)
	for i, x := range []struct {
		name   string
		before []string
		edits  []string
		says   string
	}{
		{"another subnet", nil, []string{"10.1.0.0/16", "10.2.0.0/16"}, "sliceSubnet cannot be changed"},
		{"another maxClusters", nil, []string{"maxClusters: 4", "maxClusters: 5"}, "cannot be changed"},
		{"another tunnel", nil, []string{"Wireguard", "OpenVPN"}, "cannot be changed"},
		{"another address management", nil, []string{"maxClusters: 4", "maxClusters: 4\n  sliceIpamType: Dynamic"}, "cannot be changed"},
		{"the new name of the same", nil, []string{"maxClusters: 4", "maxClusters: 4\n  sliceIpamType: Static"}, ""},
		{"another mode", nil, []string{"single-network", "multi-network"}, "only be changed from no-network"},
		{"from no network to one", []string{"single-network", "no-network", "  sliceSubnet: 10.1.0.0/16\n", ""}, nil, ""},
		{"back to a node's port", nil, []string{"type: LoadBalancer", "type: NodePort"}, "LoadBalancer to NodePort"},
		{"to a load balancer", []string{"type: LoadBalancer", "type: NodePort"}, nil, ""},
		{"another protocol", nil, []string{"type: LoadBalancer", "type: LoadBalancer, protocol: TCP"}, "protocol of a cluster"},
		{"another type of slice", nil, []string{"maxClusters: 4", "maxClusters: 4\n  sliceType: Other"}, "cannot be changed"},
		{"a cluster more", nil, []string{"[a, b]", "[a, b, c]"}, ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			named := edited(t, goodSlice, "name: red", "name: u"+string(rune('a'+i)))
			refused(t, apitest.Put(ctx, c, namespace, edited(t, named, x.before...)), "")
			refused(t, apitest.Put(ctx, c, namespace, edited(t, named, x.edits...)), x.says)
		})
	}
}

func TestServerRefusesOtherKinds(t *testing.T) {
	ctx, c, namespace := hub(t)
	const head = "apiVersion: controller.kubeslice.io/v1alpha1\n"
	for _, x := range []struct{ name, text, says string }{
		{"a latitude", head + "kind: Cluster\nmetadata: {name: a}\nspec: {clusterProperty: {geoLocation: {latitude: '91'}}}", "-90 to 90"},
		{"a good one", head + "kind: Cluster\nmetadata: {name: a}\nspec: {nodeIPs: [192.0.2.1, '2001:db8::1'], clusterProperty: {geoLocation: {latitude: '-33.5', longitude: '151'}}}", ""},
		{"a node IP", head + "kind: Cluster\nmetadata: {name: a}\nspec: {nodeIPs: [nowhere]}", "IP address"},
		{"a project's name", head + "kind: Project\nmetadata: {name: a.b}\nspec: {}", "no dots"},
		{"a rotation of another slice", head + "kind: VpnKeyRotation\nmetadata: {name: a}\nspec: {sliceName: b}", "must be the slice's"},
		{"a profile", head + "kind: SliceQoSConfig\nmetadata: {name: p}\nspec: {priority: 0, bandwidthCeilingKbps: 1, bandwidthGuaranteedKbps: 2, dscpClass: EF}", "must not be more"},
		{"a port", "apiVersion: networking.kubeslice.io/v1beta1\nkind: ServiceExport\nmetadata: {name: a}\nspec: {slice: s, selector: {matchLabels: {a: b}}, ports: [{containerPort: 70000}]}", "65535"},
		{"an export without ports", "apiVersion: networking.kubeslice.io/v1beta1\nkind: ServiceExport\nmetadata: {name: a}\nspec: {slice: s, selector: {matchLabels: {a: b}}}", "spec.ports: Required value"},
		{"an MCS export, new", "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\nmetadata: {name: a}", ""},
		{"an MCS export, old", "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceExport\nmetadata: {name: b}", ""},
		{"an MCS import, new", "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceImport\nmetadata: {name: a}\nspec: {type: Headless, ports: [{port: 80}]}", ""},
		{"an MCS import, old", "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {name: b}\nspec: {type: ClusterSetIP, ports: [{port: 80}], ips: [192.0.2.1]}", ""},
		{"a policy without members", "apiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: p}\nspec: {slice: s, appliesTo: []}", "at least 1"},
		{"a policy", "apiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: p}\nspec: {slice: s, appliesTo: [{namespaces: [a]}], ingress: []}", ""},
		{"classes", "apiVersion: slicewire.io/v1alpha1\nkind: SliceClasses\nmetadata: {name: p}\nspec: {slice: s, classes: [{name: rest}]}", ""},
	} {
		t.Run(x.name, func(t *testing.T) { refused(t, apitest.Put(ctx, c, namespace, x.text), x.says) })
	}
}

func TestServerRefusesOtherChanges(t *testing.T) {
	ctx, c, namespace := hub(t)
	const worker = "apiVersion: worker.kubeslice.io/v1alpha1\n"
	for _, x := range []struct{ name, text, before, after, says string }{
		{"an octet", worker + "kind: WorkerSliceConfig\nmetadata: {name: a}\nspec: {octet: 1}", "octet: 1", "octet: 2", "octet cannot be changed"},
		{"an octet that goes", worker + "kind: WorkerSliceConfig\nmetadata: {name: b}\nspec: {octet: 1}", "octet: 1", "", "octet cannot be changed"},
		{"an octet that comes", worker + "kind: WorkerSliceConfig\nmetadata: {name: c}\nspec: {}", "{}", "{octet: 1}", ""},
		{"a gateway's number", worker + "kind: WorkerSliceGateway\nmetadata: {name: a}\nspec: {gatewayNumber: 1}", "Number: 1", "Number: 2", "gatewayNumber cannot be changed"},
		{"the subnet of an IPAM", "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceIpam\nmetadata: {name: a}\nspec: {sliceName: a, sliceSubnet: 10.1.0.0/16}", "10.1", "10.2", "cannot be changed"},
		{"its subnets' size", "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceIpam\nmetadata: {name: b}\nspec: {sliceName: b, sliceSubnet: 10.1.0.0/16}", "16}", "16, subnetSize: 20}", "cannot become less"},
	} {
		t.Run(x.name, func(t *testing.T) {
			refused(t, apitest.Put(ctx, c, namespace, x.text), "")
			refused(t, apitest.Put(ctx, c, namespace, edited(t, x.text, x.before, x.after)), x.says)
		})
	}
}
