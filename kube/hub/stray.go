package hub

import (
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// foreign reports whether KubeSlice's controller, or something that does its work,
// is at home: an object that it works out is marked as its own, or one of its
// finalizers is on what it works from. What merely is not ours proves nothing:
// anybody who may write one could else have all nodes of the mesh stop working.
func foreign(hub lister) bool {
	for _, kind := range worked {
		for _, o := range hub.list(kind) {
			if !kube.Ours(o) && (o.GetLabels()[kube.LabelKubesliceManager] != "" || finalized(o)) {
				return true
			}
		}
	}
	for _, kind := range []string{"SliceConfig", "Cluster", "SliceQoSConfig"} {
		for _, o := range hub.list(kind) {
			if finalized(o) {
				return true
			}
		}
	}
	return false
}

// finalized reports whether KubeSlice's controller holds an object.
func finalized(o *unstructured.Unstructured) bool {
	for _, f := range o.GetFinalizers() {
		if strings.HasPrefix(f, kube.GroupController+"/") || strings.HasPrefix(f, kube.GroupWorker+"/") {
			return true
		}
	}
	return false
}

// planStrays tells of objects of the kinds that are worked out which others have
// made and nothing comes to: nobody goes by them. all is what is worked out.
// Those that lie are removed, see planWorked: they say that they are ours.
// lacks are kinds whose statuses have no room for it.
func planStrays(hub lister, all []manifest.Worked, lacks func(kind string) bool, now time.Time) []write {
	wanted := make(map[[2]string]bool, len(all))
	for _, w := range all {
		wanted[[2]string{w.Kind, w.Name}] = true
	}
	var out []write
	for _, kind := range worked {
		if lacks(kind) {
			continue
		}
		for _, o := range hub.list(kind) {
			if wanted[[2]string{kind, o.GetName()}] || kube.Ours(o) || o.GetDeletionTimestamp() != nil {
				continue
			}
			c := condition{kind: conditionAccepted, reason: "Refused", message: "no slice, cluster or export of the project comes to a " + kind + " of this name: nobody goes by it"}
			want := bare(o)
			want.Object["status"] = map[string]any{"conditions": []any{c.object(o, now)}}
			if kube.Differs(want, o, "status") {
				out = append(out, write{kind: kind, want: want, live: o, status: true, event: "HubObjectRefused"})
			}
		}
	}
	return out
}

// partOf reports whether an object has the name of the site's part of a slice.
func (s *site) partOf(o *unstructured.Unstructured, slice *overlay.Slice) bool {
	return o.GetLabels()[kube.LabelWorkerCluster] == s.name && o.GetName() == slice.Name+"-"+s.name
}

// endOf returns the other site of which an object has the name of this site's end.
func (s *site) endOf(o *unstructured.Unstructured, slice *overlay.Slice) (remote string, ok bool) {
	local, _, _ := unstructured.NestedString(o.Object, "spec", "localGatewayConfig", "clusterName")
	remote, _, _ = unstructured.NestedString(o.Object, "spec", "remoteGatewayConfig", "clusterName")
	_, member := slice.Site(remote)
	return remote, member && local == s.name && remote != s.name && o.GetName() == slice.Name+"-"+local+"-"+remote
}
