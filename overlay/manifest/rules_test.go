package manifest

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// A world is a good set of manifests. Rules are tested by spoiling one line.
const world = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red, namespace: ks-demo}
spec:
  overlayNetworkDeploymentMode: single-network
  sliceSubnet: 10.1.0.0/16
  sliceGatewayProvider:
    sliceGatewayType: Wireguard
    sliceCaType: Local
    sliceGatewayServiceType: [{cluster: a, type: NodePort}]
  sliceIpamType: Static
  clusters: [a, b]
  maxClusters: 4
  rotationInterval: 30
  qosProfileDetails:
    queueType: HTB
    priority: 1
    tcType: BANDWIDTH_CONTROL
    bandwidthCeilingKbps: 5000
    bandwidthGuaranteedKbps: 2000
    dscpClass: AF11
  namespaceIsolationProfile:
    applicationNamespaces: [{namespace: shop, clusters: ['*']}]
    allowedNamespaces: [{namespace: kube-system, clusters: [a]}]
  externalGatewayConfig: [{gatewayType: none, clusters: [a]}]
  topology: {mode: FullMesh}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: dyn, namespace: ks-demo}
spec:
  sliceSubnet: 10.2.0.0/16
  sliceGatewayProvider: {sliceGatewayType: Wireguard}
  sliceIpamType: Dynamic
  clusters: [b, a]
  standardQosProfileName: gold
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceIpam
metadata: {name: dyn, namespace: ks-demo}
spec: {sliceName: dyn, sliceSubnet: 10.2.0.0/16, subnetSize: 26}
status:
  allocatedSubnets:
  - {clusterName: a, subnet: 10.2.0.64/26, status: InUse}
  - {clusterName: gone, subnet: 10.2.0.0/26, status: Released, releasedAt: "2026-01-01T00:00:00Z"}
  availableSubnets: 1023
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceQoSConfig
metadata: {name: gold, namespace: ks-demo}
spec: {queueType: HTB, priority: 0, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 900, bandwidthGuaranteedKbps: 100, dscpClass: EF}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: Project
metadata: {name: demo, namespace: kubeslice-controller}
spec: {serviceAccount: {readOnly: [ann], readWrite: [bob]}}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: Cluster
metadata: {name: a, namespace: ks-demo}
spec:
  nodeIPs: [192.0.2.1]
  networkInterface: eth0
  clusterProperty: {geoLocation: {latitude: "52.5", longitude: "13.4"}}
status:
  registrationStatus: Registered
  clusterHealth: {clusterHealthStatus: Normal}
  networkPresent: true
  cniSubnet: [10.244.0.0/16]
  namespaces: [{name: shop, sliceName: red}, {name: bar, sliceName: ""}]
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: Cluster
metadata: {name: b, namespace: ks-demo}
spec: {nodeIP: 192.0.2.2}
---
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceConfig
metadata: {name: red-a, namespace: ks-demo, labels: {worker-cluster: a}}
spec: {sliceName: red, octet: 2}
---
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceGateway
metadata: {name: red-a-b, namespace: ks-demo}
spec: {sliceName: red, gatewayHostType: Server, gatewayProtocol: UDP, gatewayConnectivityType: NodePort, gatewayNumber: 0}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: VpnKeyRotation
metadata: {name: red, namespace: ks-demo}
spec: {sliceName: red, rotationCount: 1}
---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: shop}
spec:
  slice: red
  selector: {matchLabels: {app: web}}
  ports: [{name: http, containerPort: 80, protocol: TCP}, {name: dns, containerPort: 53, protocol: UDP}]
  aliases: [Web.Example.com]
---
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: api, namespace: shop}
spec:
  slice: red
  selector: {matchLabels: {app: api}}
  ports: [{name: grpc, containerPort: 9000}]
  aliases: [api.example.com]
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: ServiceExportConfig
metadata: {name: old-shop-b, namespace: ks-demo}
spec:
  serviceName: old
  serviceNamespace: shop
  sourceCluster: b
  sliceName: red
  serviceDiscoveryEndpoints: [{podName: old-0, cluster: b, nsmIp: 10.1.0.9, port: 70}]
  serviceDiscoveryPorts: [{name: gopher, port: 70, protocol: TCP}]
`

// spoil replaces old, which must be there once, by new.
func spoil(t *testing.T, text, old, replacement string) string {
	t.Helper()
	if old == "" {
		return text + replacement
	}
	if n := strings.Count(text, old); n != 1 {
		t.Fatalf("%q is there %d times", old, n)
	}
	return strings.Replace(text, old, replacement, 1)
}

var testNow = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

func build(text string, opts Options) (sum Summary, problems []Problem) {
	set, problems := Parse("world.yaml", []byte(text))
	opts.Now = testNow
	mesh, more := Build(set, opts)
	problems = append(problems, more...)
	return Report(mesh, problems), problems
}

func has(problems []Problem, sev Severity, object, field, message string) bool {
	for _, p := range problems {
		if p.Severity == sev && p.Object == object && p.Field == field && strings.Contains(p.Message, message) &&
			p.File == "world.yaml" && p.Line > 0 && strings.Contains(p.String(), field+": ") {
			return true
		}
	}
	return false
}

func TestTheWorldIsGood(t *testing.T) {
	sum, problems := build(world, Options{})
	if len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	if len(sum.Slices) != 2 || len(sum.Slices[1].Services) != 3 {
		t.Errorf("got %+v", sum)
	}
}

const (
	redID  = "SliceConfig ks-demo/red"
	dynID  = "SliceConfig ks-demo/dyn"
	ipamID = "SliceIpam ks-demo/dyn"
	webID  = "ServiceExport shop/web"
	expID  = "ServiceExportConfig ks-demo/old-shop-b"
	clusID = "Cluster ks-demo/a"
)

func TestRules(t *testing.T) {
	const (
		clusters = "  clusters: [a, b]\n"
		subnet   = "sliceSubnet: 10.1.0.0/16\n"
		service  = "sliceGatewayServiceType: [{cluster: a, type: NodePort}]"
		appNS    = "applicationNamespaces: [{namespace: shop, clusters: ['*']}]"
		allowed  = "allowedNamespaces: [{namespace: kube-system, clusters: [a]}]"
		external = "externalGatewayConfig: [{gatewayType: none, clusters: [a]}]"
		topology = "topology: {mode: FullMesh}"
		httpPort = "{name: http, containerPort: 80, protocol: TCP}"
		profile  = "spec.namespaceIsolationProfile."
	)
	qos := world[strings.Index(world, "  qosProfileDetails:"):strings.Index(world, "  namespaceIsolationProfile:")]
	provider := world[strings.Index(world, "  sliceGatewayProvider:"):strings.Index(world, "  sliceIpamType: Static")]
	for _, tt := range []struct {
		name     string
		old, new string
		severity Severity
		object   string
		field    string
		message  string
	}{
		// SliceConfig: subnet
		{"a networked slice needs a subnet", subnet, "sliceSubnet: ''\n", Error, redID, "spec.sliceSubnet", "is required"},
		{"the subnet is a CIDR", subnet, "sliceSubnet: 10.1.0.0\n", Error, redID, "spec.sliceSubnet", "not a CIDR"},
		{"the subnet is private", subnet, "sliceSubnet: 8.8.0.0/16\n", Error, redID, "spec.sliceSubnet", "not private"},
		{"172.32 is not private", subnet, "sliceSubnet: 172.32.0.0/16\n", Error, redID, "spec.sliceSubnet", "not private"},
		{"an IPv6 subnet is not private", subnet, "sliceSubnet: fd00::/16\n", Error, redID, "spec.sliceSubnet", "not private"},
		{"the subnet is a /16", subnet, "sliceSubnet: 10.1.0.0/24\n", Error, redID, "spec.sliceSubnet", "must be a /16"},
		{"the third octet is zero", subnet, "sliceSubnet: 10.1.2.0/16\n", Error, redID, "spec.sliceSubnet", "third and fourth octet"},
		{"the fourth octet is zero", subnet, "sliceSubnet: 10.1.0.4/16\n", Error, redID, "spec.sliceSubnet", "third and fourth octet"},
		{"the subnet avoids a cluster's CNI", "cniSubnet: [10.244.0.0/16]", "cniSubnet: [10.1.128.0/17]", Error, redID, "spec.sliceSubnet", "overlaps the CNI subnet 10.1.128.0/17 of cluster a"},
		// SliceConfig: enums and ranges
		{"the mode is known", "overlayNetworkDeploymentMode: single-network", "overlayNetworkDeploymentMode: single-netwrk", Error, redID, "spec.overlayNetworkDeploymentMode", `did you mean "single-network"?`},
		{"multi-network is not served", "overlayNetworkDeploymentMode: single-network", "overlayNetworkDeploymentMode: multi-network", Warning, redID, "spec.overlayNetworkDeploymentMode", "multi-network"},
		{"the IPAM type is known", "sliceIpamType: Static", "sliceIpamType: Fixed", Error, redID, "spec.sliceIpamType", "none of Local, Static, Dynamic"},
		{"maxClusters is at least 2", "maxClusters: 4", "maxClusters: 1", Error, redID, "spec.maxClusters", "outside 2 to 32"},
		{"maxClusters is at most 32", "maxClusters: 4", "maxClusters: 33", Error, redID, "spec.maxClusters", "outside 2 to 32"},
		{"rotationInterval is at least 30", "rotationInterval: 30", "rotationInterval: 29", Error, redID, "spec.rotationInterval", "outside 30 to 90"},
		{"rotationInterval is at most 90", "rotationInterval: 30", "rotationInterval: 91", Error, redID, "spec.rotationInterval", "outside 30 to 90"},
		{"renewBefore is a time", "rotationInterval: 30", "renewBefore: tomorrow", Error, redID, "spec.renewBefore", "tomorrow"},
		{"subnetSize is at least 16", "rotationInterval: 30", "subnetSize: 15", Error, redID, "spec.subnetSize", "outside 16 to 30"},
		{"subnetSize is at most 30", "rotationInterval: 30", "subnetSize: 31", Error, redID, "spec.subnetSize", "outside 16 to 30"},
		{"the cipher is known", "rotationInterval: 30", "vpnConfig: {cipher: AES-256-GCM}", Error, redID, "spec.vpnConfig.cipher", "none of AES-256-CBC, AES-128-CBC"},
		{"the cipher is ignored", "rotationInterval: 30", "vpnConfig: {cipher: AES-128-CBC}", Warning, redID, "spec.vpnConfig.cipher", "ignored"},
		// SliceConfig: gateways
		{"a networked slice needs a gateway provider", provider, "", Error, redID, "spec.sliceGatewayProvider", "is required"},
		{"the gateway type is known", "    sliceGatewayType: Wireguard\n", "    sliceGatewayType: IPsec\n", Error, redID, "spec.sliceGatewayProvider.sliceGatewayType", "none of"},
		{"the documentation's spelling is taken", "    sliceGatewayType: Wireguard\n", "    sliceGatewayType: Wiregaurd\n", Warning, redID, "spec.sliceGatewayProvider.sliceGatewayType", "taken for Wireguard"},
		{"OpenVPN is served by WireGuard", "    sliceGatewayType: Wireguard\n", "    sliceGatewayType: OpenVPN\n", Warning, redID, "spec.sliceGatewayProvider.sliceGatewayType", "served by WireGuard (slices: red)"},
		{"another CA type is said", "sliceCaType: Local", "sliceCaType: Vault", Warning, redID, "spec.sliceGatewayProvider.sliceCaType", "mesh's own CA"},
		{"a service type has a cluster", service, "sliceGatewayServiceType: [{type: NodePort}]", Error, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].cluster", "is required"},
		{"a service type is known", service, "sliceGatewayServiceType: [{cluster: a, type: ClusterIP}]", Error, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].type", "none of NodePort"},
		{"a service type's protocol is known", service, "sliceGatewayServiceType: [{cluster: a, protocol: SCTP}]", Error, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].protocol", "none of TCP, UDP"},
		{"a service type is for one cluster once", service, "sliceGatewayServiceType: [{cluster: a}, {cluster: a}]", Error, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[1].cluster", "twice"},
		{"a service type is for a member", service, "sliceGatewayServiceType: [{cluster: z}]", Error, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].cluster", "not one of the slice's clusters"},
		{"LoadBalancer is not supported", service, "sliceGatewayServiceType: [{cluster: '*', type: LoadBalancer}]", Warning, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].type", "LoadBalancer"},
		{"TCP tunnels are not supported", service, "sliceGatewayServiceType: [{cluster: a, protocol: TCP}]", Warning, redID, "spec.sliceGatewayProvider.sliceGatewayServiceType[0].protocol", "TCP"},
		// SliceConfig: clusters
		{"a cluster is a member once", clusters, "  clusters: [a, b, a]\n", Error, redID, "spec.clusters[2]", "twice"},
		{"there are no more clusters than maxClusters", clusters, "  clusters: [a, b, c, d, e]\n", Error, redID, "spec.clusters", "more than maxClusters 4"},
		{"a cluster's name is a label", clusters, "  clusters: [a, B]\n", Error, redID, "spec.clusters[1]", "not a DNS label"},
		{"a long cluster name is said", clusters, "  clusters: [a, abcdefghijklmnop]\n", Warning, redID, "spec.clusters[1]", "15 characters"},
		{"a cluster without object is said", clusters, "  clusters: [a, b, c]\n", Warning, redID, "spec.clusters[2]", "no Cluster object"},
		{"a member is registered", "registrationStatus: Registered", "registrationStatus: Pending", Error, redID, "spec.clusters[0]", "not Registered"},
		{"a member is healthy", "clusterHealthStatus: Normal", "clusterHealthStatus: Warning", Error, redID, "spec.clusters[0]", "not Normal"},
		{"a member has node IPs", "nodeIPs: [192.0.2.1]", "nodeIPs: []", Error, redID, "spec.clusters[0]", "no node IPs"},
		{"a member has the slice network", "networkPresent: true", "networkPresent: false", Error, redID, "spec.clusters[0]", "networkPresent"},
		{"a member has CNI subnets", "cniSubnet: [10.244.0.0/16]", "cniSubnet: []", Error, redID, "spec.clusters[0]", "cniSubnet"},
		// SliceConfig: QoS
		{"QoS is given", qos, "", Error, redID, "spec.standardQosProfileName", "give standardQosProfileName or qosProfileDetails"},
		{"QoS is given once", clusters, clusters + "  standardQosProfileName: gold\n", Error, redID, "spec.standardQosProfileName", "not both"},
		{"the profile exists", "standardQosProfileName: gold", "standardQosProfileName: golt", Error, dynID, "spec.standardQosProfileName", `did you mean "gold"?`},
		{"the profile is good", "bandwidthGuaranteedKbps: 100,", "bandwidthGuaranteedKbps: 1000,", Error, dynID, "spec.standardQosProfileName", "has errors"},
		{"the guarantee is within the ceiling", "bandwidthGuaranteedKbps: 2000", "bandwidthGuaranteedKbps: 5001", Error, redID, "spec.qosProfileDetails.bandwidthGuaranteedKbps", "more than bandwidthCeilingKbps 5000"},
		{"the guarantee is not negative", "bandwidthGuaranteedKbps: 2000", "bandwidthGuaranteedKbps: -1", Error, redID, "spec.qosProfileDetails.bandwidthGuaranteedKbps", "negative"},
		{"the ceiling is not negative", "bandwidthCeilingKbps: 5000", "bandwidthCeilingKbps: -1", Error, redID, "spec.qosProfileDetails.bandwidthCeilingKbps", "negative"},
		{"the ceiling is required", "    bandwidthCeilingKbps: 5000\n", "", Error, redID, "spec.qosProfileDetails.bandwidthCeilingKbps", "is required"},
		{"the guarantee is required", "    bandwidthGuaranteedKbps: 2000\n", "", Error, redID, "spec.qosProfileDetails.bandwidthGuaranteedKbps", "is required"},
		{"the priority is required", "    priority: 1\n", "", Error, redID, "spec.qosProfileDetails.priority", "is required"},
		{"the DSCP class is required", "    dscpClass: AF11\n", "", Error, redID, "spec.qosProfileDetails.dscpClass", "is required"},
		{"the DSCP class is known", "dscpClass: AF11", "dscpClass: AF14", Error, redID, "spec.qosProfileDetails.dscpClass", "none of Default, AF11"},
		{"the queue type is known", "    queueType: HTB\n", "    queueType: HFSC\n", Error, redID, "spec.qosProfileDetails.queueType", "none of HTB"},
		{"the traffic control type is known", "    tcType: BANDWIDTH_CONTROL\n", "    tcType: POLICE\n", Error, redID, "spec.qosProfileDetails.tcType", "none of BANDWIDTH_CONTROL"},
		{"an odd priority is said", "    priority: 1\n", "    priority: 7\n", Warning, redID, "spec.qosProfileDetails.priority", "0 to 3"},
		// SliceConfig: namespaces
		{"an application namespace has a name", appNS, "applicationNamespaces: [{clusters: ['*']}]", Error, redID, profile + "applicationNamespaces[0].namespace", "is required"},
		{"an application namespace has clusters", appNS, "applicationNamespaces: [{namespace: shop}]", Error, redID, profile + "applicationNamespaces[0].clusters", "is required"},
		{"an application namespace has a proper name", appNS, "applicationNamespaces: [{namespace: sh.op, clusters: ['*']}]", Error, redID, profile + "applicationNamespaces[0].namespace", "other characters"},
		{"an application namespace is there once", appNS, "applicationNamespaces: [{namespace: shop, clusters: [a]}, {namespace: shop, clusters: [b]}]", Error, redID, profile + "applicationNamespaces[1].namespace", "twice"},
		{"a namespace of Kubernetes is nobody's", appNS, "applicationNamespaces: [{namespace: kube-system, clusters: ['*']}]", Error, redID, profile + "applicationNamespaces[0].namespace", "Kubernetes' own"},
		{"a star stands alone", appNS, "applicationNamespaces: [{namespace: shop, clusters: ['*', a]}]", Error, redID, profile + "applicationNamespaces[0].clusters", "only entry"},
		{"a cluster of a namespace is there once", appNS, "applicationNamespaces: [{namespace: shop, clusters: [a, a]}]", Error, redID, profile + "applicationNamespaces[0].clusters[1]", "twice"},
		{"a cluster of a namespace is a member", appNS, "applicationNamespaces: [{namespace: shop, clusters: [c]}]", Error, redID, profile + "applicationNamespaces[0].clusters[0]", "not one of the slice's clusters"},
		{"an allowed namespace has a name", allowed, "allowedNamespaces: [{clusters: [a]}]", Error, redID, profile + "allowedNamespaces[0].namespace", "is required"},
		{"an allowed namespace has clusters", allowed, "allowedNamespaces: [{namespace: x}]", Error, redID, profile + "allowedNamespaces[0].clusters", "is required"},
		{"an allowed namespace has a proper name", allowed, "allowedNamespaces: [{namespace: x_y, clusters: [a]}]", Error, redID, profile + "allowedNamespaces[0].namespace", "other characters"},
		{"an allowed namespace is there once", allowed, "allowedNamespaces: [{namespace: x, clusters: [a]}, {namespace: x, clusters: [b]}]", Error, redID, profile + "allowedNamespaces[1].namespace", "twice"},
		{"a star stands alone among allowed clusters", allowed, "allowedNamespaces: [{namespace: x, clusters: [a, '*']}]", Error, redID, profile + "allowedNamespaces[0].clusters", "only entry"},
		{"a cluster of an allowed namespace is a member", allowed, "allowedNamespaces: [{namespace: x, clusters: [c]}]", Error, redID, profile + "allowedNamespaces[0].clusters[0]", "not one of the slice's clusters"},
		{"a namespace is on one slice", "  standardQosProfileName: gold\n", "  standardQosProfileName: gold\n  namespaceIsolationProfile: {applicationNamespaces: [{namespace: shop, clusters: [b]}]}\n", Error, redID, profile + "applicationNamespaces[0].namespace", "already on slice dyn"},
		{"a namespace is not taken from the slice a cluster tells of", "{name: shop, sliceName: red}", "{name: shop, sliceName: other}", Error, redID, profile + "applicationNamespaces[0].namespace", "already on slice other"},
		// SliceConfig: external gateways and topology
		{"the external gateway type is known", external, "externalGatewayConfig: [{gatewayType: nginx, clusters: [a]}]", Error, redID, "spec.externalGatewayConfig[0].gatewayType", "none of none, istio, envoy"},
		{"istio is not supported", external, "externalGatewayConfig: [{gatewayType: istio, clusters: [a]}]", Warning, redID, "spec.externalGatewayConfig[0].gatewayType", "not supported"},
		{"envoy is not supported", external, "externalGatewayConfig: [{gatewayType: envoy, clusters: ['*']}]", Warning, redID, "spec.externalGatewayConfig[0].gatewayType", "not supported"},
		{"a star stands alone among external gateways", external, "externalGatewayConfig: [{gatewayType: none, clusters: ['*', a]}]", Error, redID, "spec.externalGatewayConfig[0].clusters", "only entry"},
		{"one external gateway has the star", external, "externalGatewayConfig: [{clusters: ['*']}, {clusters: ['*']}]", Error, redID, "spec.externalGatewayConfig[1].clusters[0]", "also in externalGatewayConfig[0]"},
		{"a cluster has one external gateway", external, "externalGatewayConfig: [{clusters: [a]}, {clusters: [a]}]", Error, redID, "spec.externalGatewayConfig[1].clusters[0]", "also in externalGatewayConfig[0]"},
		{"a cluster of an external gateway is a member", external, "externalGatewayConfig: [{clusters: [c]}]", Error, redID, "spec.externalGatewayConfig[0].clusters[0]", "not one of the slice's clusters"},
		{"the topology is known", topology, "topology: {mode: Ring}", Error, redID, "spec.topology.mode", "none of FullMesh, HubAndSpoke"},
		{"hub and spoke needs a hub", topology, "topology: {mode: HubAndSpoke, spokes: [a]}", Error, redID, "spec.topology.hubs", "wants 1 or 2"},
		{"hub and spoke has two hubs at most", topology, "topology: {mode: HubAndSpoke, hubs: [a, b, c]}", Error, redID, "spec.topology.hubs", "wants 1 or 2"},
		{"a hub is a member", topology, "topology: {mode: HubAndSpoke, hubs: [c]}", Error, redID, "spec.topology.hubs[0]", "not one of the slice's clusters"},
		{"a hub is there once", topology, "topology: {mode: HubAndSpoke, hubs: [a, a]}", Error, redID, "spec.topology.hubs[1]", "twice"},
		{"a spoke is a member", topology, "topology: {mode: HubAndSpoke, hubs: [a], spokes: [c]}", Error, redID, "spec.topology.spokes[0]", "not one of the slice's clusters"},
		{"a spoke is there once", topology, "topology: {mode: HubAndSpoke, hubs: [a], spokes: [b, b]}", Error, redID, "spec.topology.spokes[1]", "twice"},
		{"a spoke is no hub", topology, "topology: {mode: HubAndSpoke, hubs: [a], spokes: [a]}", Error, redID, "spec.topology.spokes[0]", "is a hub"},
		// SliceConfig: name
		{"a long slice name is said", "metadata: {name: dyn, namespace: ks-demo}\nspec:\n", "metadata: {name: abcdefghijklmnop, namespace: ks-demo}\nspec:\n", Warning, "SliceConfig ks-demo/abcdefghijklmnop", "metadata.name", "15 characters"},
		{"a slice name is a label", "metadata: {name: red, namespace: ks-demo}\nspec:\n  overlay", "metadata: {name: r.ed, namespace: ks-demo}\nspec:\n  overlay", Error, "SliceConfig ks-demo/r.ed", "metadata.name", "not a DNS label"},
		{"a slice is defined once", "", "---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: red, namespace: ks-other}\n", Error, "SliceConfig ks-other/red", "metadata.name", "already defined at world.yaml:2"},
		{"a namespace belongs to a Project", "metadata: {name: gold, namespace: ks-demo}", "metadata: {name: gold, namespace: elsewhere}", Warning, "SliceQoSConfig elsewhere/gold", "metadata.namespace", "no Project"},
		// Dynamic IPAM
		{"two dynamic slices have two subnets", "", "---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: zed, namespace: ks-demo}\nspec: {sliceSubnet: 10.2.0.0/16, sliceIpamType: Dynamic}\n", Error, "SliceConfig ks-demo/zed", "spec.sliceSubnet", "also the subnet of slice dyn"},
		{"an IPAM's slice exists", "{sliceName: dyn, ", "{sliceName: dym, ", Error, ipamID, "spec.sliceName", `did you mean "dyn"?`},
		{"an IPAM's slice is Dynamic", "{sliceName: dyn, ", "{sliceName: red, ", Error, ipamID, "spec.sliceName", "not Dynamic"},
		{"an IPAM has its slice's subnet", "sliceSubnet: 10.2.0.0/16, ", "sliceSubnet: 10.3.0.0/16, ", Error, ipamID, "spec.sliceSubnet", "not the slice's subnet"},
		{"an IPAM's subnet is IPv4", "sliceSubnet: 10.2.0.0/16, ", "sliceSubnet: 'fd00::/16', ", Error, ipamID, "spec.sliceSubnet", "not an IPv4 CIDR"},
		{"an IPAM's subnet is a network", "sliceSubnet: 10.2.0.0/16, ", "sliceSubnet: 10.2.0.1/16, ", Error, ipamID, "spec.sliceSubnet", "not a network address"},
		{"an IPAM's subnet is private", "sliceSubnet: 10.2.0.0/16, ", "sliceSubnet: 11.2.0.0/16, ", Error, ipamID, "spec.sliceSubnet", "not private"},
		{"an IPAM's subnet is not too small", "sliceSubnet: 10.2.0.0/16, ", "sliceSubnet: 10.2.0.0/29, ", Error, ipamID, "spec.sliceSubnet", "outside 8 to 28"},
		{"an IPAM's share is smaller than the slice", "subnetSize: 26", "subnetSize: 16", Error, ipamID, "spec.subnetSize", "longer than the slice's /16"},
		{"an IPAM's share is in range", "subnetSize: 26", "subnetSize: 31", Error, ipamID, "spec.subnetSize", "outside 16 to 30"},
		{"an IPAM names its slice", "{sliceName: dyn, ", "{", Error, ipamID, "spec.sliceName", "is required"},
		{"an IPAM counts what is left", "  availableSubnets: 1023\n", "", Error, ipamID, "status.availableSubnets", "is required"},
		{"an allocation lies in the slice", "subnet: 10.2.0.64/26", "subnet: 10.9.0.64/26", Error, ipamID, "status.allocatedSubnets[0].subnet", "not a /26 of 10.2.0.0/16"},
		{"an allocation is there once", "subnet: 10.2.0.0/26", "subnet: 10.2.0.64/26", Error, ipamID, "status.allocatedSubnets[1].subnet", "twice"},
		{"an allocation's status is known", "status: InUse", "status: Used", Error, ipamID, "status.allocatedSubnets[0].status", "none of Allocated, InUse, Released"},
		{"a slice has one IPAM", "", "---\napiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceIpam\nmetadata: {name: dyn2, namespace: ks-demo}\nspec: {sliceName: dyn, sliceSubnet: 10.2.0.0/16}\n", Error, "SliceIpam ks-demo/dyn2", "spec.sliceName", "already has SliceIpam dyn"},
		{"a dynamic share without IPAM object is smaller than the slice", "metadata: {name: dyn, namespace: ks-demo}\nspec: {sliceName: dyn, sliceSubnet: 10.2.0.0/16, subnetSize: 26}", "metadata: {name: dyn, namespace: other}\nspec: {sliceName: dyn, sliceSubnet: 10.2.0.0/16, subnetSize: 26}", Error, "SliceIpam other/dyn", "spec.sliceName", "no SliceConfig"},
		// Cluster, Project, SliceQoSConfig
		{"a node IP is an IP", "nodeIPs: [192.0.2.1]", "nodeIPs: [192.0.2.256]", Error, clusID, "spec.nodeIPs[0]", "not an IP address"},
		{"the deprecated node IP is an IP", "nodeIP: 192.0.2.2", "nodeIP: host-2", Error, "Cluster ks-demo/b", "spec.nodeIP", "not an IP address"},
		{"the latitude is at most 90", `latitude: "52.5"`, `latitude: "90.1"`, Error, clusID, "spec.clusterProperty.geoLocation.latitude", "from -90 to 90"},
		{"the latitude is a number", `latitude: "52.5"`, `latitude: "NaN"`, Error, clusID, "spec.clusterProperty.geoLocation.latitude", "from -90 to 90"},
		{"the longitude is at least -180", `longitude: "13.4"`, `longitude: "-181"`, Error, clusID, "spec.clusterProperty.geoLocation.longitude", "from -180 to 180"},
		{"the longitude comes with the latitude", `, longitude: "13.4"`, "", Error, clusID, "spec.clusterProperty.geoLocation.longitude", "from -180 to 180"},
		{"the registration status is known", "registrationStatus: Registered", "registrationStatus: Done", Error, clusID, "status.registrationStatus", "none of"},
		{"the health is known", "clusterHealthStatus: Normal", "clusterHealthStatus: Fine", Error, clusID, "status.clusterHealth.clusterHealthStatus", "none of"},
		{"a CNI subnet is a CIDR", "cniSubnet: [10.244.0.0/16]", "cniSubnet: [10.244.0.0]", Error, clusID, "status.cniSubnet[0]", "not a CIDR"},
		{"a cluster's name is a label, too", "metadata: {name: b, namespace: ks-demo}", "metadata: {name: b.c, namespace: ks-demo}", Error, "Cluster ks-demo/b.c", "metadata.name", "not a DNS label"},
		{"a project's name has no dot", "metadata: {name: demo, ", "metadata: {name: de.mo, ", Error, "Project kubeslice-controller/de.mo", "metadata.name", "dot"},
		{"a project's name is short", "metadata: {name: demo, ", "metadata: {name: a234567890123456789012345678901, ", Error, "Project kubeslice-controller/a234567890123456789012345678901", "metadata.name", "30 characters"},
		{"a reader's name is a label", "readOnly: [ann]", "readOnly: [Ann]", Error, "Project kubeslice-controller/demo", "spec.serviceAccount.readOnly[0]", "not a DNS label"},
		{"a writer's name is a label", "readWrite: [bob]", "readWrite: [bob_1]", Error, "Project kubeslice-controller/demo", "spec.serviceAccount.readWrite[0]", "not a DNS label"},
		{"a profile's guarantee is within its ceiling", "bandwidthGuaranteedKbps: 100,", "bandwidthGuaranteedKbps: 1000,", Error, "SliceQoSConfig ks-demo/gold", "spec.bandwidthGuaranteedKbps", "more than bandwidthCeilingKbps 900"},
		{"a profile's DSCP class is known", "dscpClass: EF}", "dscpClass: ef}", Error, "SliceQoSConfig ks-demo/gold", "spec.dscpClass", `did you mean "EF"?`},
		// worker objects, rotation
		{"an octet fits maxClusters", "octet: 2}", "octet: 4}", Error, "WorkerSliceConfig ks-demo/red-a", "spec.octet", "outside 0 to 3"},
		{"an octet is not negative", "octet: 2}", "octet: -1}", Error, "WorkerSliceConfig ks-demo/red-a", "spec.octet", "outside 0 to 3"},
		{"two clusters have two octets", "", "---\napiVersion: worker.kubeslice.io/v1alpha1\nkind: WorkerSliceConfig\nmetadata: {name: red-b, namespace: ks-demo}\nspec: {sliceName: red, octet: 2}\n", Error, "WorkerSliceConfig ks-demo/red-b", "spec.octet", "also the octet of red-a"},
		{"an octet without its slice is in range, too", "", "---\napiVersion: worker.kubeslice.io/v1alpha1\nkind: WorkerSliceConfig\nmetadata: {name: far-a, namespace: ks-demo, labels: {worker-cluster: a}}\nspec: {sliceName: far, octet: 32}\n", Error, "WorkerSliceConfig ks-demo/far-a", "spec.octet", "outside 0 to 31"},
		{"an octet is of a slice", "spec: {sliceName: red, octet: 2}", "spec: {octet: 2}", Warning, "WorkerSliceConfig ks-demo/red-a", "spec.sliceName", "which slice"},
		{"a gateway's host type is known", "gatewayHostType: Server", "gatewayHostType: Peer", Error, "WorkerSliceGateway ks-demo/red-a-b", "spec.gatewayHostType", "none of Client, Server"},
		{"a gateway's protocol is known", "gatewayProtocol: UDP", "gatewayProtocol: ESP", Error, "WorkerSliceGateway ks-demo/red-a-b", "spec.gatewayProtocol", "none of TCP, UDP"},
		{"a gateway's connectivity is known", "gatewayConnectivityType: NodePort", "gatewayConnectivityType: Host", Error, "WorkerSliceGateway ks-demo/red-a-b", "spec.gatewayConnectivityType", "none of NodePort, LoadBalancer"},
		{"a rotation names its slice", "{sliceName: red, rotationCount: 1}", "{rotationCount: 1}", Error, "VpnKeyRotation ks-demo/red", "spec.sliceName", "is required"},
		{"a rotation has its slice's name", "{sliceName: red, rotationCount: 1}", "{sliceName: dyn, rotationCount: 1}", Error, "VpnKeyRotation ks-demo/red", "metadata.name", "must be the slice's name"},
		// ServiceExport
		{"an export names its slice", "metadata: {name: web, namespace: shop}\nspec:\n  slice: red", "metadata: {name: web, namespace: shop}\nspec:\n  slice: rad", Error, webID, "spec.slice", `did you mean "red"?`},
		{"an export has a slice", "metadata: {name: web, namespace: shop}\nspec:\n  slice: red\n", "metadata: {name: web, namespace: shop}\nspec:\n", Error, webID, "spec.slice", "is required"},
		{"an export has a selector", "  selector: {matchLabels: {app: web}}\n", "", Error, webID, "spec.selector", "is required"},
		{"an export has ports", "  ports: [" + httpPort + ", {name: dns, containerPort: 53, protocol: UDP}]\n", "", Error, webID, "spec.ports", "is required"},
		{"an export without any port is said", "  ports: [" + httpPort + ", {name: dns, containerPort: 53, protocol: UDP}]\n", "  ports: []\n", Warning, webID, "spec.ports", "no ports"},
		{"a port has a number", httpPort, "{name: http}", Error, webID, "spec.ports[0].containerPort", "is required"},
		{"a port is not zero", httpPort, "{name: http, containerPort: 0}", Error, webID, "spec.ports[0].containerPort", "outside 1 to 65535"},
		{"a port has 16 bits", httpPort, "{name: http, containerPort: 65536}", Error, webID, "spec.ports[0].containerPort", "outside 1 to 65535"},
		{"a port's protocol is known", httpPort, "{name: http, containerPort: 80, protocol: tcp}", Error, webID, "spec.ports[0].protocol", `did you mean "TCP"?`},
		{"SCTP is not supported", httpPort, "{name: http, containerPort: 80, protocol: SCTP}", Warning, webID, "spec.ports[0].protocol", "SCTP"},
		{"a port's service protocol is known", httpPort, "{name: http, containerPort: 80, serviceProtocol: GRPC}", Error, webID, "spec.ports[0].serviceProtocol", "none of HTTP, HTTPS"},
		{"a port name is there once", "{name: dns, containerPort: 53", "{name: http, containerPort: 53", Error, webID, "spec.ports[1].name", "twice"},
		{"a port number is there once", "{name: dns, containerPort: 53, protocol: UDP}", "{name: dns, containerPort: 80}", Error, webID, "spec.ports[1].containerPort", "twice"},
		{"an alias is unique, whatever its case", "aliases: [Web.Example.com]", "aliases: [API.Example.COM]", Error, webID, "spec.aliases[0]", "already exists"},
		{"an alias is there once", "aliases: [Web.Example.com]", "aliases: [x.y, X.y]", Error, webID, "spec.aliases[1]", "twice"},
		{"an alias is not another service's name", "aliases: [Web.Example.com]", "aliases: [api.shop.svc.slice.local]", Error, webID, "spec.aliases[0]", "already exists: ServiceExport shop/api"},
		{"an alias is a DNS name", "aliases: [Web.Example.com]", "aliases: ['a b']", Error, webID, "spec.aliases[0]", "not a DNS name"},
		{"an export's namespace is bound", appNS, "applicationNamespaces: [{namespace: other, clusters: ['*']}]", Warning, webID, "metadata.namespace", "pending"},
		{"an export's name is a label", "metadata: {name: web, namespace: shop}", "metadata: {name: w.eb, namespace: shop}", Error, "ServiceExport shop/w.eb", "metadata.name", "not a DNS label"},
		{"an export's namespace is a label", "metadata: {name: web, namespace: shop}", "metadata: {name: web, namespace: sh.op}", Error, "ServiceExport sh.op/web", "metadata.namespace", "not a DNS label"},
		// ServiceExportConfig
		{"an export config's slice exists", "  sliceName: red\n  serviceDiscoveryEndpoints", "  sliceName: rad\n  serviceDiscoveryEndpoints", Error, expID, "spec.sliceName", `did you mean "red"?`},
		{"an export config's cluster is a member", "sourceCluster: b", "sourceCluster: c", Error, expID, "spec.sourceCluster", "not one of the clusters of slice red"},
		{"an export config's endpoint is at a member", "{podName: old-0, cluster: b,", "{podName: old-0, cluster: c,", Error, expID, "spec.serviceDiscoveryEndpoints[0].cluster", "not one of the clusters"},
		{"an export config names a service", "  serviceName: old\n", "", Error, expID, "spec.serviceName", "is required"},
		{"an export config names a cluster", "  sourceCluster: b\n", "", Error, expID, "spec.sourceCluster", "is required"},
		{"an export config's port is a port", "{name: gopher, port: 70,", "{name: gopher, port: 70000,", Error, expID, "spec.serviceDiscoveryPorts[0].port", "outside 1 to 65535"},
		// the API server's part
		{"an unknown field is ignored with the nearest known", subnet, subnet + "  sliceSubnett: 1\n", Warning, redID, "spec.sliceSubnett", `did you mean "sliceSubnet"?`},
		{"an unknown field deep down is ignored", "{name: dns, containerPort: 53", "{name: dns, colour: red, containerPort: 53", Warning, webID, "spec.ports[1].colour", "unknown field"},
		{"a repeated field is said", "maxClusters: 4\n", "maxClusters: 4\n  maxClusters: 8\n", Warning, redID, "spec.maxClusters", "also on line"},
		{"a list is no string", subnet, "sliceSubnet: [10.1.0.0/16]\n", Error, redID, "spec.sliceSubnet", "must be a string, not a list"},
		{"a string is no list", clusters, "  clusters: a\n", Error, redID, "spec.clusters", `must be a list, not "a"`},
		{"a string is no number", "maxClusters: 4", "maxClusters: four", Error, redID, "spec.maxClusters", "must be a whole number"},
		{"a quoted number is no number", "maxClusters: 4", "maxClusters: '4'", Error, redID, "spec.maxClusters", "must be a whole number"},
		{"a fraction is no whole number", "maxClusters: 4", "maxClusters: 4.5", Error, redID, "spec.maxClusters", "must be a whole number"},
		{"a number is no string, either", "networkInterface: eth0", "networkInterface: 5", Error, clusID, "spec.networkInterface", "quote it"},
		{"a word is no truth", "networkPresent: true", "networkPresent: maybe", Error, clusID, "status.networkPresent", "true or false"},
		{"a list is no object", topology, "topology: [FullMesh]", Error, redID, "spec.topology", "must be an object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sum, problems := build(spoil(t, world, tt.old, tt.new), Options{})
			if !has(problems, tt.severity, tt.object, tt.field, tt.message) {
				t.Errorf("want %v on %s %s: %s; got:", tt.severity, tt.object, tt.field, tt.message)
				for _, p := range problems {
					t.Logf("%v %v", p.Severity, p)
				}
			}
			failed := false
			for _, p := range problems {
				failed = failed || p.Object == tt.object && p.Severity == Error
			}
			if failed != (tt.severity == Error) {
				t.Errorf("want one %v of it, got %v", tt.severity, problems)
			}
			slice, ok := strings.CutPrefix(tt.object, "SliceConfig ks-demo/")
			if in := slices.ContainsFunc(sum.Slices, func(s SliceSummary) bool { return s.Name == slice }); ok && in == failed {
				t.Errorf("slice %s in the mesh: %v, with %v", slice, in, problems)
			}
		})
	}
}
