package hub

import (
	"maps"
	"slices"

	"slicewire/kube"
	"slicewire/overlay"
)

// An Import is a service that this site can reach on a slice.
type Import struct {
	Slice, Namespace, Name string
	Endpoints              int // of all sites
}

// ImportsOf counts the services of a slice.
func ImportsOf(slice string, services []overlay.ServiceView) []Import {
	var out []Import
	for _, s := range services {
		out = append(out, Import{slice, s.Namespace, s.Name, len(s.Endpoints)})
	}
	return out
}

// tally is what happened to a slice at this site since the start.
type tally struct{ created, updated, deleted, notCreated, notUpdated uint64 }

// countRefusals notes which SliceConfigs are newly refused. h.mu is held.
func (h *Hub) countRefusals(now map[string]verdict) {
	for id, v := range now {
		kind, _, name := split(id)
		if kind != "SliceConfig" || v.refused == "" || v == h.verdicts[id] {
			continue
		}
		if h.tallies[name] == nil {
			h.tallies[name] = &tally{}
		}
		if v.before {
			h.tallies[name].notUpdated++
		} else {
			h.tallies[name].notCreated++
		}
	}
}

// count notes how the slices of this site differ between two states. h.mu is held.
func (h *Hub) count(before, after *overlay.Mesh) {
	at := func(name string) *tally {
		if h.tallies[name] == nil {
			h.tallies[name] = &tally{}
		}
		return h.tallies[name]
	}
	here := func(m *overlay.Mesh, name string) *overlay.Slice {
		if s, ok := m.Slice(name); ok {
			if _, member := s.Site(h.cfg.Site); member {
				return s
			}
		}
		return nil
	}
	for i := range after.Slices {
		name := after.Slices[i].Name
		switch was, is := here(before, name), here(after, name); {
		case is == nil:
		case was == nil:
			at(name).created++
		case !sameTerms(was, is):
			at(name).updated++
		}
	}
	for i := range before.Slices {
		if name := before.Slices[i].Name; here(before, name) != nil && here(after, name) == nil {
			at(name).deleted++
		}
	}
}

// sameTerms compares what a SliceConfig says of a slice, but for its services,
// which are other objects.
func sameTerms(a, b *overlay.Slice) bool {
	return a.Mode == b.Mode && a.Subnet == b.Subnet && a.Isolated == b.Isolated && a.RotationInterval == b.RotationInterval && a.RenewBefore.Equal(b.RenewBefore) &&
		a.QoS.CeilingKbps == b.QoS.CeilingKbps && a.QoS.GuaranteedKbps == b.QoS.GuaranteedKbps && a.QoS.Priority == b.QoS.Priority && a.QoS.DSCP == b.QoS.DSCP &&
		slices.Equal(a.Hubs, b.Hubs) && sameBindings(a.Namespaces, b.Namespaces) && sameBindings(a.Allowed, b.Allowed) &&
		slices.EqualFunc(a.Sites, b.Sites, func(x, y overlay.SliceSite) bool { return x.Name == y.Name && x.Index == y.Index })
}

func sameBindings(a, b []overlay.NamespaceBinding) bool {
	return slices.EqualFunc(a, b, func(x, y overlay.NamespaceBinding) bool {
		return x.Namespace == y.Namespace && slices.Equal(x.Sites, y.Sites)
	})
}

// Samples returns KubeSlice's metrics of this worker, as far as a node knows them.
func (h *Hub) Samples() []kube.Sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []kube.Sample
	add := func(name string, value float64, values ...string) {
		labels := kube.MetricBase(project(h.cfg.Namespace), h.cfg.Site)
		for i, k := range kube.MetricLabels[name] {
			labels[k] = values[i]
		}
		out = append(out, kube.Sample{Name: name, Labels: labels, Value: value})
	}
	add("kubeslice_cluster_up", 1)
	add("kubeslice_cluster_component_up", 1, "slicewire")
	if h.merged != nil {
		for _, s := range h.merged.mesh.Slices {
			if _, member := s.Site(h.cfg.Site); member {
				add("kubeslice_slice_up", 1, s.Name)
				h.addParts(add, s.Name)
			}
		}
	}
	if h.facts != nil {
		for _, e := range h.facts.Exports {
			add("kubeslice_serviceexport_endpoints", float64(len(e.Endpoints)), e.Slice, e.Namespace, e.Name)
			add("kubeslice_serviceexport_aliases", float64(len(e.Aliases)), e.Slice, e.Namespace, e.Name)
		}
		for _, i := range h.facts.Imports {
			add("kubeslice_serviceimport_endpoints", float64(i.Endpoints), i.Slice, i.Namespace, i.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.tallies)) {
		t := h.tallies[name]
		add("kubeslice_slice_created_total", float64(t.created), name)
		add("kubeslice_slice_updated_total", float64(t.updated), name)
		add("kubeslice_slice_deleted_total", float64(t.deleted), name)
		add("kubeslice_slice_creation_failed_total", float64(t.notCreated), name)
		add("kubeslice_slice_updation_failed_total", float64(t.notUpdated), name)
		add("kubeslice_slice_deletion_failed_total", 0, name) // a slice that is taken away is gone: nothing of it can fail
	}
	return out
}

// addParts adds how the parts of a slice are. h.mu is held.
func (h *Hub) addParts(add func(string, float64, ...string), slice string) {
	if h.facts == nil {
		return
	}
	up := 1.0
	for _, l := range h.facts.Links {
		if l.Slice == slice && !h.facts.up(slice, l.Site) {
			up = 0
		}
	}
	add("kubeslice_slice_component_up", up, slice, "gateway-tunnel")
	pods := map[string]map[string]bool{}
	for _, e := range h.facts.Exports {
		if e.Slice != slice {
			continue
		}
		if pods[e.Namespace] == nil {
			pods[e.Namespace] = map[string]bool{}
		}
		for _, x := range e.Endpoints {
			pods[e.Namespace][x.Name] = true
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(pods)) {
		add("kubeslice_app_pods", float64(len(pods[namespace])), slice, namespace)
	}
}
