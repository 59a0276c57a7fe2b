package manifest

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"slicewire/overlay"
)

// A Worked is an object that KubeSlice's controller would work out from others.
// Labels and Spec are its own; nothing of them is shared.
type Worked struct {
	Kind, APIVersion string
	Namespace, Name  string
	Labels           map[string]string
	Spec             map[string]any // as JSON has it
}

// ID returns the object's kind and name, as Object.ID does.
func (w *Worked) ID() string {
	return (&Object{Kind: w.Kind, Namespace: w.Namespace, Name: w.Name}).ID()
}

// Work returns what KubeSlice's controller writes for the workers of a namespace:
// a WorkerSliceConfig per slice and cluster, two WorkerSliceGateways per pair of
// clusters, a WorkerServiceImport per exported service and cluster, and a
// VpnKeyRotation per slice. set is what mesh was built from. The same input gives
// the same output, sorted by kind and name.
func Work(set *Set, mesh *overlay.Mesh, now time.Time) []Worked {
	w := newWorker(set, now)
	for _, o := range set.Objects {
		config, is := o.Body.(*SliceConfig)
		s, built := mesh.Slice(o.Name)
		if is && built && o.Namespace != "" {
			w.slice(o, &config.Spec, s)
		}
	}
	slices.SortFunc(w.out, func(a, b Worked) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name)) })
	return w.out
}

type worker struct {
	set      *Set
	now      time.Time
	exports  map[string][]*Object // by slice
	profiles map[string]*QOSProfile
	clusters map[string]*Cluster
	out      []Worked
}

func newWorker(set *Set, now time.Time) *worker {
	w := &worker{set: set, now: now, exports: map[string][]*Object{}, profiles: map[string]*QOSProfile{}, clusters: map[string]*Cluster{}}
	for _, o := range set.Objects {
		switch body := o.Body.(type) {
		case *ServiceExportConfig:
			w.exports[body.Spec.SliceName] = append(w.exports[body.Spec.SliceName], o)
		case *SliceQoSConfig:
			w.profiles[o.Name] = &body.Spec
		case *Cluster:
			w.clusters[o.Name] = body
		}
	}
	return w
}

func (w *worker) add(o *Object, kind, name string, labels map[string]string, spec any) {
	all := map[string]string{"original-slice-name": o.Name, "project-namespace": o.Namespace, "kubeslice-manager": "controller"}
	for k, v := range labels {
		all[k] = v
	}
	w.out = append(w.out, Worked{Kind: kind, APIVersion: kinds[kind].apiVersion, Namespace: o.Namespace, Name: name, Labels: all, Spec: plain(spec)})
}

func (w *worker) slice(o *Object, spec *SliceConfigSpec, s *overlay.Slice) {
	index, prefix := placesOf(s)
	for _, c := range spec.Clusters {
		labels := map[string]string{"worker-cluster": c}
		if spec.StandardQosProfileName != "" {
			labels["standard-qos-profile"] = spec.StandardQosProfileName
		}
		w.add(o, "WorkerSliceConfig", o.Name+"-"+c, labels, w.config(o.Name, spec, c, index[c], prefix[c]))
	}
	w.imports(o, spec)
	gateways := map[string][]string{}
	for _, e := range w.gateways(o.Name, spec, s) {
		local, remote := e.spec.LocalGatewayConfig.ClusterName, e.spec.RemoteGatewayConfig.ClusterName
		w.add(o, "WorkerSliceGateway", e.name, map[string]string{"worker-cluster": local, "remote-cluster": remote}, e.spec)
		gateways[local] = append(gateways[local], e.name)
	}
	if len(gateways) > 0 {
		w.add(o, "VpnKeyRotation", o.Name, nil, w.rotation(o, spec, gateways))
	}
}

// placesOf returns the index and the prefix of every site of a slice.
func placesOf(s *overlay.Slice) (index map[string]int, prefix map[string]netip.Prefix) {
	index, prefix = map[string]int{}, map[string]netip.Prefix{}
	for _, site := range s.Sites {
		index[site.Name], prefix[site.Name] = site.Index, site.Prefix
	}
	return index, prefix
}

func (w *worker) config(slice string, spec *SliceConfigSpec, cluster string, octet int, prefix netip.Prefix) WorkerSliceConfigSpec {
	out := WorkerSliceConfigSpec{
		SliceName: slice, SliceSubnet: spec.SliceSubnet, SliceType: spec.SliceType, SliceIpamType: spec.SliceIpamType,
		QosProfileDetails: w.profile(spec), IpamClusterOctet: octet, Octet: &octet,
		OverlayNetworkDeploymentMode: spec.OverlayNetworkDeploymentMode,
		NamespaceIsolationProfile: WorkerNamespaceProfile{
			IsolationEnabled:      spec.NamespaceIsolationProfile.IsolationEnabled,
			ApplicationNamespaces: namespacesAt(spec.NamespaceIsolationProfile.ApplicationNamespaces, cluster),
			AllowedNamespaces:     namespacesAt(spec.NamespaceIsolationProfile.AllowedNamespaces, cluster),
		},
		ExternalGatewayConfig: externalAt(spec.ExternalGatewayConfig, cluster),
	}
	if prefix.IsValid() {
		out.ClusterSubnetCIDR = prefix.String()
	}
	if p := spec.SliceGatewayProvider; p != nil {
		t := serviceTypeOf(p, cluster)
		out.SliceGatewayProvider = WorkerSliceGatewayProvider{SliceGatewayType: p.SliceGatewayType, SliceCaType: p.SliceCaType, SliceGatewayServiceType: t.Type, SliceGatewayProtocol: t.Protocol}
	}
	return out
}

// profile returns the slice's own profile, or the one that it names.
func (w *worker) profile(spec *SliceConfigSpec) *QOSProfile {
	if spec.QosProfileDetails != nil || spec.StandardQosProfileName == "" {
		return spec.QosProfileDetails
	}
	if p := w.profiles[spec.StandardQosProfileName]; p != nil {
		return p
	}
	p := defaultProfile()
	return &p
}

func namespacesAt(list []SliceNamespaceSelection, cluster string) []string {
	var out []string
	for _, n := range list {
		if slices.Contains(n.Clusters, everywhere) || slices.Contains(n.Clusters, cluster) {
			out = append(out, n.Namespace)
		}
	}
	return out
}

// externalAt returns the entry that names the cluster, else the one for all.
func externalAt(list []ExternalGatewayConfig, cluster string) *ExternalGatewayConfig {
	var found *ExternalGatewayConfig
	for i := range list {
		if slices.Contains(list[i].Clusters, cluster) {
			return &list[i]
		}
		if slices.Contains(list[i].Clusters, everywhere) {
			found = &list[i]
		}
	}
	return found
}

// gatewayEnd is one end of a pair. The tunnel's addresses are those that KubeSlice
// reports for every pair; nothing is routed by them.
func (w *worker) gatewayEnd(s *overlay.Slice, cluster string, prefix netip.Prefix, name string, host byte) GatewayConfig {
	base := s.Subnet.Addr().As4()
	out := GatewayConfig{GatewayName: name, ClusterName: cluster, GatewaySubnet: prefix.String(), VpnIP: netip.AddrFrom4([4]byte{base[0], base[1], 255, host}).String()}
	if c := w.clusters[cluster]; c != nil {
		out.NodeIPs = slices.Clone(c.Spec.NodeIPs)
		if len(out.NodeIPs) == 0 && c.Spec.NodeIP != "" {
			out.NodeIPs = []string{c.Spec.NodeIP}
		}
		if len(out.NodeIPs) == 0 && c.Status != nil {
			out.NodeIPs = slices.Clone(c.Status.NodeIPs)
		}
	}
	return out
}

// An end is one of the two WorkerSliceGateways of a pair.
type end struct {
	name string
	spec WorkerSliceGatewaySpec
}

// gateways returns both ends of every pair of a slice's clusters.
func (w *worker) gateways(slice string, spec *SliceConfigSpec, s *overlay.Slice) (out []end) {
	if s.Mode != overlay.SingleNetwork {
		return nil
	}
	index, prefix := placesOf(s)
	for _, p := range overlay.GatewayPairs(slice, spec.Clusters, index) {
		server, client := w.gatewayEnd(s, p.Server, prefix[p.Server], p.ServerObject, 1), w.gatewayEnd(s, p.Client, prefix[p.Client], p.ClientObject, 2)
		exposed := SliceGatewayServiceType{Type: "NodePort", Protocol: "UDP"}
		kind := ""
		if spec.SliceGatewayProvider != nil {
			exposed, kind = serviceTypeOf(spec.SliceGatewayProvider, p.Server), spec.SliceGatewayProvider.SliceGatewayType
		}
		one := func(host, name string, local, remote GatewayConfig) {
			g := WorkerSliceGatewaySpec{
				SliceName: slice, GatewayType: kind, GatewayHostType: host, GatewayConnectivityType: exposed.Type, GatewayProtocol: exposed.Protocol,
				LocalGatewayConfig: local, RemoteGatewayConfig: remote, GatewayNumber: p.Number,
			}
			g.GatewayCredentials.SecretName = name
			out = append(out, end{name, g})
		}
		one("Server", p.ServerObject, server, client)
		one("Client", p.ClientObject, client, server)
	}
	return out
}

// rotation says when the slice's keys change next. Keys change by themselves, by
// the clock: the object tells, it does not decide.
func (w *worker) rotation(o *Object, spec *SliceConfigSpec, gateways map[string][]string) VpnKeyRotationSpec {
	begin := spec.RenewBefore
	if t := o.Body.(*SliceConfig).Metadata.CreationTimestamp; begin.Before(t) {
		begin = t
	}
	days := cmp.Or(spec.RotationInterval, 30)
	each := time.Duration(days) * 24 * time.Hour
	count := 0
	if !begin.IsZero() {
		count = int(max(w.now.Sub(begin), 0) / each)
		begin = begin.Add(time.Duration(count) * each)
	}
	out := VpnKeyRotationSpec{SliceName: o.Name, ClusterGatewayMapping: gateways, RotationInterval: days, Clusters: spec.Clusters, RotationCount: count + 1}
	if !begin.IsZero() {
		out.CertificateCreationTime = begin.UTC()
		out.CertificateExpiryTime = begin.Add(each - time.Hour).UTC() // KubeSlice begins an hour early
	}
	return out
}

// imports aggregates the exports of each service for each cluster: all endpoints,
// and the ports and aliases of the first, as KubeSlice does.
func (w *worker) imports(o *Object, spec *SliceConfigSpec) {
	type key struct{ namespace, name string }
	found := map[key]*WorkerServiceImportSpec{}
	var order []key
	exports := slices.Clone(w.exports[o.Name])
	slices.SortFunc(exports, func(a, b *Object) int { return cmp.Compare(a.Name, b.Name) })
	for _, x := range exports {
		e := &x.Body.(*ServiceExportConfig).Spec
		if x.Namespace != o.Namespace || !slices.Contains(spec.Clusters, e.SourceCluster) {
			continue
		}
		k := key{cmp.Or(e.ServiceNamespace, defaultNamespace), e.ServiceName}
		i := found[k]
		if i == nil {
			i = &WorkerServiceImportSpec{ServiceName: k.name, ServiceNamespace: k.namespace, SliceName: o.Name, ServiceDiscoveryPorts: e.ServiceDiscoveryPorts, Aliases: e.Aliases}
			found[k], order = i, append(order, k)
		}
		if !slices.Contains(i.SourceClusters, e.SourceCluster) {
			i.SourceClusters = append(i.SourceClusters, e.SourceCluster)
		}
		i.ServiceDiscoveryEndpoints = append(i.ServiceDiscoveryEndpoints, e.ServiceDiscoveryEndpoints...)
	}
	for _, k := range order {
		for _, c := range spec.Clusters {
			w.add(o, "WorkerServiceImport", ImportObjectName(k.name, k.namespace, o.Name, c),
				map[string]string{"worker-cluster": c, "service-name": k.name, "service-namespace": k.namespace}, *found[k])
		}
	}
}

// ImportObjectName returns the name of a WorkerServiceImport.
func ImportObjectName(service, namespace, slice, cluster string) string {
	return service + "-" + namespace + "-" + slice + "-" + cluster
}

// ExportObjectName returns the name of a ServiceExportConfig.
func ExportObjectName(service, namespace, cluster string) string {
	return service + "-" + namespace + "-" + cluster
}
