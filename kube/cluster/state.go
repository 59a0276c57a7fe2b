package cluster

import (
	"crypto/sha256"
	"encoding/hex"
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
	Slices []Slice
}

// A Slice is a slice as it concerns this cluster.
type Slice struct {
	Name       string
	Isolated   bool     // isolationEnabled
	Networked  bool     // it has addresses, and this node is attached
	Namespaces []string // application namespaces at this site
	Allowed    []string // allowed namespaces at this site
	Room       int      // how many endpoints this node has addresses for
	Services   []overlay.ServiceView
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
	return e.Slice == f.Slice && e.Namespace == f.Namespace && e.Name == f.Name && e.Terms == f.Terms &&
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

// A Name is a name that pods of the cluster may ask for, and the addresses of
// derived Services that it stands for.
type Name struct {
	Name  string
	Addrs []netip.Addr
}

// A Result is what follows from the cluster's objects and the daemon's state,
// for the daemon. It is shared and not to be changed.
type Result struct {
	Exports []Export
	Doors   []Door
	Names   []Name
}

// Equal reports whether two results are the same.
func (r *Result) Equal(o *Result) bool {
	return slices.EqualFunc(r.Exports, o.Exports, func(a, b Export) bool { return a.Equal(&b) }) && slices.Equal(r.Doors, o.Doors) &&
		slices.EqualFunc(r.Names, o.Names, func(a, b Name) bool { return a.Name == b.Name && slices.Equal(a.Addrs, b.Addrs) })
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
