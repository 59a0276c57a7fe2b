package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// maxPolicyRules bounds what the policies of one slice come to: what a router
// takes, less the isolation's.
const maxPolicyRules = 4000

// SlicePolicy says what members of a slice may do; see overlay.Policy.
type SlicePolicy struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   Metadata        `json:"metadata" req:"1"`
	Spec       SlicePolicySpec `json:"spec" req:"1"`
	Status     *Conditions     `json:"status"`
}

// SlicePolicySpec is SlicePolicy.spec. Pointers tell an empty list from none.
type SlicePolicySpec struct {
	Slice       string              `json:"slice" req:"1"`
	AppliesTo   []PolicySelector    `json:"appliesTo" req:"1"`
	PolicyTypes []string            `json:"policyTypes" enum:"Ingress,Egress"`
	Ingress     *[]PolicyIngress    `json:"ingress"`
	Egress      *[]PolicyEgressRule `json:"egress"`
}

// PolicyIngress permits what comes in from somebody.
type PolicyIngress struct {
	From  *[]PolicySelector `json:"from"`
	Ports *[]PolicyPort     `json:"ports"`
}

// PolicyEgressRule permits what goes out to somebody.
type PolicyEgressRule struct {
	To    *[]PolicySelector `json:"to"`
	Ports *[]PolicyPort     `json:"ports"`
}

// PolicySelector picks members of a slice by all that it names.
type PolicySelector struct {
	Sites      []string     `json:"sites"`
	Nodes      []string     `json:"nodes"` // "site/node"
	Namespaces []string     `json:"namespaces"`
	Services   []string     `json:"services"` // "namespace/name"
	Workloads  []string     `json:"workloads"`
	IPBlock    *PolicyBlock `json:"ipBlock"`
}

// PolicyBlock is a prefix less others.
type PolicyBlock struct {
	CIDR   string   `json:"cidr" req:"1"`
	Except []string `json:"except"`
}

// PolicyPort is a protocol and its destination ports.
type PolicyPort struct {
	Protocol string `json:"protocol" enum:"TCP,UDP,SCTP,ICMP,GRE"`
	Port     uint16 `json:"port" min:"1"`
	EndPort  uint16 `json:"endPort" min:"1"`
}

// buildPolicies gives every slice the policies that are for it.
func (b *builder) buildPolicies() {
	rules := map[string]int{}
	for _, o := range b.byKind["SlicePolicy"] {
		spec := &o.Body.(*SlicePolicy).Spec
		s, known := b.exportedOn(o, "spec.slice", spec.Slice)
		if !known {
			continue
		}
		p := overlay.Policy{Name: o.Name}
		if o.Namespace != "" {
			p.Name = o.Namespace + "/" + o.Name
		}
		b.nonEmpty(o, "spec.appliesTo", len(spec.AppliesTo))
		b.nonEmpty(o, "spec.policyTypes", len(spec.PolicyTypes))
		p.AppliesTo = b.selectors(o, s, "spec.appliesTo", spec.AppliesTo)
		types := spec.PolicyTypes
		p.PolicesIngress = slices.Contains(types, "Ingress") || b.there(o, "spec.ingress", spec.Ingress != nil)
		p.PolicesEgress = slices.Contains(types, "Egress") || b.there(o, "spec.egress", spec.Egress != nil)
		if !p.PolicesIngress && !p.PolicesEgress { // it selects and says nothing: that denies
			p.PolicesIngress, p.PolicesEgress = true, true
		}
		if len(types) > 0 {
			for _, d := range []struct {
				listed, policed bool
				field           string
			}{{slices.Contains(types, "Ingress"), p.PolicesIngress, "spec.ingress"}, {slices.Contains(types, "Egress"), p.PolicesEgress, "spec.egress"}} {
				if d.policed && !d.listed {
					b.fail(o, d.field, "is given, but not in policyTypes")
				}
			}
		}
		if spec.Ingress != nil {
			for i, r := range *spec.Ingress {
				p.Ingress = append(p.Ingress, b.policyRule(o, s, fmt.Sprintf("spec.ingress[%d]", i), "from", r.From, r.Ports))
			}
		}
		if spec.Egress != nil {
			for i, r := range *spec.Egress {
				p.Egress = append(p.Egress, b.policyRule(o, s, fmt.Sprintf("spec.egress[%d]", i), "to", r.To, r.Ports))
			}
		}
		if rules[s.Name] += 2 + len(p.Ingress) + len(p.Egress); rules[s.Name] > maxPolicyRules {
			b.fail(o, "spec", "the policies of slice %s have more than %d rules together", s.Name, maxPolicyRules)
		}
		if !o.Broken {
			s.Policies = append(s.Policies, p)
		}
	}
}

// there reports whether a field is in the text, be it without a value.
func (b *builder) there(o *Object, field string, set bool) bool {
	_, seen := o.lines[field]
	return set || seen
}

// nonEmpty refuses a list that is there and has nothing in it: one reader would
// take it for nobody and the next for everybody.
func (b *builder) nonEmpty(o *Object, field string, n int) {
	if n == 0 && b.there(o, field, false) {
		b.fail(o, field, "is there and empty: fill it or leave it out")
	}
}

func (b *builder) policyRule(o *Object, s *overlay.Slice, at, who string, peers *[]PolicySelector, ports *[]PolicyPort) overlay.PolicyRule {
	r := overlay.PolicyRule{Anyone: peers == nil}
	if peers != nil {
		r.Peers = b.selectors(o, s, at+"."+who, *peers)
	}
	b.nonEmpty(o, at+"."+who, len(r.Peers))
	if ports != nil {
		for i, p := range *ports {
			if x, ok := b.policyPort(o, fmt.Sprintf("%s.ports[%d]", at, i), p); ok {
				r.Ports = append(r.Ports, x)
			}
		}
		b.nonEmpty(o, at+".ports", len(*ports))
	} else {
		b.nonEmpty(o, at+".ports", 0)
	}
	return r
}

var protocols = map[string]uint8{
	"TCP": overlay.ProtoTCP, "UDP": overlay.ProtoUDP, "SCTP": overlay.ProtoSCTP, "ICMP": overlay.ProtoICMP, "GRE": overlay.ProtoGRE,
}

func (b *builder) policyPort(o *Object, at string, p PolicyPort) (overlay.PortRange, bool) {
	protocol := p.Protocol
	if protocol == "" && p.Port != 0 {
		protocol = "TCP" // as in NetworkPolicy
	}
	out := overlay.PortRange{Proto: protocols[protocol], First: p.Port, Last: p.Port}
	switch {
	case protocol == "" && p.EndPort == 0:
		b.fail(o, at, "names neither a protocol nor a port")
	case p.EndPort != 0 && p.Port == 0:
		b.fail(o, at+".endPort", "needs a port to begin with")
	case p.EndPort != 0 && p.EndPort < p.Port:
		b.fail(o, at+".endPort", "%d is less than port %d", p.EndPort, p.Port)
	case p.Port != 0 && protocol != "TCP" && protocol != "UDP":
		b.fail(o, at+".port", "%s has no ports to choose here", protocol)
	case out.Proto == 0: // reported already
	default:
		if p.EndPort != 0 {
			out.Last = p.EndPort
		}
		return out, true
	}
	return out, false
}

func (b *builder) selectors(o *Object, s *overlay.Slice, at string, list []PolicySelector) []overlay.Selector {
	var out []overlay.Selector
	for i := range list {
		out = append(out, b.selector(o, s, fmt.Sprintf("%s[%d]", at, i), &list[i]))
	}
	return out
}

func (b *builder) selector(o *Object, s *overlay.Slice, at string, x *PolicySelector) overlay.Selector {
	out := overlay.Selector{Sites: x.Sites, Namespaces: x.Namespaces, Services: x.Services, Workloads: x.Workloads}
	for _, l := range []struct {
		name string
		n    int
	}{{"sites", len(x.Sites)}, {"nodes", len(x.Nodes)}, {"namespaces", len(x.Namespaces)}, {"services", len(x.Services)}, {"workloads", len(x.Workloads)}} {
		b.nonEmpty(o, at+"."+l.name, l.n)
	}
	var sites []string
	for _, site := range s.Sites {
		sites = append(sites, site.Name)
	}
	isSite := func(field, name string) {
		if !slices.Contains(sites, name) {
			b.fail(o, field, "%q is not one of the clusters of slice %s%s", name, s.Name, didYouMean(name, sites))
		}
	}
	for i, name := range x.Sites {
		isSite(fmt.Sprintf("%s.sites[%d]", at, i), name)
	}
	for i, text := range x.Nodes {
		field := fmt.Sprintf("%s.nodes[%d]", at, i)
		site, node, ok := strings.Cut(text, "/")
		if !ok || !overlay.ValidLabel(node) {
			b.fail(o, field, "%q is not site/node", text)
			continue
		}
		isSite(field, site)
		out.Nodes = append(out.Nodes, overlay.NodeID{Site: site, Node: node})
	}
	for i, name := range x.Namespaces {
		b.checkNamespace(o, s, fmt.Sprintf("%s.namespaces[%d]", at, i), name)
	}
	for i, text := range x.Services {
		field := fmt.Sprintf("%s.services[%d]", at, i)
		namespace, name, ok := strings.Cut(text, "/")
		if !ok || !overlay.ValidLabel(namespace) || !overlay.ValidLabel(name) {
			b.fail(o, field, "%q is not namespace/name", text)
		} else if b.services[serviceKey{s.Name, namespace, name}] == nil {
			b.warn(o, field, "no service %s is exported on slice %s here: it stands for no address until one is", text, s.Name)
		}
	}
	for i, name := range x.Workloads {
		if name == "" {
			b.fail(o, fmt.Sprintf("%s.workloads[%d]", at, i), "is empty")
		}
	}
	if x.IPBlock != nil {
		out.Block = b.ipBlock(o, at+".ipBlock", x.IPBlock)
	} else if b.there(o, at+".ipBlock", false) {
		b.fail(o, at+".ipBlock", "is there and empty: fill it or leave it out")
	}
	return out
}

// checkNamespace warns of a namespace that nothing on the slice can be in.
func (b *builder) checkNamespace(o *Object, s *overlay.Slice, field, name string) {
	if !namespaceForm.MatchString(name) {
		b.fail(o, field, "%q has other characters than letters, digits and hyphens", name)
		return
	}
	known := []string{overlay.SystemNamespace}
	for _, n := range slices.Concat(s.Namespaces, s.Allowed) {
		known = append(known, n.Namespace)
	}
	if !slices.Contains(known, name) {
		b.warn(o, field, "namespace %q is not bound to slice %s: nothing there is in it%s", name, s.Name, didYouMean(name, known))
	}
}

func (b *builder) ipBlock(o *Object, at string, x *PolicyBlock) *overlay.Block {
	cidr := func(field, text string) netip.Prefix {
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6():
			b.fail(o, field, "%q is not a CIDR", text)
			return netip.Prefix{}
		case p != p.Masked():
			b.fail(o, field, "%s has bits behind its prefix: is %s meant?", text, p.Masked())
		}
		return p
	}
	out := &overlay.Block{Prefix: cidr(at+".cidr", x.CIDR)}
	b.nonEmpty(o, at+".except", len(x.Except))
	for i, text := range x.Except {
		field := fmt.Sprintf("%s.except[%d]", at, i)
		p := cidr(field, text)
		if p.IsValid() && out.Prefix.IsValid() && (p.Bits() < out.Prefix.Bits() || !out.Prefix.Contains(p.Addr())) {
			b.fail(o, field, "%s is not inside %s", text, x.CIDR)
		}
		out.Except = append(out.Except, p)
	}
	return out
}
