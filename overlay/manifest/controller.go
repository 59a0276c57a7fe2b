package manifest

import "time"

// The kinds of controller.kubeslice.io/v1alpha1, with the schema of their CRDs
// in the tags. Names and JSON keys are KubeSlice's.

// Project is a tenant: a namespace with slices and clusters of its own.
type Project struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata" req:"1"`
	Spec       ProjectSpec `json:"spec"`
	Status     *Conditions `json:"status"`
}

// ProjectSpec is Project.spec.
type ProjectSpec struct {
	ServiceAccount struct {
		ReadOnly  []string `json:"readOnly"`
		ReadWrite []string `json:"readWrite"`
	} `json:"serviceAccount"`
	DefaultSliceCreation bool `json:"defaultSliceCreation"`
}

// Cluster is a site.
type Cluster struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   Metadata       `json:"metadata" req:"1"`
	Spec       ClusterSpec    `json:"spec"`
	Status     *ClusterStatus `json:"status"`
}

// ClusterSpec is Cluster.spec.
type ClusterSpec struct {
	NodeIP             string          `json:"nodeIP"` // deprecated for NodeIPs
	NodeIPs            []string        `json:"nodeIPs"`
	NetworkInterface   string          `json:"networkInterface"`
	ClusterProperty    ClusterProperty `json:"clusterProperty"`
	EnableAutoEviction bool            `json:"enableAutoEviction"`
	RequeueOnFailure   int             `json:"requeueOnFailure"`
}

// ClusterProperty says what a cluster is and where.
type ClusterProperty struct {
	Telemetry struct {
		Enabled           bool   `json:"enabled"`
		TelemetryProvider string `json:"telemetryProvider"`
		Endpoint          string `json:"endpoint"`
	} `json:"telemetry"`
	GeoLocation struct {
		CloudProvider string `json:"cloudProvider"`
		CloudRegion   string `json:"cloudRegion"`
		Latitude      string `json:"latitude"`
		Longitude     string `json:"longitude"`
	} `json:"geoLocation"`
	Monitoring struct {
		GrafanaDashboardBaseURL string `json:"grafanaDashboardBaseURL"`
		KubernetesDashboard     struct {
			Enabled       bool   `json:"enabled"`
			AccessToken   string `json:"accessToken"`
			IngressPrefix string `json:"ingressPrefix"`
			Endpoint      string `json:"endpoint"`
		} `json:"kubernetesDashboard"`
	} `json:"monitoring"`
}

// ClusterStatus is Cluster.status.
type ClusterStatus struct {
	SecretName             string             `json:"secretName"`
	CniSubnet              []string           `json:"cniSubnet"`
	Namespaces             []ClusterNamespace `json:"namespaces"`
	ClusterHealth          *ClusterHealth     `json:"clusterHealth"`
	NodeIPs                []string           `json:"nodeIPs"`
	RegistrationStatus     string             `json:"registrationStatus" enum:"Pending,InProgress,Failed,Registered,DeregisterInProgress,DeregisterFailed,Deregistered"`
	IsDeregisterInProgress bool               `json:"isDeregisterInProgress"`
	NetworkPresent         bool               `json:"networkPresent"`
	VCPURestriction        *Restriction       `json:"vCPURestriction"`
	GPURestriction         *Restriction       `json:"GPURestriction"`
	PodTokens              *PodTokens         `json:"podTokens"`
	Conditions             any                `json:"conditions"`
}

// PodTokens is by what the cluster's pods prove who they are. KubeSlice has no such
// field.
type PodTokens struct {
	Issuer string `json:"issuer"` // the cluster's --service-account-issuer
	Keys   string `json:"keys"`   // a JSON Web Key Set
}

// ClusterNamespace is a namespace of a cluster and the slice that holds it.
type ClusterNamespace struct {
	Name      string `json:"name"`
	SliceName string `json:"sliceName"`
}

// ClusterHealth is what a cluster says of its parts.
type ClusterHealth struct {
	ClusterHealthStatus string            `json:"clusterHealthStatus" enum:"Normal,Warning"`
	ComponentStatuses   []ComponentStatus `json:"componentStatuses"`
	LastUpdated         time.Time         `json:"lastUpdated"`
}

// ComponentStatus is the health of one part.
type ComponentStatus struct {
	Component             string `json:"component"`
	ComponentHealthStatus string `json:"componentHealthStatus" enum:"Normal,Warning,Error"`
}

// Restriction is a limit that a licence sets.
type Restriction struct {
	EnforceRestrictions  bool      `json:"enforceRestrictions"`
	LastUpdatedTimestamp time.Time `json:"lastUpdatedTimestamp"`
}

// SliceConfig is a slice.
type SliceConfig struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	Metadata   Metadata           `json:"metadata" req:"1"`
	Spec       SliceConfigSpec    `json:"spec"`
	Status     *SliceConfigStatus `json:"status"`
}

// SliceConfigSpec is SliceConfig.spec.
type SliceConfigSpec struct {
	OverlayNetworkDeploymentMode string                    `json:"overlayNetworkDeploymentMode" default:"single-network" enum:"single-network,multi-network,no-network"`
	SliceSubnet                  string                    `json:"sliceSubnet"`
	SliceType                    string                    `json:"sliceType" default:"Application"`
	SliceGatewayProvider         *SliceGatewayProvider     `json:"sliceGatewayProvider"`
	SliceIpamType                string                    `json:"sliceIpamType" default:"Local" enum:"Local,Static,Dynamic"`
	Clusters                     []string                  `json:"clusters"`
	StandardQosProfileName       string                    `json:"standardQosProfileName"`
	QosProfileDetails            *QOSProfile               `json:"qosProfileDetails"`
	NamespaceIsolationProfile    NamespaceIsolationProfile `json:"namespaceIsolationProfile"`
	ExternalGatewayConfig        []ExternalGatewayConfig   `json:"externalGatewayConfig"`
	MaxClusters                  int                       `json:"maxClusters" default:"16" min:"2" max:"32"`
	RotationInterval             int                       `json:"rotationInterval" default:"30" min:"30" max:"90"` // days
	RenewBefore                  time.Time                 `json:"renewBefore"`
	VPNConfig                    *VPNConfig                `json:"vpnConfig"`
	SubnetSize                   int                       `json:"subnetSize" default:"24" min:"16" max:"30"`
	Topology                     *Topology                 `json:"topology"`
}

// SliceGatewayProvider says how a slice's sites are joined.
type SliceGatewayProvider struct {
	// The documentation spells it Wiregaurd, so that is taken too.
	SliceGatewayType        string                    `json:"sliceGatewayType" default:"OpenVPN" enum:"OpenVPN,Wireguard,Wiregaurd"`
	SliceCaType             string                    `json:"sliceCaType" default:"Local"`
	SliceGatewayServiceType []SliceGatewayServiceType `json:"sliceGatewayServiceType"`
}

// SliceGatewayServiceType says how the gateways of a cluster, or of all ("*"),
// are reached.
type SliceGatewayServiceType struct {
	Cluster  string `json:"cluster" req:"1"`
	Type     string `json:"type" default:"NodePort" enum:"NodePort,LoadBalancer"`
	Protocol string `json:"protocol" default:"UDP" enum:"TCP,UDP"`
}

// QOSProfile is a slice's share of an uplink; rates in kbit/s.
type QOSProfile struct {
	QueueType               string `json:"queueType" default:"HTB" enum:"HTB"`
	Priority                int    `json:"priority" req:"1"`
	TcType                  string `json:"tcType" default:"BANDWIDTH_CONTROL" enum:"BANDWIDTH_CONTROL"`
	BandwidthCeilingKbps    int    `json:"bandwidthCeilingKbps" req:"1"`
	BandwidthGuaranteedKbps int    `json:"bandwidthGuaranteedKbps" req:"1"`
	DscpClass               string `json:"dscpClass" req:"1" enum:"Default,AF11,AF12,AF13,AF21,AF22,AF23,AF31,AF32,AF33,AF41,AF42,AF43,EF"`
}

// NamespaceIsolationProfile binds namespaces to a slice.
type NamespaceIsolationProfile struct {
	IsolationEnabled      bool                      `json:"isolationEnabled"`
	ApplicationNamespaces []SliceNamespaceSelection `json:"applicationNamespaces"`
	AllowedNamespaces     []SliceNamespaceSelection `json:"allowedNamespaces"`
}

// SliceNamespaceSelection is a namespace of some clusters, or of all ("*").
type SliceNamespaceSelection struct {
	Namespace string   `json:"namespace"`
	Clusters  []string `json:"clusters"`
}

// Toggle switches something on.
type Toggle struct {
	Enabled bool `json:"enabled"`
}

// ExternalGatewayConfig asks for ingress and egress gateways in some clusters.
type ExternalGatewayConfig struct {
	Ingress          Toggle   `json:"ingress"`
	Egress           Toggle   `json:"egress"`
	NsIngress        Toggle   `json:"nsIngress"`
	GatewayType      string   `json:"gatewayType" enum:"none,istio,envoy"`
	Clusters         []string `json:"clusters"`
	VpcServiceAccess struct {
		Ingress Toggle `json:"ingress"`
		Egress  Toggle `json:"egress"`
	} `json:"vpcServiceAccess"`
}

// VPNConfig tunes OpenVPN.
type VPNConfig struct {
	Cipher string `json:"cipher" enum:"AES-256-CBC,AES-128-CBC"`
}

// Topology says which sites have tunnels to which.
type Topology struct {
	Mode   string   `json:"mode" default:"FullMesh" enum:"FullMesh,HubAndSpoke"`
	Hubs   []string `json:"hubs"`
	Spokes []string `json:"spokes"`
}

// SliceConfigStatus is SliceConfig.status.
type SliceConfigStatus struct {
	KubesliceEvents []KubesliceEvent `json:"kubesliceEvents"`
	Conditions      any              `json:"conditions"`
}

// KubesliceEvent is one thing that happened to a slice.
type KubesliceEvent struct {
	Type          string    `json:"type"`
	Action        string    `json:"action"`
	Components    []string  `json:"components"`
	Identifier    string    `json:"identifier"`
	Reason        string    `json:"reason"`
	Event         string    `json:"event" req:"1"`
	Timestamp     time.Time `json:"timestamp"`
	IsEventRaised bool      `json:"isEventRaised"`
}

// SliceQoSConfig is a QoS profile that slices refer to by name.
type SliceQoSConfig struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   Metadata    `json:"metadata" req:"1"`
	Spec       QOSProfile  `json:"spec" req:"1"`
	Status     *Conditions `json:"status"`
}

// ServiceExportConfig is one cluster's export of a service, told to the
// controller.
type ServiceExportConfig struct {
	APIVersion string                  `json:"apiVersion"`
	Kind       string                  `json:"kind"`
	Metadata   Metadata                `json:"metadata" req:"1"`
	Spec       ServiceExportConfigSpec `json:"spec" req:"1"`
	Status     *Conditions             `json:"status"`
}

// ServiceExportConfigSpec is ServiceExportConfig.spec.
type ServiceExportConfigSpec struct {
	ServiceName               string                     `json:"serviceName" req:"1"`
	ServiceNamespace          string                     `json:"serviceNamespace"`
	SourceCluster             string                     `json:"sourceCluster" req:"1"`
	SliceName                 string                     `json:"sliceName" req:"1"`
	ServiceDiscoveryEndpoints []ServiceDiscoveryEndpoint `json:"serviceDiscoveryEndpoints"`
	ServiceDiscoveryPorts     []ServiceDiscoveryPort     `json:"serviceDiscoveryPorts"`
	Aliases                   []string                   `json:"aliases"`
}

// ServiceDiscoveryEndpoint is one backend of an exported service.
type ServiceDiscoveryEndpoint struct {
	PodName string `json:"podName"`
	Cluster string `json:"cluster"`
	NsmIP   string `json:"nsmIp"`
	DNSName string `json:"dnsName"`
	Port    int32  `json:"port"`
}

// ServiceDiscoveryPort is one port of an exported service.
type ServiceDiscoveryPort struct {
	Name            string `json:"name"`
	Port            int32  `json:"port"`
	Protocol        string `json:"protocol" default:"TCP"`
	ServicePort     int32  `json:"servicePort"`
	ServiceProtocol string `json:"serviceProtocol"`
}

// VpnKeyRotation tracks the age of a slice's keys.
type VpnKeyRotation struct {
	APIVersion string                `json:"apiVersion"`
	Kind       string                `json:"kind"`
	Metadata   Metadata              `json:"metadata" req:"1"`
	Spec       VpnKeyRotationSpec    `json:"spec"`
	Status     *VpnKeyRotationStatus `json:"status"`
}

// VpnKeyRotationSpec is VpnKeyRotation.spec.
type VpnKeyRotationSpec struct {
	SliceName               string              `json:"sliceName"`
	ClusterGatewayMapping   map[string][]string `json:"clusterGatewayMapping"`
	CertificateCreationTime time.Time           `json:"certificateCreationTime"`
	CertificateExpiryTime   time.Time           `json:"certificateExpiryTime"`
	RotationInterval        int                 `json:"rotationInterval"`
	Clusters                []string            `json:"clusters"`
	RotationCount           int                 `json:"rotationCount"`
}

// VpnKeyRotationStatus is VpnKeyRotation.status.
type VpnKeyRotationStatus struct {
	CurrentRotationState map[string]RotationState   `json:"currentRotationState"`
	StatusHistory        map[string][]RotationState `json:"statusHistory"`
	Conditions           any                        `json:"conditions"`
}

// RotationState is how far one gateway is.
type RotationState struct {
	Status               string    `json:"status" enum:"READ_IN_PROGRESS,SECRET_UPDATED,IN_PROGRESS,COMPLETE,ERROR"`
	LastUpdatedTimestamp time.Time `json:"lastUpdatedTimestamp"`
}

// SliceIpam is the state of a slice's dynamic address management.
type SliceIpam struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	Metadata   Metadata         `json:"metadata" req:"1"`
	Spec       SliceIpamSpec    `json:"spec" req:"1"`
	Status     *SliceIpamStatus `json:"status"`
}

// SliceIpamSpec is SliceIpam.spec.
type SliceIpamSpec struct {
	SliceName   string `json:"sliceName" req:"1"`
	SliceSubnet string `json:"sliceSubnet" req:"1"`
	SubnetSize  int    `json:"subnetSize" default:"24" min:"16" max:"30"`
}

// SliceIpamStatus is SliceIpam.status.
type SliceIpamStatus struct {
	AllocatedSubnets []ClusterSubnet `json:"allocatedSubnets"`
	AvailableSubnets int             `json:"availableSubnets" req:"1"`
	TotalSubnets     int             `json:"totalSubnets"`
	LastUpdated      time.Time       `json:"lastUpdated"`
	Conditions       any             `json:"conditions"`
}

// ClusterSubnet is a subnet that a cluster has or had.
type ClusterSubnet struct {
	ClusterName string    `json:"clusterName" req:"1"`
	Subnet      string    `json:"subnet" req:"1"`
	AllocatedAt time.Time `json:"allocatedAt"`
	Status      string    `json:"status" enum:"Allocated,InUse,Released"`
	ReleasedAt  time.Time `json:"releasedAt"`
}
