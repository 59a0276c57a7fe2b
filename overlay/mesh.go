package overlay

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Mesh is the desired state of a whole mesh as its manifests say it. It is the
// same on every node that reads the same manifests.
type Mesh struct {
	Name     string    // names the mesh; part of every derived IPv6 prefix
	Slices   []Slice   // sorted by name
	Clusters []Cluster // sorted by name; what Cluster objects say of sites
}

// Slice returns the slice of that name.
func (m *Mesh) Slice(name string) (*Slice, bool) {
	for i := range m.Slices {
		if m.Slices[i].Name == name {
			return &m.Slices[i], true
		}
	}
	return nil, false
}

// Mode is KubeSlice's overlayNetworkDeploymentMode.
type Mode string

// The modes. Only SingleNetwork slices have addresses and tunnels.
const (
	SingleNetwork Mode = "single-network"
	MultiNetwork  Mode = "multi-network"
	NoNetwork     Mode = "no-network"
)

// A Slice is one isolated network. Two slices may use the same addresses.
type Slice struct {
	Name       string
	Mode       Mode
	Subnet     netip.Prefix // IPv4; the zero Prefix when Mode is NoNetwork
	Subnet6    netip.Prefix // derived ULA /48
	Sites      []SliceSite  // sorted by Index
	QoS        QoS
	Isolated   bool               // namespaceIsolationProfile.isolationEnabled
	Namespaces []NamespaceBinding // application namespaces
	Allowed    []NamespaceBinding // allowed namespaces
	Services   []Service          // exported on this slice; sorted by namespace, name
	Policies   []Policy           // sorted by name
	Hubs       []string           // sites that join the others; none: every site is adjacent to every other

	Multicast []netip.Prefix // groups that are delivered on it, see IsGroups; none: nothing to groups is

	RotationInterval time.Duration // how often keys change; 0: never by themselves
	RenewBefore      time.Time     // keys from before are to be changed; zero: none are
}

// Site returns the slice's part at the named site.
func (s *Slice) Site(name string) (SliceSite, bool) {
	for _, x := range s.Sites {
		if x.Name == name {
			return x, true
		}
	}
	return SliceSite{}, false
}

// SliceSite is one site's share of a slice.
type SliceSite struct {
	Name    string
	Index   int          // 0-based and sticky: a site keeps it while it is a member
	Prefix  netip.Prefix // IPv4
	Prefix6 netip.Prefix // /56 of the slice's /48
	// Routes are prefixes outside the slice's subnets that nodes of the site may
	// announce: networks behind it, those that overlap another site's in their
	// mapped form. No two sites' overlap.
	Routes []netip.Prefix
	Mapped []Mapping // sorted by Real; see MapRoutes
}

// NamespaceBinding ties a namespace of some sites to a slice. Sites holds
// names, or the single entry "*" for every site of the slice.
type NamespaceBinding struct {
	Namespace string
	Sites     []string
}

// Cluster is what a Cluster object says of a site.
type Cluster struct {
	Name    string
	NodeIPs []netip.Addr
}

// A Service is exported on one slice, under Name in Namespace.
type Service struct {
	Name      string
	Namespace string
	DNSNames  []string // fully qualified, without the final dot; the canonical name first
	Ports     []ServicePort
	ExportTerms
}

// ServicePort is one port that a service answers on.
type ServicePort struct {
	Name     string
	Port     uint16
	Protocol Protocol
}

// String returns the port as "name 80/TCP".
func (p ServicePort) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %d/%s", p.Name, p.Port, p.Protocol))
}

// Protocol is a transport protocol by its Kubernetes name.
type Protocol string

// The protocols that services may use.
const (
	TCP Protocol = "TCP"
	UDP Protocol = "UDP"
)

// A SliceService is a service and the slice that it is exported on.
type SliceService struct {
	Slice string
	Service
}

// WithServices returns the mesh with further services, each on its slice if the
// mesh has it. They replace services of the same name; the mesh itself stays as
// it is.
func (m *Mesh) WithServices(more []SliceService) Mesh {
	out := *m
	if len(more) == 0 {
		return out
	}
	out.Slices = slices.Clone(m.Slices)
	bySlice := make(map[string][]Service)
	for _, s := range more {
		bySlice[s.Slice] = append(bySlice[s.Slice], s.Service)
	}
	for i := range out.Slices {
		s := &out.Slices[i]
		add := bySlice[s.Name]
		if len(add) == 0 {
			continue
		}
		mine := make(map[[2]string]Service, len(s.Services)+len(add))
		for _, x := range append(slices.Clone(s.Services), add...) {
			mine[[2]string{x.Namespace, x.Name}] = x
		}
		s.Services = slices.SortedFunc(maps.Values(mine), func(a, b Service) int {
			return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
		})
	}
	return out
}
