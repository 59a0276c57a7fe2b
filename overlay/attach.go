package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Backend is what a node publishes for a service, before it has addresses.
type Backend struct {
	Slice     string
	Namespace string
	Service   string
	Name      string // a DNS label, unique within the node's part of the service
	// Host is a host behind one of the node's routes, by its real addresses; zero:
	// the node itself serves it, at an address that Attach gives.
	Host BackendAddr
}

// behind reports whether the backend is not at the node itself.
func (b Backend) behind() bool { return b.Host != BackendAddr{} }

// key names a backend among all backends of its node on one slice. It is what
// sticky addresses are remembered by.
func (b Backend) key() string { return b.Namespace + "/" + b.Service + "/" + b.Name }

// An Attachment is a node's own place on one slice: the addresses it has and
// the prefixes it announces.
type Attachment struct {
	Slice    string
	Subnet   netip.Prefix
	Subnet6  netip.Prefix
	Block    netip.Prefix // this node's part of its site's prefix
	Block6   netip.Prefix
	Addr     netip.Addr // the node itself
	Addr6    netip.Addr
	Announce []netip.Prefix
	Routes   []SubnetRoute     // what is behind this node now; see AttachRoutes
	Backends []AttachedBackend // the node's own; sorted by namespace, service, name
	Hosts    []AttachedBackend // behind it, as far as there are Routes to them; see AttachHosts
	Exports  []Service         // that are exported from here, with backends or without
	// Workloads are sorted by name. Others reach them because the node announces
	// the block they are in; what is told of them is their namespace.
	Workloads []AttachedWorkload
}

// Addrs lists the addresses that there are.
func (b BackendAddr) Addrs() []netip.Addr {
	if !b.Addr.IsValid() {
		return []netip.Addr{b.Addr6}
	}
	return []netip.Addr{b.Addr, b.Addr6}
}

// An AttachedBackend is a backend with overlay addresses of its own.
type AttachedBackend struct {
	Backend
	BackendAddr
	Service Service // as the slice exports it
}

// Owned lists every address that the node itself answers on; workloads answer
// on their own.
func (a *Attachment) Owned() []netip.Addr {
	out := []netip.Addr{a.Addr, a.Addr6}
	for _, b := range a.Backends {
		out = append(out, b.Addrs()...)
	}
	return out
}

// AddrsOf returns another node's own addresses on the slice: the first ones of its
// blocks. What is behind it is not it.
func (a *Attachment) AddrsOf(n Node) (out []netip.Addr) {
	for _, p := range n.Prefixes {
		switch {
		case covers(a.Subnet, p):
			out = append(out, NodeAddr(p))
		case covers(a.Subnet6, p):
			out = append(out, NodeAddr6(p))
		}
	}
	return out
}

// Addresses returns the IPv4 address of every backend that has one by its key, to be given
// to the next Attach so that addresses stay what they are.
func (a *Attachment) Addresses() map[string]netip.Addr {
	m := make(map[string]netip.Addr, len(a.Backends))
	for _, b := range a.Backends {
		if b.Addr.IsValid() {
			m[b.key()] = b.Addr
		}
	}
	return m
}

// Attach computes a node's place on every slice of the mesh that its site
// belongs to and its certificate grants, sorted by slice. previous holds, per
// slice, the addresses of an earlier Attach. What cannot be attached is left
// out and said in the errors, but for workloads: whoever asked for one sees
// that it is missing. The rest stands.
func Attach(mesh *Mesh, self Authority, publish []Backend, workloads []Workload, previous map[string]map[string]netip.Addr) ([]Attachment, []error) {
	var out []Attachment
	var errs []error
	for i := range mesh.Slices {
		s := &mesh.Slices[i]
		site, member := s.Site(self.ID.Site)
		if s.Mode != SingleNetwork || !member {
			continue
		}
		a, err := attach(s, site, self)
		if err != nil {
			errs = append(errs, fmt.Errorf("slice %s: %w", s.Name, err))
			continue
		}
		errs = append(errs, a.addBackends(s, publish, workloads, previous[s.Name])...)
		out = append(out, a)
	}
	return out, errs
}

// AttachExports has attachments say which services are exported from here even
// when there are no backends: others keep what stands for them.
func AttachExports(attachments []Attachment, services []SliceService) {
	for i := range attachments {
		a := &attachments[i]
		for _, s := range services {
			if s.Slice == a.Slice {
				a.Exports = append(a.Exports, s.Service)
			}
		}
	}
}

func attach(s *Slice, site SliceSite, self Authority) (Attachment, error) {
	a := Attachment{Slice: s.Name, Subnet: s.Subnet, Subnet6: s.Subnet6}
	var err error
	if a.Block, err = NodeBlock(site.Prefix, self.Index); err != nil {
		return a, err
	}
	if a.Block6, err = NodeBlock6(site.Prefix6, self.Index); err != nil {
		return a, err
	}
	a.Addr, a.Addr6 = NodeAddr(a.Block), NodeAddr6(a.Block6)
	a.Announce = []netip.Prefix{a.Block, a.Block6}
	if self.Gateway {
		a.Announce = append(a.Announce, site.Prefix, site.Prefix6)
	}
	slices.SortFunc(a.Announce, comparePrefix)
	a.Announce = slices.Compact(a.Announce)
	for _, p := range a.Announce {
		if !self.granted(s.Name, p) {
			return a, fmt.Errorf("the node certificate does not grant %v, which the manifests give to site %s: have the certificate signed again with these manifests", p, site.Name)
		}
	}
	return a, nil
}

// granted reports whether the certificate lets its holder announce p on slice.
func (a Authority) granted(slice string, p netip.Prefix) bool {
	for _, g := range a.Grants {
		if g.Slice == slice && slices.ContainsFunc(g.Prefixes, func(q netip.Prefix) bool { return covers(q, p) }) {
			return true
		}
	}
	return false
}

// covers reports whether every address of p lies inside q.
func covers(q, p netip.Prefix) bool {
	return q.Addr().Is4() == p.Addr().Is4() && q.Bits() <= p.Bits() && q.Contains(p.Addr())
}

func (a *Attachment) addBackends(s *Slice, publish []Backend, workloads []Workload, previous map[string]netip.Addr) []error {
	var errs []error
	var names []string
	var mine []AttachedBackend
	exported := make(map[[2]string]int, len(s.Services))
	for i, x := range s.Services {
		exported[[2]string{x.Namespace, x.Name}] = i
	}
	for _, b := range publish {
		if b.Slice != s.Name || b.behind() {
			continue
		}
		i, found := exported[[2]string{b.Namespace, b.Service}]
		if !found {
			errs = append(errs, fmt.Errorf("slice %s: publish %s: no exported service %s/%s on this slice", s.Name, b.Name, b.Namespace, b.Service))
			continue
		}
		names = append(names, b.key())
		mine = append(mine, AttachedBackend{Backend: b, Service: s.Services[i]})
	}
	addrs, err := assignBoth(a.Block, a.Block6, previous, names, ofSlice(workloads, s.Name))
	if err != nil {
		return append(errs, fmt.Errorf("slice %s: %w", s.Name, err))
	}
	for i := range mine {
		mine[i].BackendAddr = addrs[mine[i].key()]
	}
	slices.SortFunc(mine, func(x, y AttachedBackend) int { return strings.Compare(x.key(), y.key()) })
	a.Backends = mine
	a.addWorkloads(workloads, addrs)
	return errs
}

// Grants computes what a certificate for a node of the given site and index
// has to grant so that the node can be attached as the mesh's manifests say.
func Grants(mesh *Mesh, site string, index int, gateway bool) ([]Grant, error) {
	var out []Grant
	for _, s := range mesh.Slices {
		part, member := s.Site(site)
		if s.Mode != SingleNetwork || !member {
			continue
		}
		g := Grant{Slice: s.Name, Prefixes: append([]netip.Prefix{part.Prefix, part.Prefix6}, part.Routes...)}
		if !gateway {
			block, err := NodeBlock(part.Prefix, index)
			if err != nil {
				return nil, fmt.Errorf("slice %s: %w", s.Name, err)
			}
			block6, err := NodeBlock6(part.Prefix6, index)
			if err != nil {
				return nil, fmt.Errorf("slice %s: %w", s.Name, err)
			}
			g.Prefixes = append([]netip.Prefix{block, block6}, part.Routes...)
		}
		out = append(out, g)
	}
	return out, nil
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
