package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"slicewire/overlay"
)

// DefaultMesh is the name of a mesh that nobody named.
const DefaultMesh = "default"

// Options is what Build needs besides objects.
type Options struct {
	Mesh     string                    // the mesh's name; empty: Node's, else DefaultMesh
	Now      time.Time                 // decides what Dynamic IPAM may reclaim
	Existing map[string]map[string]int // slice, site: the index from an earlier run
	Node     *NodeFile                 // checked against the mesh; nil: none

	// Live says that the objects change by themselves: a cluster that is not well
	// at the moment stays a member, and what Node names and they do not have may
	// come. Both are warned of.
	Live bool
}

// ReadMesh is Load and Build: the desired state that manifests describe, and all
// that is wrong with them.
func ReadMesh(paths []string, opts Options) (overlay.Mesh, []Problem) {
	set, problems := Load(paths)
	mesh, more := Build(set, opts)
	return mesh, append(problems, more...)
}

// Build works out the desired state from the objects of a set. A slice or
// service with errors is left out of the mesh; the others stay. The same
// objects and options give the same result on every node. Problems that Load
// or LoadNode found are not repeated; the set is not changed.
func Build(set *Set, opts Options) (overlay.Mesh, []Problem) {
	name := opts.Mesh
	if name == "" && opts.Node != nil {
		name = opts.Node.Mesh
	}
	b := &builder{
		opts:     opts,
		mesh:     overlay.Mesh{Name: cmp.Or(name, DefaultMesh)},
		byKind:   map[string][]*Object{},
		byName:   map[kindName][]*Object{},
		leftOut:  map[string]bool{},
		services: map[serviceKey]*service{},
	}
	// 1. every object once, in an order that does not depend on the files
	b.index(set.Objects)
	// 2. what needs nothing but itself and its neighbours
	b.checkProjects()
	b.checkClusters()
	b.checkQoS()
	b.checkRotations()
	// 3. the slices, then all that refers to them
	b.buildSlices()
	b.checkWorkerSlices()
	b.checkIpams()
	b.buildServices()
	if opts.Node != nil {
		b.checkNode(opts.Node)
	}
	b.buildPolicies()
	b.buildClasses()
	b.finish()
	return b.mesh, b.problems
}

type builder struct {
	opts     Options
	mesh     overlay.Mesh
	problems []Problem
	byKind   map[string][]*Object // sorted by name, namespace
	byName   map[kindName][]*Object
	leftOut  map[string]bool // slices that exist but have errors
	services map[serviceKey]*service
	openVPN  []*Object // slices that ask for OpenVPN
}

type kindName struct{ kind, name string }

func (b *builder) report(sev Severity, o *Object, field, format string, args ...any) {
	o.Broken = o.Broken || sev == Error
	if o.reported[sev]++; o.reported[sev] > maxProblems {
		return
	}
	b.problems = append(b.problems, Problem{sev, o.File, o.lineOf(field), o.ID(), field, fmt.Sprintf(format, args...)})
}

func (b *builder) fail(o *Object, field, format string, args ...any) {
	b.report(Error, o, field, format, args...)
}

func (b *builder) warn(o *Object, field, format string, args ...any) {
	b.report(Warning, o, field, format, args...)
}

// index sorts objects by kind. Of two with one name the first counts.
func (b *builder) index(objects []*Object) {
	first := map[string]*Object{}
	for _, given := range objects {
		c := *given // Broken is ours to set, not the caller's to see
		o := &c
		// A slice's name is its name in the whole mesh, whatever the project.
		id := o.ID()
		if o.Kind == "SliceConfig" {
			id = o.Kind + " " + o.Name
		}
		if f, twice := first[id]; twice {
			b.fail(o, "metadata.name", "%s is already defined at %s:%d", id, f.File, f.Line)
			continue
		}
		first[id] = o
		if o.Name != "" {
			b.byKind[o.Kind] = append(b.byKind[o.Kind], o)
			key := kindName{o.Kind, o.Name}
			b.byName[key] = append(b.byName[key], o)
		}
	}
	for _, list := range b.byKind {
		slices.SortStableFunc(list, func(x, y *Object) int {
			return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Namespace, y.Namespace))
		})
	}
}

// find returns the object of that kind and name that lives beside o.
func (b *builder) find(kind, name string, beside *Object) *Object {
	for _, o := range b.byName[kindName{kind, name}] {
		if together(o, beside) {
			return o
		}
	}
	return nil
}

// together reports whether two objects are in one namespace. An object without
// one is wherever kubectl puts it, so it may be anywhere.
func together(x, y *Object) bool {
	return x.Namespace == y.Namespace || x.Namespace == "" || y.Namespace == ""
}

func (b *builder) names(kind string) []string {
	var names []string
	for _, o := range b.byKind[kind] {
		names = append(names, o.Name)
	}
	return names
}

func (b *builder) finish() {
	exported := map[string][]overlay.Service{}
	for key, svc := range b.services {
		exported[key.slice] = append(exported[key.slice], svc.Service)
	}
	for i := range b.mesh.Slices {
		s := &b.mesh.Slices[i]
		s.Services = exported[s.Name]
		slices.SortFunc(s.Services, func(x, y overlay.Service) int {
			return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
		})
	}
	if len(b.openVPN) > 0 {
		var names []string
		for _, o := range b.openVPN {
			names = append(names, o.Name)
		}
		b.warn(b.openVPN[0], "spec.sliceGatewayProvider.sliceGatewayType",
			"OpenVPN is served by WireGuard (slices: %s)", strings.Join(names, ", "))
	}
	sortProblems(b.problems)
}

func (b *builder) checkProjects() {
	for _, o := range b.byKind["Project"] {
		p := o.Body.(*Project)
		if strings.Contains(o.Name, ".") {
			b.fail(o, "metadata.name", "%q must not contain a dot", o.Name)
		}
		if len(o.Name) > 30 {
			b.fail(o, "metadata.name", "%q has more than 30 characters", o.Name)
		}
		for field, names := range map[string][]string{"readOnly": p.Spec.ServiceAccount.ReadOnly, "readWrite": p.Spec.ServiceAccount.ReadWrite} {
			for i, n := range names {
				if !overlay.ValidLabel(n) {
					b.fail(o, fmt.Sprintf("spec.serviceAccount.%s[%d]", field, i), "%q is not a DNS label", n)
				}
			}
		}
	}
	projects := b.byKind["Project"]
	if len(projects) == 0 {
		return
	}
	for _, kind := range []string{"SliceConfig", "Cluster", "SliceQoSConfig", "ServiceExportConfig"} {
		for _, o := range b.byKind[kind] {
			inOne := slices.ContainsFunc(projects, func(p *Object) bool { return strings.HasSuffix(o.Namespace, "-"+p.Name) })
			if o.Namespace != "" && !inOne {
				b.warn(o, "metadata.namespace", "%q is the namespace of no Project here", o.Namespace)
			}
		}
	}
}

func (b *builder) checkClusters() {
	for _, o := range b.byKind["Cluster"] {
		c := o.Body.(*Cluster)
		b.checkSiteName(o, "metadata.name", o.Name)
		addrs := c.Spec.NodeIPs
		for i, ip := range addrs {
			if _, err := netip.ParseAddr(ip); err != nil {
				b.fail(o, fmt.Sprintf("spec.nodeIPs[%d]", i), "%q is not an IP address", ip)
			}
		}
		if len(addrs) == 0 && c.Spec.NodeIP != "" {
			addrs = []string{c.Spec.NodeIP}
			if _, err := netip.ParseAddr(c.Spec.NodeIP); err != nil {
				b.fail(o, "spec.nodeIP", "%q is not an IP address", c.Spec.NodeIP)
			}
		}
		geo := c.Spec.ClusterProperty.GeoLocation
		if geo.Latitude != "" || geo.Longitude != "" {
			b.checkCoordinate(o, "latitude", geo.Latitude, 90)
			b.checkCoordinate(o, "longitude", geo.Longitude, 180)
		}
		if c.Status != nil {
			for i, s := range c.Status.CniSubnet {
				if _, err := netip.ParsePrefix(s); err != nil {
					b.fail(o, fmt.Sprintf("status.cniSubnet[%d]", i), "%q is not a CIDR", s)
				}
			}
			if len(addrs) == 0 {
				addrs = c.Status.NodeIPs
			}
		}
		if o.Broken {
			continue
		}
		out := overlay.Cluster{Name: o.Name}
		for _, a := range addrs {
			if ip, err := netip.ParseAddr(a); err == nil {
				out.NodeIPs = append(out.NodeIPs, ip)
			}
		}
		// Sorted already; a cluster of several projects is one site.
		if last := len(b.mesh.Clusters) - 1; last < 0 || b.mesh.Clusters[last].Name != out.Name {
			b.mesh.Clusters = append(b.mesh.Clusters, out)
		}
	}
}

// checkSiteName holds what a site's or slice's name must be. KubeSlice documents
// 15 characters and does not enforce them.
func (b *builder) checkSiteName(o *Object, field, name string) {
	switch {
	case !overlay.ValidLabel(name):
		b.fail(o, field, "%q is not a DNS label (a-z, 0-9, inner hyphens, at most 63)", name)
	case len(name) > 15:
		b.warn(o, field, "%q is longer than the 15 characters that KubeSlice documents", name)
	}
}

func (b *builder) checkCoordinate(o *Object, which, text string, limit float64) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || v != v || v < -limit || v > limit { // v != v: not a number
		b.fail(o, "spec.clusterProperty.geoLocation."+which, "%q is not a number from %g to %g", text, -limit, limit)
	}
}

func (b *builder) checkQoS() {
	for _, o := range b.byKind["SliceQoSConfig"] {
		b.checkProfile(o, "spec", &o.Body.(*SliceQoSConfig).Spec)
	}
}

func (b *builder) checkProfile(o *Object, at string, q *QOSProfile) {
	if q.BandwidthCeilingKbps < 0 {
		b.fail(o, at+".bandwidthCeilingKbps", "%d is negative", q.BandwidthCeilingKbps)
	}
	if q.BandwidthGuaranteedKbps < 0 {
		b.fail(o, at+".bandwidthGuaranteedKbps", "%d is negative", q.BandwidthGuaranteedKbps)
	}
	if q.BandwidthGuaranteedKbps > q.BandwidthCeilingKbps {
		b.fail(o, at+".bandwidthGuaranteedKbps", "%d is more than bandwidthCeilingKbps %d", q.BandwidthGuaranteedKbps, q.BandwidthCeilingKbps)
	}
	if q.Priority < 0 || q.Priority > 3 {
		b.warn(o, at+".priority", "%d is outside the 0 to 3 that KubeSlice documents", q.Priority)
	}
}

func (b *builder) checkRotations() {
	for _, o := range b.byKind["VpnKeyRotation"] {
		switch r := o.Body.(*VpnKeyRotation); {
		case r.Spec.SliceName == "":
			b.fail(o, "spec.sliceName", "is required")
		case r.Spec.SliceName != o.Name:
			b.fail(o, "metadata.name", "%q must be the slice's name, %q", o.Name, r.Spec.SliceName)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
