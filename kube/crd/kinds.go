package crd

// kinds names the resources as KubeSlice does; it is never written to.
var kinds = map[string]about{
	"Project": {plural: "projects", text: "Project is a tenant: a namespace with slices and clusters of its own."},
	"Cluster": {plural: "clusters", text: "Cluster is a site of the mesh.", columns: []column{
		{"Registration", "string", ".status.registrationStatus", false},
		{"Health", "string", ".status.clusterHealth.clusterHealthStatus", false},
		{"Node IPs", "string", ".status.nodeIPs", true},
	}},
	"SliceConfig": {plural: "sliceconfigs", short: []string{"slicecfg"}, text: "SliceConfig is a slice: an isolated network between clusters.", columns: []column{
		{"Subnet", "string", ".spec.sliceSubnet", false},
		{"Mode", "string", ".spec.overlayNetworkDeploymentMode", false},
		{"Clusters", "string", ".spec.clusters", false},
		{"Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false},
		{"Reason", "string", ".status.conditions[?(@.type==\"Accepted\")].reason", true},
	}},
	"ServiceExportConfig": {plural: "serviceexportconfigs", short: []string{"svcexcfg"}, text: "ServiceExportConfig is one cluster's export of a service.", columns: []column{
		{"Service", "string", ".spec.serviceName", false},
		{"Namespace", "string", ".spec.serviceNamespace", false},
		{"Slice", "string", ".spec.sliceName", false},
		{"Cluster", "string", ".spec.sourceCluster", false},
	}},
	"SliceQoSConfig": {plural: "sliceqosconfigs", short: []string{"sliceqos"}, text: "SliceQoSConfig is a share of the uplinks that slices refer to by its name.", columns: []column{
		{"Ceiling", "integer", ".spec.bandwidthCeilingKbps", false},
		{"Guaranteed", "integer", ".spec.bandwidthGuaranteedKbps", false},
		{"Priority", "integer", ".spec.priority", false},
		{"DSCP", "string", ".spec.dscpClass", false},
	}},
	"VpnKeyRotation": {plural: "vpnkeyrotations", text: "VpnKeyRotation says how old a slice's keys are and when they change.", columns: []column{
		{"Slice", "string", ".spec.sliceName", false},
		{"Rotation", "integer", ".spec.rotationCount", false},
		{"Expires", "date", ".spec.certificateExpiryTime", false},
	}},
	"SliceIpam": {plural: "sliceipams", text: "SliceIpam holds which subnets of a slice with dynamic addresses are whose.", columns: []column{
		{"Slice", "string", ".spec.sliceName", false},
		{"Subnet", "string", ".spec.sliceSubnet", false},
		{"Available", "integer", ".status.availableSubnets", false},
	}},
	"WorkerSliceConfig": {plural: "workersliceconfigs", short: []string{"wsc"}, text: "WorkerSliceConfig is a slice as one cluster sees it, worked out from its SliceConfig.", columns: []column{
		{"Slice", "string", ".spec.sliceName", false},
		{"Octet", "integer", ".spec.octet", false},
		{"Subnet", "string", ".spec.clusterSubnetCIDR", false},
		{"Health", "string", ".status.sliceHealth.sliceHealthStatus", false},
	}},
	"WorkerSliceGateway": {plural: "workerslicegateways", short: []string{"wsg"}, text: "WorkerSliceGateway is one end of what joins two clusters of a slice.", columns: []column{
		{"Slice", "string", ".spec.sliceName", false},
		{"Host", "string", ".spec.gatewayHostType", false},
		{"Remote", "string", ".spec.remoteGatewayConfig.clusterName", false},
		{"State", "string", ".status.connectionState", false},
	}},
	"WorkerServiceImport": {plural: "workerserviceimports", short: []string{"wsi"}, text: "WorkerServiceImport is an exported service as one cluster imports it.", columns: []column{
		{"Service", "string", ".spec.serviceName", false},
		{"Namespace", "string", ".spec.serviceNamespace", false},
		{"Slice", "string", ".spec.sliceName", false},
		{"Sources", "string", ".spec.sourceClusters", false},
	}},
	"WorkerSliceGwRecycler": {plural: "workerslicegwrecyclers", text: "WorkerSliceGwRecycler replaces a pair of KubeSlice's gateway pods. slicewire has none and only reads it."},
	"Slice": {plural: "slices", text: "Slice is a slice in this cluster; all that it says is status.", columns: []column{
		{"Subnet", "string", ".status.sliceConfig.sliceSubnet", false},
		{"Cluster Subnet", "string", ".status.sliceConfig.clusterSubnetCIDR", false},
	}},
	"SliceGateway": {plural: "slicegateways", short: []string{"gw", "slicegw"}, text: "SliceGateway is what joins a slice in this cluster with another cluster.", columns: []column{
		{"Subnet", "string", ".status.config.sliceGatewaySubnet", false},
		{"Remote Subnet", "string", ".status.config.sliceGatewayRemoteSubnet", false},
		{"Remote Cluster", "string", ".status.config.sliceGatewayRemoteClusterId", false},
		{"GW Status", "string", ".status.config.sliceGatewayStatus", false},
		{"Tunnel", "string", ".status.gatewayPodStatus[0].tunnelStatus.TunnelState", false},
	}},
	"ServiceExport": {plural: "serviceexports", short: []string{"svcex"}, text: "ServiceExport exports the pods of a selector as a service of a slice.", columns: []column{
		{"Slice", "string", ".spec.slice", false},
		{"Ingress", "boolean", ".spec.ingressEnabled", true},
		{"ServicePort(s)", "string", ".status.servicePorts", true},
		{"Port(s)", "string", ".status.exposedPorts", false},
		{"Endpoints", "integer", ".status.availableEndpoints", false},
		{"Status", "string", ".status.exportStatus", false},
		{"Alias", "string", ".status.aliases", false},
	}},
	"ServiceImport": {plural: "serviceimports", short: []string{"svcim"}, text: "ServiceImport is an imported service in this cluster.", columns: []column{
		{"Slice", "string", ".spec.slice", false},
		{"Port(s)", "string", ".status.exposedPorts", false},
		{"Endpoints", "integer", ".status.availableEndpoints", false},
		{"Status", "string", ".status.importStatus", false},
		{"Alias", "string", ".spec.aliases", false},
	}},
	"SlicePolicy": {plural: "slicepolicies", short: []string{"slicepol"}, text: "SlicePolicy says what members of a slice may do.", columns: []column{
		{"Slice", "string", ".spec.slice", false},
		{"Types", "string", ".spec.policyTypes", false},
		{"Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false},
	}},
	"SliceClasses": {plural: "sliceclasses", text: "SliceClasses divides a slice's bandwidth between classes of its packets.", columns: []column{
		{"Slice", "string", ".spec.slice", false},
		{"Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status", false},
	}},
}
