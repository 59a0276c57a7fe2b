package cluster

import (
	"cmp"
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"slicewire/kube"
)

// gateways selects the pods that would put back what is taken away.
const gateways = "app.kubernetes.io/name=slicewire"

// Remove takes away what slicewire has made in a cluster for imported services,
// isolation and those who look at Slices and SliceGateways, and what it wrote into
// namespaces and into the statuses of exports, once its pods in the namespace own
// have gone: it waits for them until ctx ends. changed is how many objects were
// removed or written. Where it fails, it may be called again.
func Remove(ctx context.Context, client *kube.Client, own string) (changed int, err error) {
	if err := awaitNoPods(ctx, client, own); err != nil {
		return 0, err
	}
	var list []kube.Swept
	add := func(kind Kind, s kube.Swept) {
		info := kinds()[kind]
		s.GroupVersionResource, s.Kind = info.resource, info.kind
		list = append(list, s)
		if s.Version = info.older; info.older != "" { // where the server lacks the newer one
			list = append(list, s)
		}
	}
	for _, kind := range []Kind{KindNetworkPolicy, KindImport, KindMCSImport, KindEndpointSlice, KindService, KindSlice, KindSliceGateway} {
		add(kind, kube.Swept{Objects: true})
	}
	for _, kind := range []Kind{KindExport, KindMCSExport} {
		add(kind, kube.Swept{Status: true})
	}
	add(KindNamespace, kube.Swept{Fields: true})
	return kube.Sweep(ctx, client, list)
}

// awaitNoPods waits until no gateway is left. It tells of the one that was seen
// last, also where the server has not answered since.
func awaitNoPods(ctx context.Context, client *kube.Client, own string) error {
	pods := client.Dynamic.Resource(kinds()[KindPod].resource).Namespace(own)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for seen := ""; ; {
		list, err := pods.List(ctx, metav1.ListOptions{LabelSelector: gateways})
		if err == nil {
			if len(list.Items) == 0 {
				return nil
			}
			seen = list.Items[0].GetName()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if seen == "" {
				return fmt.Errorf("list slicewire's pods in %s: %w", own, cmp.Or(err, ctx.Err()))
			}
			return fmt.Errorf("slicewire still runs, as pod %s/%s: it would put back what is removed; uninstall it first", own, seen)
		}
	}
}
