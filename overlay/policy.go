package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Policy says what some members of a slice may do, in the manner of
// Kubernetes' NetworkPolicy: whom no policy selects for a direction may do
// everything there, whom one selects only what some policy that selects him
// lists. Policies add up.
type Policy struct {
	Name            string // "namespace/name", or the name alone
	AppliesTo       []Selector
	Ingress, Egress []PolicyRule
	PolicesIngress  bool // without rules: nothing may come in
	PolicesEgress   bool
}

// A PolicyRule permits what matches one of its peers and one of its ports.
type PolicyRule struct {
	Anyone bool // else Peers
	Peers  []Selector
	Ports  []PortRange // none: every one
}

// A Selector picks members by all that it names; what it does not name does not
// matter. Lists hold alternatives. The zero Selector picks everybody.
//
// Namespaces, services and workloads pick addresses of which that is known, and
// nothing else: an address of which nothing is known is in no namespace.
type Selector struct {
	Sites      []string
	Nodes      []NodeID
	Namespaces []string
	Services   []string // "namespace/name": its endpoints
	Workloads  []string // by the name that status shows
	Block      *Block
}

// SystemNamespace is where the nodes' own addresses are: that of their proxies,
// local ports and pings. The isolation of namespaces allows it always, as
// KubeSlice's does.
const SystemNamespace = "kubeslice-system"

// alwaysAllowed are the namespaces that KubeSlice lets through any isolation.
var alwaysAllowed = []string{SystemNamespace, "kube-system", "istio-system"}

// A Known is an address pair of a slice and what is known of it.
type Known struct {
	Addrs     []netip.Addr
	Node      NodeID // zero: of no node, as a service's virtual addresses
	Namespace string
	Service   string // of an endpoint, or of virtual addresses: "namespace/name"
	Workload  string // of a program or an attached namespace
}

// Know lists of whom the addresses on a slice are, as far as this node knows: of
// nodes and endpoints by the records, of workloads by its own and by what their
// nodes tell. An address that a node may not have does not count; the records
// were checked for that. Virtual addresses are their services' on every node: what
// leads from there to an endpoint is asked about once more.
func Know(self NodeID, own *Attachment, v *View) []Known {
	var out []Known
	for _, n := range v.Nodes {
		out = append(out, Known{Node: n.ID, Namespace: SystemNamespace, Addrs: own.AddrsOf(n)})
	}
	for i := range v.Services {
		s := &v.Services[i]
		name := s.Namespace + "/" + s.Name
		for _, e := range s.Endpoints {
			out = append(out, Known{Addrs: valid(e.Addr, e.Addr6), Node: e.Origin, Namespace: s.Namespace, Service: name})
		}
		if virtual := valid(s.Virtual, s.Virtual6); len(virtual) > 0 {
			out = append(out, Known{Addrs: virtual, Namespace: s.Namespace, Service: name})
		}
	}
	for _, w := range own.Workloads {
		out = append(out, Known{Addrs: valid(w.Addr, w.Addr6), Node: self, Namespace: w.Namespace, Workload: w.Name})
	}
	for _, w := range v.Workloads {
		if w.Origin != self {
			out = append(out, Known{Addrs: valid(w.Addr, w.Addr6), Node: w.Origin, Namespace: w.Namespace, Workload: w.Name})
		}
	}
	return out
}

func valid(addrs ...netip.Addr) []netip.Addr {
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.IsValid() })
}

// everyone is every address there is.
func everyone() []Block {
	return []Block{{Prefix: netip.PrefixFrom(netip.IPv4Unspecified(), 0)}, {Prefix: netip.PrefixFrom(netip.IPv6Unspecified(), 0)}}
}

// CompileRules turns a slice's isolation and policies into rules over addresses. It is
// pure: the same facts give the same rules in the same order. No rules means that
// nothing was asked for, and everything may pass.
func CompileRules(s *Slice, nodes []Node, known []Known) []Rule {
	var rules []Rule
	if s.Isolated {
		var peers []Block
		for _, k := range known {
			if k.Namespace != "" && (s.lets(k.Namespace, k.Node.Site) || k.Node == NodeID{} && s.letsSomewhere(k.Namespace)) {
				peers = append(peers, hosts(k.Addrs)...)
			}
		}
		for _, ingress := range []bool{false, true} {
			rules = append(rules, Rule{Name: "namespaceIsolationProfile " + direction(ingress), Tier: TierIsolation, Ingress: ingress, Subject: everyone(), Peer: peers})
		}
	}
	for _, p := range s.Policies {
		subject := blocksOf(p.AppliesTo, s, nodes, known)
		for _, d := range []struct {
			on, ingress bool
			rules       []PolicyRule
		}{{p.PolicesEgress, false, p.Egress}, {p.PolicesIngress, true, p.Ingress}} {
			if !d.on {
				continue
			}
			name := fmt.Sprintf("SlicePolicy %s %s", p.Name, direction(d.ingress))
			// The first selects and permits nothing: it stands for the policy where it denies.
			rules = append(rules, Rule{Name: name, Tier: TierPolicy, Ingress: d.ingress, Subject: subject})
			for i, r := range d.rules {
				rules = append(rules, Rule{Name: fmt.Sprintf("%s[%d]", name, i), Tier: TierPolicy, Ingress: d.ingress, Subject: subject, Peer: r.blocks(s, nodes, known), Ports: r.Ports})
			}
		}
	}
	return rules
}

func direction(ingress bool) string {
	if ingress {
		return "ingress"
	}
	return "egress"
}

// lets reports whether the isolation of the slice lets a namespace of a site through.
func (s *Slice) lets(namespace, site string) bool {
	return slices.Contains(alwaysAllowed, namespace) || s.binds(namespace, site) || boundIn(s.Allowed, namespace, site)
}

// letsSomewhere reports whether the isolation of the slice lets a namespace of any
// of its sites through.
func (s *Slice) letsSomewhere(namespace string) bool {
	return slices.ContainsFunc(s.Sites, func(site SliceSite) bool { return s.lets(namespace, site.Name) })
}

func boundIn(list []NamespaceBinding, namespace, site string) bool {
	return slices.ContainsFunc(list, func(b NamespaceBinding) bool {
		return b.Namespace == namespace && (slices.Contains(b.Sites, "*") || slices.Contains(b.Sites, site))
	})
}

// NamespacesAt lists the namespaces that a workload at a site may be in, those
// that belong to the slice and those that it allows.
func (s *Slice) NamespacesAt(site string) (application, allowed []string) {
	for _, b := range s.Namespaces {
		if boundIn([]NamespaceBinding{b}, b.Namespace, site) {
			application = append(application, b.Namespace)
		}
	}
	for _, b := range s.Allowed {
		if boundIn([]NamespaceBinding{b}, b.Namespace, site) {
			allowed = append(allowed, b.Namespace)
		}
	}
	return application, allowed
}

// NamespaceFor decides which namespace a workload at a site is in, of those that
// may be there: the one it asks for, or the only one of the slice. A workload
// that could be in several, or in none, is in none; where namespaces are isolated
// it could do nothing, so that it has to choose.
func (s *Slice) NamespaceFor(site, asked string) (string, error) {
	application, allowed := s.NamespacesAt(site)
	switch {
	case slices.Contains(application, asked) || slices.Contains(allowed, asked):
		return asked, nil
	case asked != "":
		return "", fmt.Errorf("namespace %q is not on slice %s at site %s, which has %s", asked, s.Name, site, strings.Join(append(application, allowed...), ", "))
	case len(application) == 1:
		return application[0], nil
	case s.Isolated && len(application) > 1:
		return "", fmt.Errorf("slice %s isolates its namespaces and has several at site %s: choose one of %s", s.Name, site, strings.Join(application, ", "))
	}
	return "", nil
}

func hosts(addrs []netip.Addr) []Block {
	out := make([]Block, len(addrs))
	for i, a := range addrs {
		out[i].Prefix = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}

// blocks lists the addresses of the rule's peers.
func (r *PolicyRule) blocks(s *Slice, nodes []Node, known []Known) []Block {
	if r.Anyone {
		return everyone()
	}
	return blocksOf(r.Peers, s, nodes, known)
}

// blocksOf lists the addresses that any of the selectors picks.
func blocksOf(list []Selector, s *Slice, nodes []Node, known []Known) []Block {
	var out []Block
	for _, x := range list {
		out = append(out, x.blocks(s, nodes, known)...)
	}
	return out
}

func (x *Selector) blocks(s *Slice, nodes []Node, known []Known) []Block {
	if len(x.Namespaces)+len(x.Services)+len(x.Workloads) > 0 {
		var out []Block
		for _, k := range known {
			if !x.picks(k) {
				continue
			}
			for _, b := range hosts(k.Addrs) {
				if x.Block == nil || x.Block.Contains(b.Prefix.Addr()) {
					out = append(out, b)
				}
			}
		}
		return out
	}
	out := everyone()
	if len(x.Sites) > 0 {
		var at []netip.Prefix
		for _, site := range s.Sites {
			if slices.Contains(x.Sites, site.Name) {
				at = append(at, site.Prefix, site.Prefix6)
			}
		}
		out = narrow(out, at)
	}
	if len(x.Nodes) > 0 {
		var at []netip.Prefix
		for _, n := range nodes {
			if slices.Contains(x.Nodes, n.ID) {
				at = append(at, n.Prefixes...)
			}
		}
		out = narrow(out, at)
	}
	if x.Block != nil {
		out = narrow(out, []netip.Prefix{x.Block.Prefix})
		for i := range out {
			out[i].Except = append(out[i].Except, x.Block.Except...)
		}
	}
	return out
}

// picks reports whether a known address pair is meant, whatever its addresses.
func (x *Selector) picks(k Known) bool {
	return (len(x.Namespaces) == 0 || k.Namespace != "" && slices.Contains(x.Namespaces, k.Namespace)) &&
		(len(x.Services) == 0 || k.Service != "" && slices.Contains(x.Services, k.Service)) &&
		(len(x.Workloads) == 0 || k.Workload != "" && slices.Contains(x.Workloads, k.Workload)) &&
		(len(x.Sites) == 0 || slices.Contains(x.Sites, k.Node.Site)) &&
		(len(x.Nodes) == 0 || slices.Contains(x.Nodes, k.Node))
}

// narrow keeps what lies in any of the prefixes. Two prefixes are one inside the
// other, or have nothing in common.
func narrow(blocks []Block, to []netip.Prefix) []Block {
	var out []Block
	for _, b := range blocks {
		for _, p := range to {
			switch p = p.Masked(); {
			case !p.IsValid():
			case covers(b.Prefix, p):
				out = append(out, Block{p, slices.Clone(b.Except)})
			case covers(p, b.Prefix):
				out = append(out, Block{b.Prefix, slices.Clone(b.Except)})
			}
		}
	}
	return out
}
