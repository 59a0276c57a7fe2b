package kube

// FieldManager is under which name slicewire owns the fields that it has written.
const FieldManager = "slicewire"

// Labels and annotations. Those of KubeSlice are honoured and written as they
// are there, so that its tools and its users' selectors go on working.
const (
	// LabelManagedBy with ManagedBy marks the objects that slicewire made. Others
	// are never changed nor removed.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	ManagedBy      = "slicewire"

	// AnnotationSlice says for which slice an object was made.
	AnnotationSlice = "slicewire.io/slice"

	// On namespaces and pods.
	LabelSlice             = "kubeslice.io/slice"
	LabelInject            = "kubeslice.io/inject"
	LabelNamespace         = "kubeslice.io/namespace"
	LabelPodType           = "kubeslice.io/pod-type"
	LabelNsmIP             = "kubeslice.io/nsmIP"
	LabelExclude           = "kubeslice.io/exclude"
	LabelNodeType          = "kubeslice.io/node-type"
	AnnotationStatus       = "kubeslice.io/status"
	AnnotationAllowedSlice = "kubeslice.io/trafficAllowedToSlices"

	// On what KubeSlice's controller works out for workers.
	LabelProjectNamespace = "project-namespace"
	LabelOriginalSlice    = "original-slice-name"
	LabelWorkerCluster    = "worker-cluster"
	LabelRemoteCluster    = "remote-cluster"
	LabelKubesliceManager = "kubeslice-manager"
	LabelStandardProfile  = "standard-qos-profile"
	LabelServiceName      = "service-name"
	LabelServiceNamespace = "service-namespace"

	// Of the Multi-Cluster Services API and of EndpointSlices.
	LabelMCSServiceName   = "multicluster.kubernetes.io/service-name"
	LabelMCSSourceCluster = "multicluster.kubernetes.io/source-cluster"
	LabelEndpointsOf      = "kubernetes.io/service-name"
	LabelEndpointsManager = "endpointslice.kubernetes.io/managed-by"

	// On events, as KubeSlice's monitoring finds them.
	LabelEventCluster    = "sliceCluster"
	LabelEventNamespace  = "sliceNamespace"
	LabelEventSlice      = "sliceName"
	LabelEventProject    = "sliceProject"
	LabelEventController = "reportingControllerName"
	LabelEventTitle      = "eventTitle"
)

// Groups and versions whose kinds are read or written.
const (
	GroupController = "controller.kubeslice.io"
	GroupWorker     = "worker.kubeslice.io"
	GroupNetworking = "networking.kubeslice.io"
	GroupMCS        = "multicluster.x-k8s.io"
	GroupOwn        = "slicewire.io"
)
