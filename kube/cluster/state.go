package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// A State is what the daemon knows and the cluster part needs, whole. It is
// shared and not to be changed.
type State struct {
	Site   string
	Deaf   bool // no other site has been heard of yet, and some should be: what is not known of may be there
	Slices []Slice
}

// A Slice is a slice as it concerns this cluster.
type Slice struct {
	Name       string
	Isolated   bool     // isolationEnabled
	Networked  bool     // it has addresses, and this node is attached
	Namespaces []string // application namespaces at this site
	Allowed    []string // allowed namespaces at this site
	Room       int      // how many endpoints this node may publish
	Room4      int      // for how many of them it has IPv4 addresses
	Services   []overlay.ServiceView
	Worker     *Worker // for what KubeSlice's users look at; nil: they see nothing
}

// binds reports whether pods of a namespace may use the slice's services.
func (s *Slice) binds(namespace string) bool {
	return slices.Contains(s.Namespaces, namespace) || slices.Contains(s.Allowed, namespace)
}

// slice returns the slice of that name, nil when there is none.
func (s *State) slice(name string) *Slice {
	for i := range s.Slices {
		if s.Slices[i].Name == name {
			return &s.Slices[i]
		}
	}
	return nil
}

// sliceOf returns the slice that a namespace belongs to, nil when none.
func (s *State) sliceOf(namespace string) *Slice {
	for i := range s.Slices {
		if slices.Contains(s.Slices[i].Namespaces, namespace) {
			return &s.Slices[i]
		}
	}
	return nil
}

// An Export is a service of this cluster that goes onto a slice, with the
// endpoints that this node publishes.
type Export struct {
	Slice     string
	Namespace string
	Name      string
	Terms     overlay.ExportTerms
	Aliases   []string // lower case, without the final dot
	Ports     []overlay.ServicePort
	Backends  []Backend // sorted by name
	// Proxied has TCP connections to the backends begin with a header of the PROXY
	// protocol, version 2, that names the client.
	Proxied bool
}

// A Backend is one endpoint.
type Backend struct {
	Name    string // a DNS label, unique within the service
	Pod     string
	Addr    netip.Addr
	Targets []uint16 // the pod's ports, in the order of the service's
}

// Equal reports whether two exports are the same.
func (e *Export) Equal(f *Export) bool {
	return e.Slice == f.Slice && e.Namespace == f.Namespace && e.Name == f.Name && e.Terms == f.Terms && e.Proxied == f.Proxied &&
		slices.Equal(e.Aliases, f.Aliases) && slices.Equal(e.Ports, f.Ports) &&
		slices.EqualFunc(e.Backends, f.Backends, func(a, b Backend) bool {
			return a.Name == b.Name && a.Pod == b.Pod && a.Addr == b.Addr && slices.Equal(a.Targets, b.Targets)
		})
}

// A Door is a port of this pod that leads pods of the cluster to one port of an
// imported service.
type Door struct {
	Slice     string
	Namespace string
	Name      string
	Endpoint  string // DNS name of the only endpoint it leads to; empty: all
	Port      overlay.ServicePort
	Listen    uint16
}

// Host returns the name that the door leads to, inside the slice.
func (d *Door) Host() string {
	if d.Endpoint != "" {
		return d.Endpoint
	}
	return overlay.ServiceDNSName(d.Name, d.Namespace)
}

// An Import is an imported service as pods of the cluster have it: with the
// addresses of derived Services that the cluster has given so far.
type Import struct {
	Slice string
	View  *overlay.ServiceView // shared and not to be changed
	Addrs []netip.Addr         // of the whole service
	// Endpoints has the addresses of those that have a Service of their own, by
	// name and site: "pod-0.east".
	Endpoints map[string][]netip.Addr
}

// Names counts what pods may ask for: in both zones, the service and its
// endpoints; and its aliases.
func (m *Import) Names() int {
	return 2*(1+len(m.Endpoints)) + max(0, len(m.View.DNSNames)-1)
}

// Equal reports whether pods are told the same.
func (m *Import) Equal(n *Import) bool {
	return m.Slice == n.Slice && slices.Equal(m.Addrs, n.Addrs) && maps.EqualFunc(m.Endpoints, n.Endpoints, slices.Equal) && sameNames(m.View, n.View)
}

// sameNames reports whether two views of a service have the same names and
// ports. Endpoints of one array are the same.
func sameNames(a, b *overlay.ServiceView) bool {
	if a == b {
		return true
	}
	if a.Name != b.Name || a.Namespace != b.Namespace || a.Type != b.Type || !slices.Equal(a.Ports, b.Ports) || !slices.Equal(a.DNSNames, b.DNSNames) ||
		len(a.Endpoints) != len(b.Endpoints) {
		return false
	}
	return len(a.Endpoints) == 0 || &a.Endpoints[0] == &b.Endpoints[0] ||
		slices.EqualFunc(a.Endpoints, b.Endpoints, func(x, y overlay.EndpointView) bool {
			return x.Name == y.Name && x.Origin == y.Origin && slices.Equal(x.Ports, y.Ports)
		})
}

// A Result is what follows from the cluster's objects and the daemon's state,
// for the daemon. It is shared and not to be changed.
type Result struct {
	Exports []Export
	Doors   []Door
	Imports []Import
	Self    []netip.Addr // of this pod: doors are open at each, that of Config.Self is the first
}

// Equal reports whether two results are the same.
func (r *Result) Equal(o *Result) bool {
	return slices.EqualFunc(r.Exports, o.Exports, func(a, b Export) bool { return a.Equal(&b) }) && slices.Equal(r.Doors, o.Doors) &&
		slices.Equal(r.Self, o.Self) && slices.EqualFunc(r.Imports, o.Imports, func(a, b Import) bool { return a.Equal(&b) })
}

// short makes a name of texts: the same ones give the same, and no two that
// matter.
func short(parts ...string) string {
	h := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(h[:8])
}

// portKey names a port of a service, or of one of its endpoints.
func portKey(namespace, name, endpoint string, p overlay.ServicePort) string {
	return namespace + "/" + name + "/" + endpoint + "/" + strconv.Itoa(int(p.Port)) + "/" + string(p.Protocol)
}
