package manifest

import (
	"slices"
	"time"

	"slicewire/overlay"
)

// A WorkerSlice is what KubeSlice's controller works out of a slice for one
// cluster: that of its WorkerSliceConfig and of its ends of the tunnels to others.
type WorkerSlice struct {
	Config   WorkerSliceConfigSpec
	Gateways []WorkerSliceGatewaySpec // in the order of the slice's clusters
}

// WorkerSlices returns it for every slice that the cluster is part of, by name:
// the same as Work has in its objects, for a set of any namespaces or none. set is
// what mesh was built from.
func WorkerSlices(set *Set, mesh *overlay.Mesh, cluster string) map[string]WorkerSlice {
	w := newWorker(set, time.Time{})
	out := make(map[string]WorkerSlice)
	for _, o := range set.Objects {
		config, is := o.Body.(*SliceConfig)
		s, built := mesh.Slice(o.Name)
		if !is || !built || !slices.Contains(config.Spec.Clusters, cluster) {
			continue
		}
		index, prefix := placesOf(s)
		x := WorkerSlice{Config: w.config(o.Name, &config.Spec, cluster, index[cluster], prefix[cluster])}
		for _, e := range w.gateways(o.Name, &config.Spec, s) {
			if e.spec.LocalGatewayConfig.ClusterName == cluster {
				x.Gateways = append(x.Gateways, e.spec)
			}
		}
		out[o.Name] = x
	}
	return out
}
