package manifest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/overlay"
)

// defaultProfileName is the SliceQoSConfig that KubeSlice makes in every
// project.
const defaultProfileName = "default"

func defaultProfile() QOSProfile {
	return QOSProfile{
		QueueType: "HTB", TcType: "BANDWIDTH_CONTROL", DscpClass: "AF11",
		BandwidthCeilingKbps: 10_000_000, BandwidthGuaranteedKbps: 1_000_000,
	}
}

// octets returns what WorkerSliceConfigs say of the sites' indexes: slice,
// cluster, index.
func (b *builder) octets() map[string]map[string]int {
	all := map[string]map[string]int{}
	for _, o := range b.byKind["WorkerSliceConfig"] {
		slice, cluster := workerSliceOf(o)
		octet := o.Body.(*WorkerSliceConfig).Spec.Octet
		if slice == "" || cluster == "" || octet == nil {
			continue
		}
		if all[slice] == nil {
			all[slice] = map[string]int{}
		}
		all[slice][cluster] = *octet
	}
	return all
}

// workerSliceOf returns the slice and cluster of a WorkerSliceConfig: its
// labels', else what its name <slice>-<cluster> says.
func workerSliceOf(o *Object) (slice, cluster string) {
	w := o.Body.(*WorkerSliceConfig)
	slice, cluster = w.Spec.SliceName, w.Metadata.Labels["worker-cluster"]
	if slice == "" {
		slice = w.Metadata.Labels["original-slice-name"]
	}
	if cluster == "" && slice != "" {
		cluster, _ = strings.CutPrefix(o.Name, slice+"-")
	}
	return slice, cluster
}

// assemble makes the slice of a SliceConfig that has passed its checks. What
// does not fit together is still reported here.
func (b *builder) assemble(o *Object, spec *SliceConfigSpec, octets map[string]int) overlay.Slice {
	s := overlay.Slice{
		Name:       o.Name,
		Mode:       overlay.Mode(spec.OverlayNetworkDeploymentMode),
		QoS:        b.qos(o, spec),
		Isolated:   spec.NamespaceIsolationProfile.IsolationEnabled,
		Namespaces: bindings(spec.NamespaceIsolationProfile.ApplicationNamespaces),
		Allowed:    bindings(spec.NamespaceIsolationProfile.AllowedNamespaces),

		RotationInterval: time.Duration(spec.RotationInterval) * 24 * time.Hour,
		RenewBefore:      spec.RenewBefore,
	}
	if t := spec.Topology; t != nil && t.Mode == "HubAndSpoke" {
		s.Hubs = slices.Sorted(slices.Values(t.Hubs))
	}
	// An octet in the manifests is older than anything a node remembers.
	known := map[string]int{}
	taken := map[int]bool{}
	for _, c := range spec.Clusters {
		if i, ok := octets[c]; ok {
			known[c], taken[i] = i, true
		}
	}
	for c, i := range b.opts.Existing[o.Name] {
		if _, ok := known[c]; !ok && !taken[i] {
			known[c] = i
		}
	}
	index := overlay.AssignIndexes(known, spec.Clusters)
	for _, c := range spec.Clusters {
		s.Sites = append(s.Sites, overlay.SliceSite{Name: c, Index: index[c]})
	}
	if s.Mode != overlay.NoNetwork {
		s.Subnet = netip.MustParsePrefix(spec.SliceSubnet)
	}
	if s.Mode == overlay.SingleNetwork {
		s.Subnet6 = overlay.SliceSubnet6(b.mesh.Name, s.Name)
		b.addressSites(o, spec, &s)
	}
	b.siteRoutes(o, &s)
	slices.SortFunc(s.Sites, func(x, y overlay.SliceSite) int { return x.Index - y.Index })
	return s
}

func bindings(list []SliceNamespaceSelection) []overlay.NamespaceBinding {
	var out []overlay.NamespaceBinding
	for _, n := range list {
		out = append(out, overlay.NamespaceBinding{Namespace: n.Namespace, Sites: slices.Clone(n.Clusters)})
	}
	return out
}

func (b *builder) qos(o *Object, spec *SliceConfigSpec) overlay.QoS {
	var p QOSProfile
	switch {
	case spec.QosProfileDetails != nil:
		p = *spec.QosProfileDetails
	case spec.StandardQosProfileName != "":
		if f := b.find("SliceQoSConfig", spec.StandardQosProfileName, o); f != nil {
			p = f.Body.(*SliceQoSConfig).Spec
		} else if spec.StandardQosProfileName == defaultProfileName {
			p = defaultProfile()
		}
	default: // only a no-network slice may have none
		return overlay.QoS{}
	}
	return overlay.QoS{
		CeilingKbps:    p.BandwidthCeilingKbps,
		GuaranteedKbps: p.BandwidthGuaranteedKbps,
		Priority:       p.Priority,
		DSCP:           p.DscpClass,
	}
}

// addressSites gives every site its prefixes. Sites stand in the order of
// spec.clusters, which is the order in which they join a dynamic slice.
func (b *builder) addressSites(o *Object, spec *SliceConfigSpec, s *overlay.Slice) {
	ipam := b.ipamOf(o)
	var pool overlay.Pool
	if spec.SliceIpamType == "Dynamic" {
		pool = overlay.Pool{Subnet: s.Subnet, Bits: spec.SubnetSize}
		if ipam != nil {
			pool = poolOf(ipam.Body.(*SliceIpam), s.Subnet)
		}
		if pool.Bits <= s.Subnet.Bits() {
			b.fail(o, "spec.subnetSize", "%d must be longer than the slice's /%d", pool.Bits, s.Subnet.Bits())
			return
		}
	}
	for i := range s.Sites {
		site := &s.Sites[i]
		field := fmt.Sprintf("spec.clusters[%d]", i)
		var err error
		switch {
		case spec.SliceIpamType != "Dynamic":
			site.Prefix, err = overlay.StaticPrefix(s.Subnet, spec.MaxClusters, site.Index)
		case ipam != nil:
			pool, site.Prefix, err = pool.Join(site.Name, b.opts.Now)
		default:
			// Without the state of a SliceIpam, the sticky index is all that
			// every node knows: it is the number of the subnet.
			site.Prefix, err = pool.NthSubnet(site.Index)
		}
		if err == nil {
			site.Prefix6, err = overlay.SitePrefix6(s.Subnet6, site.Index)
		}
		if err != nil {
			b.fail(o, field, "%s: %v", site.Name, err)
		}
	}
}

// ipamOf returns the usable SliceIpam of a slice.
func (b *builder) ipamOf(o *Object) *Object {
	for _, i := range b.byKind["SliceIpam"] {
		if i.Body.(*SliceIpam).Spec.SliceName == o.Name && together(i, o) && !i.Broken {
			return i
		}
	}
	return nil
}

// poolOf returns the state that a SliceIpam tells. Subnets that do not belong
// to the slice are left out; checkIpams reports them.
func poolOf(ipam *SliceIpam, subnet netip.Prefix) overlay.Pool {
	pool := overlay.Pool{Subnet: subnet, Bits: ipam.Spec.SubnetSize}
	if ipam.Status == nil {
		return pool
	}
	for _, a := range ipam.Status.AllocatedSubnets {
		p, err := netip.ParsePrefix(a.Subnet)
		if err != nil || p != p.Masked() || p.Bits() != pool.Bits || !subnet.Contains(p.Addr()) {
			continue
		}
		status := overlay.AllocationStatus(a.Status)
		if status == "" {
			status = overlay.SubnetAllocated
		}
		pool.Allocations = append(pool.Allocations, overlay.Allocation{
			Site: a.ClusterName, Prefix: p, Status: status, AllocatedAt: a.AllocatedAt, ReleasedAt: a.ReleasedAt,
		})
	}
	return pool
}

// checkWorkerSlices checks that WorkerSliceConfigs agree with their slice.
func (b *builder) checkWorkerSlices() {
	type place struct {
		slice string
		octet int
	}
	first := map[place]*Object{}
	for _, o := range b.byKind["WorkerSliceConfig"] {
		slice, cluster := workerSliceOf(o)
		if slice == "" || cluster == "" {
			b.warn(o, "spec.sliceName", "the object does not say which slice and cluster it is of")
			continue
		}
		octet := o.Body.(*WorkerSliceConfig).Spec.Octet
		if octet == nil {
			continue
		}
		config := b.find("SliceConfig", slice, o)
		if config != nil {
			spec := &config.Body.(*SliceConfig).Spec
			if limit := 1<<(overlay.ClusterPrefixBits(spec.MaxClusters)-16) - 1; *octet < 0 || *octet > limit {
				b.fail(o, "spec.octet", "%d is outside 0 to %d", *octet, limit)
			}
			if !slices.Contains(spec.Clusters, cluster) {
				continue // it left; its octet is free
			}
		} else if *octet < 0 || *octet > 31 {
			b.fail(o, "spec.octet", "%d is outside 0 to 31", *octet)
		}
		at := place{slice, *octet}
		if f := first[at]; f != nil {
			b.fail(o, "spec.octet", "%d is also the octet of %s", *octet, f.Name)
		} else {
			first[at] = o
		}
	}
	// A slice whose octets contradict each other has no addresses to rely on.
	broken := map[string]bool{}
	for _, o := range b.byKind["WorkerSliceConfig"] {
		if slice, _ := workerSliceOf(o); o.Broken && slice != "" {
			broken[slice] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(broken)) {
		b.leaveOut(name)
	}
}

// leaveOut takes a slice out of the mesh.
func (b *builder) leaveOut(name string) {
	before := len(b.mesh.Slices)
	b.mesh.Slices = slices.DeleteFunc(b.mesh.Slices, func(s overlay.Slice) bool { return s.Name == name })
	if len(b.mesh.Slices) < before {
		b.leftOut[name] = true
	}
}

// checkIpams holds the rules on SliceIpam. They run after the slices, which
// need nothing of a broken one; a slice whose SliceIpam is broken is left out.
func (b *builder) checkIpams() {
	first := map[string]*Object{}
	for _, o := range b.byKind["SliceIpam"] {
		ipam := o.Body.(*SliceIpam)
		b.checkIpam(o, ipam)
		if f := first[ipam.Spec.SliceName]; f != nil && together(f, o) {
			b.fail(o, "spec.sliceName", "slice %q already has SliceIpam %s", ipam.Spec.SliceName, f.Name)
		} else {
			first[ipam.Spec.SliceName] = o
		}
		if o.Broken {
			b.leaveOut(ipam.Spec.SliceName)
		}
	}
}

func (b *builder) checkIpam(o *Object, ipam *SliceIpam) {
	subnet, err := netip.ParsePrefix(ipam.Spec.SliceSubnet)
	switch {
	case err != nil || !subnet.Addr().Is4():
		b.fail(o, "spec.sliceSubnet", "%q is not an IPv4 CIDR", ipam.Spec.SliceSubnet)
		return
	case subnet != subnet.Masked():
		b.fail(o, "spec.sliceSubnet", "%s is not a network address", subnet)
	case !slices.ContainsFunc(privateNets, func(n netip.Prefix) bool { return n.Contains(subnet.Addr()) }):
		b.fail(o, "spec.sliceSubnet", "%s is not private (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16)", subnet)
	case subnet.Bits() < 8 || subnet.Bits() > 28:
		b.fail(o, "spec.sliceSubnet", "%s: the length is outside 8 to 28", subnet)
	case ipam.Spec.SubnetSize <= subnet.Bits():
		b.fail(o, "spec.subnetSize", "%d must be longer than the slice's /%d", ipam.Spec.SubnetSize, subnet.Bits())
	}
	config := b.find("SliceConfig", ipam.Spec.SliceName, o)
	if config == nil {
		b.fail(o, "spec.sliceName", "there is no SliceConfig %q%s", ipam.Spec.SliceName, didYouMean(ipam.Spec.SliceName, b.names("SliceConfig")))
		return
	}
	spec := &config.Body.(*SliceConfig).Spec
	if spec.SliceIpamType != "Dynamic" {
		b.fail(o, "spec.sliceName", "the sliceIpamType of slice %q is %s, not Dynamic", ipam.Spec.SliceName, spec.SliceIpamType)
	}
	if spec.SliceSubnet != ipam.Spec.SliceSubnet {
		b.fail(o, "spec.sliceSubnet", "%s is not the slice's subnet, %s", ipam.Spec.SliceSubnet, spec.SliceSubnet)
	}
	if ipam.Status == nil {
		return
	}
	seen := map[netip.Prefix]bool{}
	for i, a := range ipam.Status.AllocatedSubnets {
		field := fmt.Sprintf("status.allocatedSubnets[%d].subnet", i)
		p, err := netip.ParsePrefix(a.Subnet)
		switch {
		case err != nil || p != p.Masked() || p.Bits() != ipam.Spec.SubnetSize || !subnet.Contains(p.Addr()):
			b.fail(o, field, "%q is not a /%d of %s", a.Subnet, ipam.Spec.SubnetSize, subnet)
		case seen[p]:
			b.fail(o, field, "%s is there twice", p)
		}
		seen[p] = true
	}
}
