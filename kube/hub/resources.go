package hub

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/kube"
)

func controller(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: kube.GroupController, Version: "v1alpha1", Resource: plural}
}

func worker(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: kube.GroupWorker, Version: "v1alpha1", Resource: plural}
}

func own(plural string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: kube.GroupOwn, Version: "v1alpha1", Resource: plural}
}

// resources are those that are watched in the project's namespace, by kind; it is
// never written to.
var resources = map[string]schema.GroupVersionResource{
	"SliceConfig":         controller("sliceconfigs"),
	"Cluster":             controller("clusters"),
	"SliceQoSConfig":      controller("sliceqosconfigs"),
	"ServiceExportConfig": controller("serviceexportconfigs"),
	"VpnKeyRotation":      controller("vpnkeyrotations"),
	"SliceIpam":           controller("sliceipams"),
	"WorkerSliceConfig":   worker("workersliceconfigs"),
	"WorkerSliceGateway":  worker("workerslicegateways"),
	"WorkerServiceImport": worker("workerserviceimports"),
	"SlicePolicy":         own("slicepolicies"),
	"SliceClasses":        own("sliceclasses"),
}

// read are the kinds that say what should be. The others are what comes of them.
var read = []string{"SliceConfig", "Cluster", "SliceQoSConfig", "ServiceExportConfig", "SliceIpam", "WorkerSliceConfig", "SlicePolicy", "SliceClasses"}

// judged are those of them that get a condition: what people write, and exports.
var judged = []string{"SliceConfig", "SliceQoSConfig", "ServiceExportConfig", "SlicePolicy", "SliceClasses"}

// worked are the kinds that KubeSlice's controller works out.
var worked = []string{"WorkerSliceConfig", "WorkerSliceGateway", "WorkerServiceImport", "VpnKeyRotation"}

// needed are the kinds without which the hub is none.
var needed = []string{"SliceConfig", "Cluster"}

// project returns the project whose namespace that is, by KubeSlice's rule for
// names.
func project(namespace string) string { return strings.TrimPrefix(namespace, "kubeslice-") }
