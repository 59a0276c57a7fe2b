package cluster

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay"
)

// maxNamed is how many endpoints of a service get a Service of their own.
const maxNamed = 32

// A derived Service stands in the cluster for an imported service, or for one of
// its endpoints that has a name people rely on.
type derived struct {
	Ref      // of the Service
	slice    *Slice
	view     *overlay.ServiceView
	endpoint *overlay.EndpointView // nil: all of them
}

// host is the endpoint's name on the slice; empty: the whole service.
func (d *derived) host() string {
	if d.endpoint == nil {
		return ""
	}
	return overlay.EndpointDNSName(d.endpoint.Name, d.endpoint.Origin.Site, d.view.Name, d.view.Namespace)
}

// derivedName names the Service that stands for an imported service, or for one of
// its endpoints.
func derivedName(namespace, name string, endpoint ...string) string {
	return "slicewire-" + short(append([]string{namespace, name}, endpoint...)...)
}

// derive lists what Services the cluster should have, and which services are
// imported at all: those of a slice whose namespace is an application namespace
// of the slice here and exists.
func derive(o *Objects, state *State) (out []derived) {
	for i := range state.Slices {
		s := &state.Slices[i]
		for j := range s.Services {
			v := &s.Services[j]
			if !slices.Contains(s.Namespaces, v.Namespace) || state.sliceOf(v.Namespace) != s || !o.exists(v.Namespace) || len(v.Ports) == 0 {
				continue
			}
			out = append(out, derived{Ref{KindService, v.Namespace, derivedName(v.Namespace, v.Name)}, s, v, nil})
			for k := range named(v) {
				e := &v.Endpoints[k]
				out = append(out, derived{Ref{KindService, v.Namespace, derivedName(v.Namespace, v.Name, e.Origin.Site, e.Name)}, s, v, e})
			}
		}
	}
	return out
}

// named yields the endpoints of a headless service that have names of their own:
// those of a StatefulSet, which end in a number. Other pods' names nobody can
// know before, and each costs an address of the cluster.
func named(v *overlay.ServiceView) func(func(int) bool) {
	return func(yield func(int) bool) {
		if v.Type != overlay.Headless {
			return
		}
		n := 0
		seen := make(map[string]bool)
		for i := range v.Endpoints {
			e := &v.Endpoints[i]
			key := e.Origin.Site + "/" + e.Name
			if !ordinal(e.Name) || seen[key] {
				continue
			}
			seen[key] = true
			if n++; n > maxNamed || !yield(i) {
				return
			}
		}
	}
}

// ordinal reports whether a pod's name ends as a StatefulSet has it. What a
// Deployment adds is longer.
func ordinal(name string) bool {
	i := strings.LastIndexByte(name, '-')
	if i < 1 || len(name)-i-1 < 1 || len(name)-i-1 > 4 {
		return false
	}
	return strings.Trim(name[i+1:], "0123456789") == ""
}

// portName names a port where a Service needs one: several ports have to have
// names.
func portName(p overlay.ServicePort, of int) string {
	if p.Name != "" || of == 1 {
		return p.Name
	}
	return fmt.Sprintf("p%d-%s", p.Port, strings.ToLower(string(p.Protocol)))
}

// service makes the derived Service. dual says that its doors are open by both
// families: it gets an address of each where the cluster has them, whatever the
// exporting cluster has. A second address that it has it keeps: a pod that has just
// begun may not know of its own yet.
func (d *derived) service(o *Objects, k *[numKinds]kindInfo, dual bool) want {
	dual = dual || len(d.clusterIPs(o)) > 1
	return want{Ref: d.Ref, slice: d.slice.Name, whole: func() *unstructured.Unstructured { return d.makeService(k, dual) }}
}

func (d *derived) makeService(k *[numKinds]kindInfo, dual bool) *unstructured.Unstructured {
	u := k[KindService].made(d.Ref, d.slice.Name, map[string]string{kube.LabelMCSServiceName: d.view.Name})
	var ports []any
	for _, p := range d.view.Ports {
		port := map[string]any{"port": int64(p.Port), "protocol": string(p.Protocol)}
		if n := portName(p, len(d.view.Ports)); n != "" {
			port["name"] = n
		}
		ports = append(ports, port)
	}
	spec := map[string]any{"type": "ClusterIP", "ports": ports, "sessionAffinity": "None"}
	if d.view.Affinity > 0 {
		spec["sessionAffinity"] = "ClientIP"
		spec["sessionAffinityConfig"] = map[string]any{"clientIP": map[string]any{"timeoutSeconds": int64(d.view.Affinity)}}
	}
	if dual {
		spec["ipFamilyPolicy"] = "PreferDualStack"
	}
	u.Object["spec"] = spec
	return u
}

// endpoints makes this pod's EndpointSlice of the derived Service, that of one of
// its addresses. A service without endpoints has none, so that connections are
// refused at once.
func (d *derived) endpoints(s *setting, self netip.Addr, listen map[string]uint16) want {
	r := Ref{KindEndpointSlice, d.Namespace, d.Name + "-" + short(self.String())[:8]}
	return want{Ref: r, slice: d.slice.Name, whole: func() *unstructured.Unstructured { return d.makeSlice(s, r, self, listen) }}
}

func (d *derived) makeSlice(s *setting, r Ref, self netip.Addr, listen map[string]uint16) *unstructured.Unstructured {
	u := s.kinds[KindEndpointSlice].made(r, d.slice.Name, map[string]string{kube.LabelEndpointsOf: d.Name, kube.LabelEndpointsManager: kube.ManagedBy})
	u.Object["addressType"] = familyOf(self)
	ports, endpoints := []any{}, []any{}
	for _, p := range d.view.Ports {
		if at, open := listen[portKey(d.view.Namespace, d.view.Name, d.host(), p)]; open {
			ports = append(ports, map[string]any{"name": portName(p, len(d.view.Ports)), "port": int64(at), "protocol": string(p.Protocol)})
		}
	}
	if len(d.view.Endpoints) > 0 && len(ports) > 0 {
		conditions := map[string]any{"ready": true}
		if s.leaving {
			conditions = map[string]any{"ready": false, "serving": true, "terminating": true}
		}
		endpoints = append(endpoints, map[string]any{"addresses": []any{self.String()}, "conditions": conditions})
	}
	u.Object["ports"], u.Object["endpoints"] = ports, endpoints
	return u
}

// familyOf names an address's family as the API does.
func familyOf(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// doorsBefore reads from the cluster which ports this pod had given.
func doorsBefore(o *Objects, list []derived, self netip.Addr) map[string]uint16 {
	out := make(map[string]uint16)
	for i := range list {
		d := &list[i]
		x := o.Get(Ref{KindEndpointSlice, d.Namespace, d.Name + "-" + short(self.String())[:8]})
		if x == nil || !x.ours {
			continue
		}
		for _, p := range d.view.Ports {
			for _, q := range x.Slice.Ports {
				if q.Name == portName(p, len(d.view.Ports)) && q.Protocol == string(p.Protocol) && q.Number > 0 && q.Number < 65536 {
					out[portKey(d.view.Namespace, d.view.Name, d.host(), p)] = uint16(q.Number)
				}
			}
		}
	}
	return out
}

// doors lists what this pod has to listen on.
func doors(list []derived, listen map[string]uint16) (out []Door) {
	for i := range list {
		d := &list[i]
		for _, p := range d.view.Ports {
			if at, open := listen[portKey(d.view.Namespace, d.view.Name, d.host(), p)]; open {
				out = append(out, Door{d.slice.Name, d.view.Namespace, d.view.Name, d.host(), p, at})
			}
		}
	}
	return out
}

func doorKeys(list []derived) (out []string) {
	for i := range list {
		for _, p := range list[i].view.Ports {
			out = append(out, portKey(list[i].view.Namespace, list[i].view.Name, list[i].host(), p))
		}
	}
	slices.Sort(out)
	return out
}

// imports lists what pods of the cluster are told of the services that are
// imported.
func imports(o *Objects, list []derived) (out []Import) {
	for i := 0; i < len(list); {
		m := Import{Slice: list[i].slice.Name, View: list[i].view, Addrs: list[i].clusterIPs(o)}
		for i++; i < len(list) && list[i].endpoint != nil; i++ {
			if m.Endpoints == nil {
				m.Endpoints = make(map[string][]netip.Addr)
			}
			e := list[i].endpoint
			m.Endpoints[e.Name+"."+e.Origin.Site] = list[i].clusterIPs(o)
		}
		out = append(out, m)
	}
	return out
}

// objects makes the ServiceImports of a service, those of both APIs.
func (d *derived) objects(o *Objects, k *[numKinds]kindInfo, now string) []want {
	name := Ref{KindImport, d.view.Namespace, d.view.Name}
	mcs := Ref{KindMCSImport, d.view.Namespace, d.view.Name}
	return []want{
		{Ref: name, slice: d.slice.Name, event: "SliceServiceImportUpdated", failed: "SliceServiceImportUpdateFailed",
			whole:  func() *unstructured.Unstructured { return d.kubeslice(k, name) },
			status: func() *unstructured.Unstructured { return withStatus(k, name, d.kubesliceStatus()) }},
		{Ref: mcs, slice: d.slice.Name,
			whole:  func() *unstructured.Unstructured { return d.mcs(o, k, mcs) },
			status: func() *unstructured.Unstructured { return withStatus(k, mcs, d.mcsStatus(o, mcs, now)) }},
	}
}

// maxListed is how many endpoints a status names.
const maxListed = 500

func (d *derived) kubeslice(k *[numKinds]kindInfo, r Ref) *unstructured.Unstructured {
	v := d.view
	ports := []any{}
	for _, p := range v.Ports {
		ports = append(ports, map[string]any{"name": p.Name, "containerPort": int64(p.Port), "protocol": string(p.Protocol)})
	}
	u := k[KindImport].made(r, d.slice.Name, map[string]string{kube.LabelSlice: d.slice.Name})
	spec := map[string]any{"slice": d.slice.Name, "dnsName": overlay.ServiceDNSName(v.Name, v.Namespace), "ports": ports}
	if len(v.DNSNames) > 1 {
		spec["aliases"] = anys(v.DNSNames[1:])
	}
	u.Object["spec"] = spec
	return u
}

func (d *derived) kubesliceStatus() map[string]any {
	v := d.view
	endpoints := []any{}
	for i := range v.Endpoints {
		e := &v.Endpoints[i]
		if i == maxListed {
			break
		}
		x := map[string]any{"name": e.Name, "clusterId": e.Origin.Site, "dnsName": overlay.EndpointDNSName(e.Name, e.Origin.Site, v.Name, v.Namespace)}
		if a := cmp.Or(e.Addr, e.Addr6); a.IsValid() {
			x["ip"] = a.String()
		}
		if len(e.Ports) > 0 {
			x["port"] = int64(e.Ports[0].Port)
		}
		endpoints = append(endpoints, x)
	}
	return map[string]any{
		"importStatus": "READY", "exposedPorts": exposed(v.Ports), "availableEndpoints": int64(len(v.Endpoints)), "endpoints": endpoints,
	}
}

// exposed lists ports as KubeSlice does: "5201/TCP,53/UDP".
func exposed(ports []overlay.ServicePort) string {
	var out []string
	for _, p := range ports {
		out = append(out, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
	}
	return strings.Join(out, ",")
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// withStatus makes what a status is applied by.
func withStatus(k *[numKinds]kindInfo, r Ref, status map[string]any) *unstructured.Unstructured {
	u := k[r.Kind].object(r)
	u.Object["status"] = status
	return u
}

// clusterIPs are the addresses that the cluster has given the derived Service.
func (d *derived) clusterIPs(o *Objects) []netip.Addr {
	if x := o.Get(d.Ref); x != nil && x.ours {
		return x.Service.ClusterIP
	}
	return nil
}

func (d *derived) mcs(o *Objects, k *[numKinds]kindInfo, r Ref) *unstructured.Unstructured {
	v := d.view
	u := k[KindMCSImport].made(r, d.slice.Name, v.Exported.Labels)
	notes := u.GetAnnotations()
	for key, value := range v.Exported.Annotations {
		notes[key] = value
	}
	u.SetAnnotations(notes)
	ports := []any{}
	for _, p := range v.Ports {
		port := map[string]any{"port": int64(p.Port), "protocol": string(p.Protocol)}
		if n := portName(p, len(v.Ports)); n != "" {
			port["name"] = n
		}
		ports = append(ports, port)
	}
	spec := map[string]any{"type": v.Type.String(), "ports": ports}
	if v.Type == overlay.Virtual {
		if at := d.clusterIPs(o); len(at) > 0 {
			var ips, families []any
			for _, a := range at {
				ips, families = append(ips, a.String()), append(families, familyOf(a))
			}
			spec["ips"], spec["ipFamilies"] = ips, families
		}
		spec["sessionAffinity"] = "None"
		if v.Affinity > 0 {
			spec["sessionAffinity"] = "ClientIP"
			spec["sessionAffinityConfig"] = map[string]any{"clientIP": map[string]any{"timeoutSeconds": int64(v.Affinity)}}
		}
	}
	u.Object["spec"] = spec
	return u
}

func (d *derived) mcsStatus(o *Objects, r Ref, now string) map[string]any {
	v := d.view
	ready := condition{"Ready", "True", "Ready", "imported from slice " + d.slice.Name}
	if v.Type == overlay.Virtual && len(d.clusterIPs(o)) == 0 {
		ready = condition{"Ready", "False", "Pending", "the cluster has not given an address yet"}
	}
	var sites []string
	for i := range v.Endpoints {
		sites = append(sites, v.Endpoints[i].Origin.Site)
	}
	clusters := []any{}
	for _, s := range compact(sites) {
		clusters = append(clusters, map[string]any{"cluster": s})
	}
	var old map[string]any
	var generation int64
	if x := o.Get(r); x != nil {
		old, generation = x.status(), x.Generation
	}
	return map[string]any{"clusters": clusters, "conditions": conditions(old, generation, now, ready)}
}
