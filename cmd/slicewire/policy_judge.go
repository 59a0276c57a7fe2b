package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/router"
)

// A policyResult is what became of one assertion.
type policyResult struct {
	name, said string
	line       int
	holds      bool
}

// judgePolicyTests asks the policies of a mesh about every assertion. It is pure.
func judgePolicyTests(mesh *overlay.Mesh, file *manifest.PolicyTestFile) ([]policyResult, error) {
	casts := make(map[string]*cast)
	var out []policyResult
	for _, t := range file.Tests { // who plays in a slice, before anybody is asked
		name := cmp.Or(t.Slice, file.Slice)
		if casts[name] == nil {
			s, ok := mesh.Slice(name)
			if !ok || s.Mode != overlay.SingleNetwork {
				return nil, fmt.Errorf("line %d: the manifests have no slice %q with a network", t.Line, name)
			}
			casts[name] = &cast{slice: s}
		}
		for _, e := range []manifest.PolicyTestEnd{t.From, t.To} {
			if err := casts[name].add(e); err != nil {
				return nil, fmt.Errorf("line %d: %w", t.Line, err)
			}
		}
	}
	for _, c := range casts {
		if err := c.compile(); err != nil {
			return nil, err
		}
	}
	for i, t := range file.Tests {
		v, err := casts[cmp.Or(t.Slice, file.Slice)].decide(t)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", t.Line, err)
		}
		r := policyResult{name: cmp.Or(t.Name, fmt.Sprintf("test %d", i+1)), line: t.Line}
		verdict := "deny"
		if v.Allowed {
			verdict = "allow"
		}
		by := joinRules(v.Egress, v.Ingress)
		r.holds = verdict == t.Expect && (t.Rule == "" || strings.Contains(v.Egress, t.Rule) || strings.Contains(v.Ingress, t.Rule))
		r.said = fmt.Sprintf("%s by %s", verdict, cmp.Or(by, "no rule"))
		if !v.Allowed {
			r.said = fmt.Sprintf("deny of %s by %s", v.Denied, joinRulesOf(v))
		}
		if !r.holds {
			r.said += ", expected " + t.Expect
			if t.Rule != "" {
				r.said += " by " + t.Rule
			}
		}
		out = append(out, r)
	}
	return out, nil
}

// A cast gives the ends of a slice's assertions addresses, as a mesh would.
type cast struct {
	slice  *overlay.Slice
	nodes  []overlay.Node
	ends   map[manifest.PolicyTestEnd]overlay.Known
	policy *router.Policy
}

func (c *cast) add(e manifest.PolicyTestEnd) error {
	if _, known := c.ends[e]; known {
		return nil
	}
	if c.ends == nil {
		c.ends = make(map[manifest.PolicyTestEnd]overlay.Known)
	}
	site, ok := c.slice.Site(cmp.Or(e.Site, c.slice.Sites[0].Name))
	if !ok {
		return fmt.Errorf("%q is not a site of slice %s", e.Site, c.slice.Name)
	}
	id := overlay.NodeID{Site: site.Name, Node: cmp.Or(e.Node, "node")}
	i := slices.IndexFunc(c.nodes, func(n overlay.Node) bool { return n.ID == id })
	if i < 0 {
		index := 0
		for _, n := range c.nodes {
			if n.ID.Site == site.Name {
				index++
			}
		}
		block, err := overlay.NodeBlock(site.Prefix, index)
		if err != nil {
			return err
		}
		block6, err := overlay.NodeBlock6(site.Prefix6, index)
		if err != nil {
			return err
		}
		i = len(c.nodes)
		c.nodes = append(c.nodes, overlay.Node{ID: id, Prefixes: []netip.Prefix{block, block6}})
	}
	k := overlay.Known{Node: id, Namespace: e.Namespace, Service: e.Service, Workload: e.Workload}
	if namespace, _, ok := strings.Cut(e.Service, "/"); ok && k.Namespace == "" {
		k.Namespace = namespace
	}
	if e.Address != "" {
		a, err := netip.ParseAddr(e.Address)
		if err != nil {
			return err
		}
		k.Addrs = []netip.Addr{a}
	} else {
		pair, err := overlay.AssignBackends(c.nodes[i].Prefixes[0], c.nodes[i].Prefixes[1], c.taken(id), append(c.names(id), "new"))
		if err != nil {
			return err
		}
		k.Addrs = []netip.Addr{pair["new"].Addr, pair["new"].Addr6}
	}
	c.ends[e] = k
	return nil
}

// names and taken list who has an address of a node already.
func (c *cast) names(id overlay.NodeID) []string {
	var out []string
	for name := range c.taken(id) {
		out = append(out, name)
	}
	return out
}

func (c *cast) taken(id overlay.NodeID) map[string]netip.Addr {
	out := make(map[string]netip.Addr)
	for _, k := range c.ends {
		if k.Node == id && len(k.Addrs) == 2 {
			out["at "+k.Addrs[0].String()] = k.Addrs[0]
		}
	}
	return out
}

func (c *cast) compile() (err error) {
	var known []overlay.Known
	for _, k := range c.ends {
		known = append(known, k)
	}
	c.policy, err = policyFor(c.slice, c.nodes, known)
	return err
}

func (c *cast) decide(t manifest.PolicyTestCase) (router.Verdict, error) {
	from, to := c.ends[t.From], c.ends[t.To]
	for _, src := range from.Addrs {
		for _, dst := range to.Addrs {
			if src.Is4() != dst.Is4() {
				continue
			}
			proto, err := protocolNumber(t.Protocol, src.Is6())
			if err != nil {
				return router.Verdict{}, err
			}
			return c.policy.Decide(router.Flow{Src: src, Dst: dst, Proto: proto, DstPort: t.Port}, true, true), nil
		}
	}
	return router.Verdict{}, fmt.Errorf("%s and %s are of different families", t.From.Address, t.To.Address)
}
