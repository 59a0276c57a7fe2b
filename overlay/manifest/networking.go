package manifest

// The kinds of networking.kubeslice.io/v1beta1: what lives in a worker cluster.

// Slice is a slice in a worker cluster; everything it says is status.
type Slice struct {
	APIVersion string       `json:"apiVersion"`
	Kind       string       `json:"kind"`
	Metadata   Metadata     `json:"metadata" req:"1"`
	Spec       struct{}     `json:"spec"`
	Status     *SliceStatus `json:"status"`
}

// SliceStatus is Slice.status.
type SliceStatus struct {
	SliceConfig *struct {
		SliceID           string      `json:"sliceId"`
		SliceDisplayName  string      `json:"sliceDisplayName"`
		SliceSubnet       string      `json:"sliceSubnet"`
		SliceType         string      `json:"sliceType"`
		QosProfileDetails *QOSProfile `json:"qosProfileDetails"`
		SliceIpam         struct {
			SliceIpamType    string `json:"sliceIpamType"`
			IpamClusterOctet int    `json:"ipamClusterOctet"`
		} `json:"sliceIpam"`
		ExternalGatewayConfig             *ExternalGatewayConfig  `json:"externalGatewayConfig"`
		NamespaceIsolationProfile         *WorkerNamespaceProfile `json:"namespaceIsolationProfile"`
		ClusterSubnetCIDR                 string                  `json:"clusterSubnetCIDR"`
		SliceGatewayServiceType           string                  `json:"sliceGatewayServiceType"`
		SliceGatewayProtocol              string                  `json:"sliceGatewayProtocol"`
		SliceOverlayNetworkDeploymentMode string                  `json:"sliceOverlayNetworkDeploymentMode"`
	} `json:"sliceConfig"`
	DNSIP                    string   `json:"dnsIP"`
	AppPods                  any      `json:"appPods"`
	AppPodsUpdatedOn         int64    `json:"appPodsUpdatedOn"` // Unix seconds
	NetworkPoliciesInstalled bool     `json:"networkPoliciesInstalled"`
	ApplicationNamespaces    []string `json:"applicationNamespaces"`
	AllowedNamespaces        []string `json:"allowedNamespaces"`
	Conditions               any      `json:"conditions"`
}

// SliceGateway is a gateway in a worker cluster.
type SliceGateway struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   Metadata `json:"metadata" req:"1"`
	Spec       struct {
		SliceName string `json:"sliceName"`
		SiteName  string `json:"siteName"`
	} `json:"spec"`
	Status *SliceGatewayStatus `json:"status"`
}

// SliceGatewayStatus is SliceGateway.status.
type SliceGatewayStatus struct {
	Config                     SliceGatewayConfig `json:"config"`
	ConfigUpdatedOn            int64              `json:"configUpdatedOn"`
	PodName                    string             `json:"podName"` // deprecated for PodNames
	PodNames                   []string           `json:"podNames"`
	PodStatus                  string             `json:"podStatus"`
	PodIPs                     []string           `json:"podIps"`
	PeerIP                     string             `json:"peerIp"`
	ConnectionContextUpdatedOn int64              `json:"connectionContextUpdatedOn"`
	GatewayPodStatus           []GatewayPodStatus `json:"gatewayPodStatus"`
	Conditions                 any                `json:"conditions"`
}

// SliceGatewayConfig is SliceGateway.status.config.
type SliceGatewayConfig struct {
	SliceGatewayID                      string   `json:"sliceGatewayId"`
	SliceGatewayName                    string   `json:"sliceGatewayName"` // the gatewayNumber
	SliceName                           string   `json:"sliceName"`
	SliceSiteName                       string   `json:"sliceSiteName"`
	SliceGatewayType                    string   `json:"sliceGatewayType"`
	SliceGatewaySubnet                  string   `json:"sliceGatewaySubnet"`
	SliceGatewayStatus                  string   `json:"sliceGatewayStatus"`
	SliceGatewayHostType                string   `json:"sliceGatewayHostType"`
	SliceGatewayNodePorts               []int    `json:"sliceGatewayNodePorts"`
	SliceGatewayRemoteNodeIPs           []string `json:"sliceGatewayRemoteNodeIps"`
	SliceGatewayRemoteNodePorts         []int    `json:"sliceGatewayRemoteNodePorts"`
	SliceGatewayRemoteSubnet            string   `json:"sliceGatewayRemoteSubnet"`
	SliceGatewayRemoteVpnIP             string   `json:"sliceGatewayRemoteVpnIp"`
	SliceGatewayLocalVpnIP              string   `json:"sliceGatewayLocalVpnIp"`
	SliceGatewayRemoteGatewayID         string   `json:"sliceGatewayRemoteGatewayId"`
	SliceGatewayRemoteClusterID         string   `json:"sliceGatewayRemoteClusterId"`
	SliceGatewayIntermediateDeployments []string `json:"sliceGatewayIntermediateDeployments"`
	SliceGatewayConnectivityType        string   `json:"sliceGatewayConnectivityType"`
	SliceGatewayProtocol                string   `json:"sliceGatewayProtocol"`
	SliceGatewayServerLBIPs             []string `json:"sliceGatewayServerLBIps"`
}

// GatewayPodStatus is one gateway pod.
type GatewayPodStatus struct {
	PodName               string `json:"podName"`
	PodCreationTS         any    `json:"podCreationTS"`
	OriginalPodCreationTS any    `json:"originalPodCreationTS"`
	PeerPodName           string `json:"peerPodName"`
	PodIP                 string `json:"podIP"`
	LocalNsmIP            string `json:"localNsmIP"`
	TunnelStatus          *struct {
		IntfName    string `json:"IntfName"` // the keys are capitalised in the CRD
		LocalIP     string `json:"LocalIP"`
		RemoteIP    string `json:"RemoteIP"`
		Latency     any    `json:"Latency"`
		TxRate      any    `json:"TxRate"`
		RxRate      any    `json:"RxRate"`
		PacketLoss  any    `json:"PacketLoss"`
		Status      int    `json:"Status"`
		TunnelState string `json:"TunnelState"`
	} `json:"tunnelStatus"`
	RouteRemoved int `json:"routeRemoved"`
	RemotePort   int `json:"remotePort"`
}

// ServiceExport exports the pods of a selector as a service of a slice.
type ServiceExport struct {
	APIVersion string               `json:"apiVersion"`
	Kind       string               `json:"kind"`
	Metadata   Metadata             `json:"metadata" req:"1"`
	Spec       ServiceExportSpec    `json:"spec" req:"1"`
	Status     *ServiceExportStatus `json:"status"`
}

// ServiceExportSpec is ServiceExport.spec.
type ServiceExportSpec struct {
	Slice    string `json:"slice" req:"1"`
	Selector *struct {
		MatchLabels      map[string]string `json:"matchLabels"`
		MatchExpressions any               `json:"matchExpressions"`
	} `json:"selector" req:"1"`
	IngressEnabled bool                `json:"ingressEnabled"`
	Ports          []ServiceExportPort `json:"ports" req:"1"`
	Aliases        []string            `json:"aliases"`
}

// ServiceExportPort is one port of a ServiceExport.
type ServiceExportPort struct {
	Name            string `json:"name"`
	ContainerPort   int32  `json:"containerPort" req:"1"`
	Protocol        string `json:"protocol" default:"TCP"`
	ServiceProtocol string `json:"serviceProtocol" default:"HTTP" enum:"HTTP,HTTPS"`
	ServicePort     int32  `json:"servicePort"`
}

// ServiceExportStatus is ServiceExport.status. In an export that was never
// looked at, exportStatus is empty.
type ServiceExportStatus struct {
	DNSName            string             `json:"dnsName"`
	ExportStatus       string             `json:"exportStatus" enum:",PENDING,READY,ERROR"`
	Pods               []ServiceExportPod `json:"pods"`
	LastSync           int64              `json:"lastSync"` // Unix seconds
	ExposedPorts       string             `json:"exposedPorts"`
	ServicePorts       string             `json:"servicePorts"`
	AvailableEndpoints int                `json:"availableEndpoints"`
	IngressGwEnabled   bool               `json:"ingressGwEnabled"`
	IngressGwPod       *struct {
		Name  string `json:"name"`
		NsmIP string `json:"nsmIp"`
	} `json:"ingressGwPod"`
	Aliases    []string `json:"aliases"`
	Conditions any      `json:"conditions"`
}

// ServiceExportPod is one pod behind a ServiceExport.
type ServiceExportPod struct {
	Name    string `json:"name"`
	NsmIP   string `json:"nsmIp"`
	PodIP   string `json:"podIp"`
	DNSName string `json:"dnsName"`
}

// ServiceImport is an imported service in a worker cluster.
type ServiceImport struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata" req:"1"`
	Spec       ServiceImportSpec `json:"spec"`
	Status     *struct {
		ImportStatus       string `json:"importStatus" enum:",PENDING,READY,ERROR"`
		LastSync           int64  `json:"lastSync"`
		UpdatedOn          int64  `json:"updatedOn"`
		ExposedPorts       string `json:"exposedPorts"`
		AvailableEndpoints int    `json:"availableEndpoints"`
		Endpoints          []struct {
			Name      string `json:"name"`
			IP        string `json:"ip"`
			Port      int32  `json:"port"`
			ClusterID string `json:"clusterId"`
			DNSName   string `json:"dnsName"`
		} `json:"endpoints"`
		Conditions any `json:"conditions"`
	} `json:"status"`
}

// ServiceImportSpec is ServiceImport.spec.
type ServiceImportSpec struct {
	Slice   string              `json:"slice" req:"1"`
	DNSName string              `json:"dnsName"`
	Ports   []ServiceExportPort `json:"ports"`
	Aliases []string            `json:"aliases"`
}
