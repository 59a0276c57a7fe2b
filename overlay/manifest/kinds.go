package manifest

import (
	"reflect"
	"time"
)

// groupSuffix ends the API groups of KubeSlice.
const groupSuffix = ".kubeslice.io"

const (
	controllerV1alpha1 = "controller.kubeslice.io/v1alpha1"
	workerV1alpha1     = "worker.kubeslice.io/v1alpha1"
	networkingV1beta1  = "networking.kubeslice.io/v1beta1"
)

type kindInfo struct {
	apiVersion string
	body       func() any
	strict     bool // unknown and repeated keys are errors
}

// ownGroup is the API group of what KubeSlice has no object for. Its objects are
// read strictly: an unknown field is an error.
const (
	ownGroup    = "slicewire.io"
	ownV1alpha1 = ownGroup + "/v1alpha1"
)

// kinds lists what KubeSlice has, and what is ours; it is never written to.
var kinds = map[string]kindInfo{
	"Project":               {controllerV1alpha1, func() any { return new(Project) }, false},
	"Cluster":               {controllerV1alpha1, func() any { return new(Cluster) }, false},
	"SliceConfig":           {controllerV1alpha1, func() any { return new(SliceConfig) }, false},
	"ServiceExportConfig":   {controllerV1alpha1, func() any { return new(ServiceExportConfig) }, false},
	"SliceQoSConfig":        {controllerV1alpha1, func() any { return new(SliceQoSConfig) }, false},
	"VpnKeyRotation":        {controllerV1alpha1, func() any { return new(VpnKeyRotation) }, false},
	"SliceIpam":             {controllerV1alpha1, func() any { return new(SliceIpam) }, false},
	"WorkerSliceConfig":     {workerV1alpha1, func() any { return new(WorkerSliceConfig) }, false},
	"WorkerSliceGateway":    {workerV1alpha1, func() any { return new(WorkerSliceGateway) }, false},
	"WorkerServiceImport":   {workerV1alpha1, func() any { return new(WorkerServiceImport) }, false},
	"WorkerSliceGwRecycler": {workerV1alpha1, func() any { return new(WorkerSliceGwRecycler) }, false},
	"Slice":                 {networkingV1beta1, func() any { return new(Slice) }, false},
	"SliceGateway":          {networkingV1beta1, func() any { return new(SliceGateway) }, false},
	"ServiceExport":         {networkingV1beta1, func() any { return new(ServiceExport) }, false},
	"ServiceImport":         {networkingV1beta1, func() any { return new(ServiceImport) }, false},
	"SlicePolicy":           {ownV1alpha1, func() any { return new(SlicePolicy) }, true},
	"SliceClasses":          {ownV1alpha1, func() any { return new(SliceClasses) }, true},
}

// Conditions is the status of kinds that say no more of how they are.
type Conditions struct {
	Conditions any `json:"conditions"`
}

// A Kind is one of the kinds that are read, for those who describe it.
type Kind struct {
	Name, APIVersion string
	Body             reflect.Type // a struct with the tags of the decoder
}

// Kinds returns the kinds that are read, by name.
func Kinds() []Kind {
	var out []Kind
	for _, name := range kindNames() {
		out = append(out, Kind{name, kinds[name].apiVersion, reflect.TypeOf(kinds[name].body()).Elem()})
	}
	return out
}

// Metadata is an object's metadata. Fields of type any are known and not used.
type Metadata struct {
	Name        string            `json:"name" req:"1"`
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`

	CreationTimestamp time.Time `json:"creationTimestamp"`

	GenerateName      any `json:"generateName"`
	UID               any `json:"uid"`
	ResourceVersion   any `json:"resourceVersion"`
	Generation        any `json:"generation"`
	SelfLink          any `json:"selfLink"`
	DeletionTimestamp any `json:"deletionTimestamp"`
	DeletionGrace     any `json:"deletionGracePeriodSeconds"`
	OwnerReferences   any `json:"ownerReferences"`
	Finalizers        any `json:"finalizers"`
	ManagedFields     any `json:"managedFields"`
}
