package hub

import (
	"context"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/kube"
)

// Remove takes away what slicewire's nodes have written into a project's
// namespace on a hub: what KubeSlice's controller would have worked out, exports,
// leases, and statuses of what people wrote, which itself stays. The nodes must
// have lost their rights there, or they write it again. changed is how many
// objects were removed or written. Where it fails, it may be called again.
func Remove(ctx context.Context, client *kube.Client, namespace string) (changed int, err error) {
	var list []kube.Swept
	add := func(kind string, r schema.GroupVersionResource, status bool) {
		list = append(list, kube.Swept{GroupVersionResource: r, Kind: kind, Namespace: namespace, Objects: true, Status: status})
	}
	for _, kind := range worked {
		add(kind, resources[kind], true)
	}
	for _, kind := range append([]string{"Cluster"}, judged...) {
		add(kind, resources[kind], true)
	}
	add("Lease", leases, false)
	return kube.Sweep(ctx, client, list)
}
