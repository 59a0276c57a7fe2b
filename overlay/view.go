package overlay

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// A View is what the verified records say about one slice, as one node of it
// needs it.
type View struct {
	Nodes    []Node                     // this one among them; sorted by ID
	Peers    []Peer                     // sorted by ID
	Fabric   *Fabric                    // of Nodes
	Services []ServiceView              // sorted by namespace, name
	Lost     map[NodeID]map[NodeID]bool // by gateway: the nodes that it says it does not reach
	// Workloads are those that nodes tell of, sorted by node and namespace.
	Workloads []WorkloadView
}

// A WorkloadView is a workload and the node that it is on.
type WorkloadView struct {
	Endpoint
	Namespace string
	Origin    NodeID
}

// A Peer is another node of the slice that this node has a tunnel to.
type Peer struct {
	ID         NodeID
	PublicKey  [32]byte
	Generation uint64           // of PublicKey
	Next       SliceKey         // zero: none
	Endpoints  []netip.AddrPort // UDP, best first
	Prefixes   []netip.Prefix   // what is sent to this peer while all links are up; each prefix has one owner
	Probe      bool             // the state of the link to it may decide about paths
	Standby    bool             // another gateway stands ready for what goes by this link
}

// Look computes the view of slice s that node self has, given its own
// attachment and the records it holds. Records must be verified already; Look
// decides only what they mean together:
//
//  1. A node counts once its endpoint, its key and its prefixes are known. It is
//     a gateway if it announces its site's prefix. Which nodes are peers is for
//     Fabric to say.
//  2. A prefix announced by several nodes is that of the first by NodeID; one
//     that overlaps the node's own block stays unrouted, for the node is there.
//  3. A key told by several nodes is the first's by NodeID, and the node's own
//     key is nobody else's: the others do not count. A record proves who says
//     it, not that the private key is theirs.
//  4. A service counts only where its namespace is bound to the slice at the
//     site that announces it. What several sites say of it is merged by
//     importServices.
func Look(self NodeID, s *Slice, own *Attachment, records []Record) View {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b Record) int { return strings.Compare(a.Origin.String(), b.Origin.String()) })
	var v View
	v.Nodes = lookNodes(self, s, own, records)
	v.Fabric = NewFabric(self, s, v.Nodes)
	v.Peers = v.Fabric.Peers()
	v.Services = importServices(s, records)
	v.Lost = lookLost(self, s, records)
	v.Workloads = lookWorkloads(s, records)
	return v
}

func lookNodes(self NodeID, s *Slice, own *Attachment, records []Record) []Node {
	byID := make(map[NodeID]*Node)
	node := func(id NodeID) *Node {
		n, ok := byID[id]
		if !ok {
			n = &Node{ID: id}
			byID[id] = n
		}
		return n
	}
	owned := make(map[netip.Prefix]bool)
	taken := map[[32]byte]bool{{}: true}
	for _, r := range records {
		if r.Origin == self && !r.Deleted && r.Key == (Key{Kind: KindKey, Slice: s.Name}) {
			taken[r.WGKey.PublicKey], taken[r.WGKey.Next.PublicKey] = true, true
		}
	}
	for _, r := range records {
		site, member := s.Site(r.Origin.Site)
		if r.Deleted || r.Origin == self || !member {
			continue
		}
		switch {
		case r.Key.Kind == KindNode:
			node(r.Origin).Endpoints = r.Node.Endpoints
		case r.Key.Slice != s.Name:
		case r.Key.Kind == KindKey:
			n := node(r.Origin)
			if k := r.WGKey.PublicKey; !taken[k] {
				taken[k] = true
				n.PublicKey, n.Generation = k, r.WGKey.Generation
			}
			if k := r.WGKey.Next; !taken[k.PublicKey] {
				taken[k.PublicKey] = true
				n.Next = k
			}
		case r.Key.Kind == KindPrefix:
			n := node(r.Origin)
			for _, prefix := range r.Prefix.Prefixes {
				switch mine := own.has(prefix); {
				case prefix == site.Prefix || prefix == site.Prefix6:
					n.Gateway = true
				case mine || owned[prefix]:
				default:
					owned[prefix] = true
					n.Prefixes = append(n.Prefixes, prefix)
				}
			}
		}
	}
	me := Node{ID: self, Prefixes: []netip.Prefix{own.Block, own.Block6}}
	if site, member := s.Site(self.Site); member {
		me.Gateway = slices.Contains(own.Announce, site.Prefix)
	}
	out := []Node{me}
	for _, n := range byID {
		if n.PublicKey == ([32]byte{}) || len(n.Endpoints) == 0 || len(n.Prefixes) == 0 {
			continue
		}
		out = append(out, *n)
	}
	for i := range out {
		slices.SortFunc(out[i].Prefixes, comparePrefix)
	}
	slices.SortFunc(out, func(a, b Node) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return out
}

// lookLost gathers what gateways say of other nodes.
func lookLost(self NodeID, s *Slice, records []Record) map[NodeID]map[NodeID]bool {
	out := make(map[NodeID]map[NodeID]bool)
	for _, r := range records {
		if r.Deleted || r.Key != (Key{Kind: KindLost, Slice: s.Name}) || r.Origin == self {
			continue
		}
		lost := make(map[NodeID]bool, len(r.Lost.Nodes))
		for _, n := range r.Lost.Nodes {
			lost[n] = true
		}
		out[r.Origin] = lost
	}
	return out
}

// lookWorkloads believes a node which of its workloads are in a namespace of its
// site that belongs to the slice or is allowed there.
func lookWorkloads(s *Slice, records []Record) []WorkloadView {
	var out []WorkloadView
	for _, r := range records {
		if r.Deleted || r.Key.Kind != KindWorkloads || r.Key.Slice != s.Name || !s.binds(r.Key.Name, r.Origin.Site) && !boundIn(s.Allowed, r.Key.Name, r.Origin.Site) {
			continue
		}
		for _, e := range r.Service.Endpoints {
			out = append(out, WorkloadView{Endpoint: e, Namespace: r.Key.Name, Origin: r.Origin})
		}
	}
	slices.SortStableFunc(out, func(a, b WorkloadView) int {
		return cmp.Or(strings.Compare(a.Origin.String(), b.Origin.String()), strings.Compare(a.Namespace, b.Namespace))
	})
	return out
}

// has reports whether some of a prefix is at the node itself.
func (a *Attachment) has(p netip.Prefix) bool {
	return p.Overlaps(a.Block) || p.Overlaps(a.Block6) || slices.ContainsFunc(a.Routes, func(r SubnetRoute) bool { return p.Overlaps(r.Prefix) })
}

// binds reports whether a namespace of a site belongs to the slice.
func (s *Slice) binds(namespace, site string) bool {
	if _, member := s.Site(site); !member {
		return false
	}
	return slices.ContainsFunc(s.Namespaces, func(b NamespaceBinding) bool {
		return b.Namespace == namespace && (slices.Contains(b.Sites, "*") || slices.Contains(b.Sites, site))
	})
}
