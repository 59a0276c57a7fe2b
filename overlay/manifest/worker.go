package manifest

import "time"

// The kinds of worker.kubeslice.io/v1alpha1: what KubeSlice's controller works
// out for each cluster.

// WorkerSliceConfig is a slice as one cluster sees it.
type WorkerSliceConfig struct {
	APIVersion string                   `json:"apiVersion"`
	Kind       string                   `json:"kind"`
	Metadata   Metadata                 `json:"metadata" req:"1"`
	Spec       WorkerSliceConfigSpec    `json:"spec"`
	Status     *WorkerSliceConfigStatus `json:"status"`
}

// WorkerSliceConfigSpec is WorkerSliceConfig.spec.
type WorkerSliceConfigSpec struct {
	SliceName                    string                     `json:"sliceName"`
	SliceSubnet                  string                     `json:"sliceSubnet"`
	SliceType                    string                     `json:"sliceType" default:"Application"`
	SliceGatewayProvider         WorkerSliceGatewayProvider `json:"sliceGatewayProvider"`
	SliceIpamType                string                     `json:"sliceIpamType" default:"Local"`
	QosProfileDetails            *QOSProfile                `json:"qosProfileDetails"`
	NamespaceIsolationProfile    WorkerNamespaceProfile     `json:"namespaceIsolationProfile"`
	IpamClusterOctet             int                        `json:"ipamClusterOctet"`
	Octet                        *int                       `json:"octet"` // the site's index in the slice
	ClusterSubnetCIDR            string                     `json:"clusterSubnetCIDR"`
	ExternalGatewayConfig        *ExternalGatewayConfig     `json:"externalGatewayConfig"`
	OverlayNetworkDeploymentMode string                     `json:"overlayNetworkDeploymentMode" enum:"single-network,multi-network,no-network"`
}

// WorkerSliceGatewayProvider says how the slice's gateways of one cluster are
// reached.
type WorkerSliceGatewayProvider struct {
	SliceGatewayType        string `json:"sliceGatewayType" default:"OpenVPN"`
	SliceCaType             string `json:"sliceCaType" default:"Local"`
	SliceGatewayServiceType string `json:"sliceGatewayServiceType" default:"NodePort" enum:"NodePort,LoadBalancer"`
	SliceGatewayProtocol    string `json:"sliceGatewayProtocol" default:"UDP" enum:"TCP,UDP"`
}

// WorkerNamespaceProfile lists one cluster's namespaces of a slice.
type WorkerNamespaceProfile struct {
	IsolationEnabled      bool     `json:"isolationEnabled"`
	ApplicationNamespaces []string `json:"applicationNamespaces"`
	AllowedNamespaces     []string `json:"allowedNamespaces"`
}

// WorkerSliceConfigStatus is WorkerSliceConfig.status.
type WorkerSliceConfigStatus struct {
	ConnectedAppPods []struct {
		PodName      string `json:"podName"`
		PodNamespace string `json:"podNamespace"`
		PodIP        string `json:"podIp"`
		NsmIP        string `json:"nsmIp"`
		NsmInterface string `json:"nsmInterface"`
		NsmPeerIP    string `json:"nsmPeerIp"`
	} `json:"connectedAppPods"`
	OnboardedAppNamespaces []struct {
		Name string `json:"name"`
	} `json:"onboardedAppNamespaces"`
	SliceHealth *struct {
		SliceHealthStatus string            `json:"sliceHealthStatus" enum:"Normal,Warning"`
		ComponentStatuses []ComponentStatus `json:"componentStatuses"`
		LastUpdated       time.Time         `json:"lastUpdated"`
	} `json:"sliceHealth"`
	Conditions any `json:"conditions"`
}

// WorkerSliceGateway is one end of the tunnel between two clusters.
type WorkerSliceGateway struct {
	APIVersion string                    `json:"apiVersion"`
	Kind       string                    `json:"kind"`
	Metadata   Metadata                  `json:"metadata" req:"1"`
	Spec       WorkerSliceGatewaySpec    `json:"spec"`
	Status     *WorkerSliceGatewayStatus `json:"status"`
}

// WorkerSliceGatewaySpec is WorkerSliceGateway.spec.
type WorkerSliceGatewaySpec struct {
	SliceName               string `json:"sliceName"`
	GatewayType             string `json:"gatewayType"`
	GatewayHostType         string `json:"gatewayHostType" enum:"Client,Server"`
	GatewayConnectivityType string `json:"gatewayConnectivityType" enum:"NodePort,LoadBalancer"`
	GatewayProtocol         string `json:"gatewayProtocol" enum:"TCP,UDP"`
	GatewayCredentials      struct {
		SecretName string `json:"secretName"`
	} `json:"gatewayCredentials"`
	LocalGatewayConfig     GatewayConfig `json:"localGatewayConfig"`
	RemoteGatewayConfig    GatewayConfig `json:"remoteGatewayConfig"`
	GatewayNumber          int           `json:"gatewayNumber"`
	RouteEntireSliceSubnet bool          `json:"routeEntireSliceSubnet"`
}

// GatewayConfig is one end of a WorkerSliceGateway.
type GatewayConfig struct {
	NodeIP          string   `json:"nodeIp"` // deprecated for NodeIPs
	NodeIPs         []string `json:"nodeIps"`
	LoadBalancerIPs []string `json:"loadBalancerIps"`
	NodePort        int      `json:"nodePort"`
	NodePorts       []int    `json:"nodePorts"`
	GatewayName     string   `json:"gatewayName"`
	ClusterName     string   `json:"clusterName"`
	VpnIP           string   `json:"vpnIp"`
	GatewaySubnet   string   `json:"gatewaySubnet"`
}

// WorkerSliceGatewayStatus is WorkerSliceGateway.status.
type WorkerSliceGatewayStatus struct {
	GatewayNumber         int       `json:"gatewayNumber"`
	ClusterInsertionIndex int       `json:"clusterInsertionIndex"`
	GatewayMetrics        any       `json:"gatewayMetrics"`
	ConnectionState       string    `json:"connectionState" enum:"Connected,NotConnected,Pending"`
	LastTransitionTime    time.Time `json:"lastTransitionTime"`
	Reason                string    `json:"reason"`
	Message               string    `json:"message"`
	Conditions            any       `json:"conditions"`
}

// WorkerServiceImport is an exported service as one cluster imports it.
type WorkerServiceImport struct {
	APIVersion string                  `json:"apiVersion"`
	Kind       string                  `json:"kind"`
	Metadata   Metadata                `json:"metadata" req:"1"`
	Spec       WorkerServiceImportSpec `json:"spec"`
	Status     *Conditions             `json:"status"`
}

// WorkerServiceImportSpec is WorkerServiceImport.spec.
type WorkerServiceImportSpec struct {
	ServiceName               string                     `json:"serviceName" req:"1"`
	ServiceNamespace          string                     `json:"serviceNamespace"`
	SourceClusters            []string                   `json:"sourceClusters"`
	SliceName                 string                     `json:"sliceName" req:"1"`
	ServiceDiscoveryEndpoints []ServiceDiscoveryEndpoint `json:"serviceDiscoveryEndpoints"`
	ServiceDiscoveryPorts     []ServiceDiscoveryPort     `json:"serviceDiscoveryPorts"`
	Aliases                   []string                   `json:"aliases"`
}

// WorkerSliceGwRecycler replaces a pair of gateway pods.
type WorkerSliceGwRecycler struct {
	APIVersion string                       `json:"apiVersion"`
	Kind       string                       `json:"kind"`
	Metadata   Metadata                     `json:"metadata" req:"1"`
	Spec       WorkerSliceGwRecyclerSpec    `json:"spec"`
	Status     *WorkerSliceGwRecyclerStatus `json:"status"`
}

// WorkerSliceGwRecyclerSpec is WorkerSliceGwRecycler.spec.
type WorkerSliceGwRecyclerSpec struct {
	SliceGwServer          string `json:"sliceGwServer"`
	SliceGwClient          string `json:"sliceGwClient"`
	ServerRedundancyNumber int    `json:"serverRedundancyNumber"`
	ClientRedundancyNumber int    `json:"clientRedundancyNumber"`
	GwPair                 struct {
		ClientID string `json:"clientId"`
		ServerID string `json:"serverId"`
	} `json:"gwPair"`
	State     string `json:"state"`
	Request   string `json:"request"`
	SliceName string `json:"sliceName"`
}

// WorkerSliceGwRecyclerStatus is WorkerSliceGwRecycler.status.
type WorkerSliceGwRecyclerStatus struct {
	Client struct {
		Response       string `json:"response"`
		RecycledClient string `json:"recycledClient"`
	} `json:"client"`
	ServersToRecycle []string `json:"serversToRecycle"`
	RecycledServers  []string `json:"recycledServers"`
	Conditions       any      `json:"conditions"`
}
