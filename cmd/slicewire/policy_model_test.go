package main

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/router"
)

// A fakeWorld is a slice of two sites and some members, of which policies are
// made at random.
type fakeWorld struct {
	rng   *rand.Rand
	nodes []overlay.Node
	known []overlay.Known
	addrs [2][]netip.Addr
}

const fakeSlice = `apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red}
spec:
  sliceSubnet: 10.1.0.0/16
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  clusters: [a, b]
  maxClusters: 2
  qosProfileDetails: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
  namespaceIsolationProfile:
    isolationEnabled: %v
    applicationNamespaces: [{namespace: shop, clusters: ['*']}, {namespace: bank, clusters: [a]}]
    allowedNamespaces: [{namespace: tools, clusters: [b]}]
`

func newFakeWorld(t *testing.T, seed uint64) *fakeWorld {
	t.Helper()
	w := &fakeWorld{rng: rand.New(rand.NewPCG(seed, 1))}
	s := w.build(t, fmt.Sprintf(fakeSlice, false))
	for _, site := range s.Sites {
		for i, name := range []string{"n0", "n1"} {
			block, err := overlay.NodeBlock(site.Prefix, i)
			if err != nil {
				t.Fatal(err)
			}
			block6, err := overlay.NodeBlock6(site.Prefix6, i)
			if err != nil {
				t.Fatal(err)
			}
			id := overlay.NodeID{Site: site.Name, Node: name}
			w.nodes = append(w.nodes, overlay.Node{ID: id, Prefixes: []netip.Prefix{block, block6}})
			addrs, err := overlay.AssignBackends(block, block6, nil, []string{"0", "1", "2", "3", "4"})
			if err != nil {
				t.Fatal(err)
			}
			w.known = append(w.known, overlay.Known{Addrs: []netip.Addr{overlay.NodeAddr(block), overlay.NodeAddr6(block6)}, Node: id, Namespace: overlay.SystemNamespace})
			for k, x := range []overlay.Known{{Namespace: "shop", Service: "shop/web"}, {Namespace: "bank", Workload: "w1"}, {Namespace: "tools", Workload: "w2"}, {Workload: "w3"}} {
				pair := addrs[fmt.Sprint(k)]
				x.Node, x.Addrs = id, []netip.Addr{pair.Addr, pair.Addr6}
				w.known = append(w.known, x)
			}
			stranger := addrs["4"] // of whom nothing is known
			w.addrs[0], w.addrs[1] = append(w.addrs[0], stranger.Addr), append(w.addrs[1], stranger.Addr6)
		}
	}
	for _, k := range w.known {
		w.addrs[0], w.addrs[1] = append(w.addrs[0], k.Addrs[0]), append(w.addrs[1], k.Addrs[1])
	}
	w.addrs[0] = append(w.addrs[0], netip.MustParseAddr("192.0.2.1"))
	w.addrs[1] = append(w.addrs[1], netip.MustParseAddr("2001:db8::1"))
	return w
}

func (w *fakeWorld) build(t *testing.T, text string) *overlay.Slice {
	t.Helper()
	set, problems := manifest.Parse("world.yaml", []byte(text))
	mesh, more := manifest.Build(set, manifest.Options{Now: time.Unix(1e9, 0)})
	if manifest.HasErrors(append(problems, more...)) {
		t.Fatalf("%v %v in\n%s", problems, more, text)
	}
	s, _ := mesh.Slice("red")
	return s
}

func pick[T any](rng *rand.Rand, list ...T) T { return list[rng.IntN(len(list))] }

// The naive policy: what the YAML says, asked of one member at a time.
type (
	naiveSelector struct {
		sites, nodes, namespaces, services, workloads []string
		cidr                                          netip.Prefix
		except                                        []netip.Prefix
	}
	naivePort struct {
		proto       string
		first, last int
	}
	naiveRule struct {
		peers []naiveSelector // nil: everybody
		ports []naivePort     // nil: everything
	}
	naivePolicy struct {
		applies []naiveSelector
		rules   [2][]naiveRule // egress, ingress
		on      [2]bool
	}
)

func (w *fakeWorld) selector(b *strings.Builder) naiveSelector {
	var s naiveSelector
	var parts []string
	list := func(name string, to *[]string, from ...string) {
		if w.rng.IntN(4) == 0 {
			*to = append(*to, pick(w.rng, from...))
			if w.rng.IntN(2) == 0 {
				*to = append(*to, pick(w.rng, from...))
			}
			parts = append(parts, fmt.Sprintf("%s: [%s]", name, strings.Join(*to, ", ")))
		}
	}
	list("sites", &s.sites, "a", "b")
	list("nodes", &s.nodes, "a/n0", "a/n1", "b/n0", "b/n7")
	list("namespaces", &s.namespaces, "shop", "bank", "tools", "nowhere", overlay.SystemNamespace)
	list("services", &s.services, "shop/web", "shop/none")
	list("workloads", &s.workloads, "w1", "w2", "w3")
	if w.rng.IntN(4) == 0 {
		a := pick(w.rng, w.addrs[w.rng.IntN(2)]...)
		bits := a.BitLen() - pick(w.rng, 0, 4, 8, 12, 16)
		s.cidr, _ = a.Prefix(bits)
		text := "ipBlock: {cidr: '" + s.cidr.String() + "'"
		if x := pick(w.rng, w.addrs[w.rng.IntN(2)]...); s.cidr.Contains(x) {
			p, _ := x.Prefix(bits + w.rng.IntN(a.BitLen()-bits+1))
			s.except = []netip.Prefix{p}
			text += ", except: ['" + p.String() + "']"
		}
		parts = append(parts, text+"}")
	}
	fmt.Fprintf(b, "{%s}", strings.Join(parts, ", "))
	return s
}

func (w *fakeWorld) policy(i int, b *strings.Builder) naivePolicy {
	var p naivePolicy
	fmt.Fprintf(b, "---\napiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: p%d}\nspec:\n  slice: red\n  appliesTo:\n", i)
	for range 1 + w.rng.IntN(2) {
		b.WriteString("  - ")
		p.applies = append(p.applies, w.selector(b))
		b.WriteString("\n")
	}
	for dir, names := range [][2]string{{"egress", "to"}, {"ingress", "from"}} {
		if w.rng.IntN(3) == 0 {
			continue // left out
		}
		p.on[dir] = true
		n := w.rng.IntN(3)
		if n == 0 {
			fmt.Fprintf(b, "  %s: []\n", names[0])
			continue
		}
		fmt.Fprintf(b, "  %s:\n", names[0])
		for range n {
			var r naiveRule
			b.WriteString("  - ")
			comma := "{"
			if w.rng.IntN(4) != 0 {
				fmt.Fprintf(b, "{%s: [", names[1])
				for k := range 1 + w.rng.IntN(2) {
					if k > 0 {
						b.WriteString(", ")
					}
					r.peers = append(r.peers, w.selector(b))
				}
				b.WriteString("]")
				comma = ", "
			}
			if w.rng.IntN(2) == 0 {
				x := naivePort{proto: pick(w.rng, "TCP", "UDP", "ICMP", "GRE", "SCTP")}
				text := "{protocol: " + x.proto + "}"
				if x.proto == "TCP" && w.rng.IntN(2) == 0 {
					x.first = 1 + w.rng.IntN(100)
					x.last = x.first
					text = fmt.Sprintf("{port: %d}", x.first)
					if w.rng.IntN(2) == 0 {
						x.last += w.rng.IntN(100)
						text = fmt.Sprintf("{port: %d, endPort: %d}", x.first, x.last)
					}
				}
				fmt.Fprintf(b, "%sports: [%s]", comma, text)
				comma = ", "
				r.ports = append(r.ports, x)
			}
			if comma == "{" {
				b.WriteString("{")
			}
			b.WriteString("}\n")
			p.rules[dir] = append(p.rules[dir], r)
		}
	}
	if !p.on[0] && !p.on[1] {
		p.on = [2]bool{true, true}
	}
	return p
}

// member is what is known of an address; a zero one for strangers.
func (w *fakeWorld) member(a netip.Addr) overlay.Known {
	for _, k := range w.known {
		if slices.Contains(k.Addrs, a) {
			return k
		}
	}
	return overlay.Known{}
}

func (w *fakeWorld) matches(s naiveSelector, list []overlay.SliceSite, a netip.Addr) bool {
	k := w.member(a)
	in := func(want []string, have string) bool {
		return len(want) == 0 || have != "" && slices.Contains(want, have)
	}
	site, node := "", ""
	for _, x := range list {
		if x.Prefix.Contains(a) || x.Prefix6.Contains(a) {
			site = x.Name
		}
	}
	for _, n := range w.nodes {
		if slices.ContainsFunc(n.Prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) {
			node = n.ID.String()
		}
	}
	return in(s.sites, site) && in(s.nodes, node) && in(s.namespaces, k.Namespace) && in(s.services, k.Service) && in(s.workloads, k.Workload) &&
		(!s.cidr.IsValid() || s.cidr.Contains(a)) && !slices.ContainsFunc(s.except, func(p netip.Prefix) bool { return p.Contains(a) })
}

func (w *fakeWorld) allows(isolated bool, policies []naivePolicy, s *overlay.Slice, src, dst netip.Addr, proto uint8, port int, here [2]bool) bool {
	any := func(list []naiveSelector, a netip.Addr) bool {
		return slices.ContainsFunc(list, func(x naiveSelector) bool { return w.matches(x, s.Sites, a) })
	}
	for dir, ends := range [][2]netip.Addr{{src, dst}, {dst, src}} {
		if !here[dir] {
			continue
		}
		subject, peer := ends[0], ends[1]
		k := w.member(peer)
		lets := k.Namespace == overlay.SystemNamespace || k.Namespace == "shop" || k.Namespace == "bank" && k.Node.Site == "a" || k.Namespace == "tools" && k.Node.Site == "b"
		if isolated && !lets {
			return false
		}
		selected, allowed := false, false
		for _, p := range policies {
			if !p.on[dir] || !any(p.applies, subject) {
				continue
			}
			selected = true
			for _, r := range p.rules[dir] {
				ports := r.ports == nil
				for _, x := range r.ports {
					numbers := map[string][]uint8{"TCP": {6}, "UDP": {17}, "ICMP": {1, 58}, "GRE": {47}, "SCTP": {132}}
					ports = ports || slices.Contains(numbers[x.proto], proto) && (x.first == 0 || x.first <= port && port <= x.last)
				}
				allowed = allowed || ports && (r.peers == nil || any(r.peers, peer))
			}
		}
		if selected && !allowed {
			return false
		}
	}
	return true
}

// What is written as YAML, read, built and compiled says what the naive reading
// of it says, in 100,000 cases.
func TestPoliciesFromYAMLAgreeWithTheModel(t *testing.T) {
	const seed, worlds, each = 17, 2000, 50
	w := newFakeWorld(t, seed)
	said := map[bool]int{}
	for i := range worlds {
		isolated := w.rng.IntN(4) == 0
		var b strings.Builder
		fmt.Fprintf(&b, fakeSlice, isolated)
		var policies []naivePolicy
		for k := range w.rng.IntN(4) {
			policies = append(policies, w.policy(k, &b))
		}
		s := w.build(t, b.String())
		if len(s.Policies) != len(policies) {
			t.Fatalf("%d policies of %d", len(s.Policies), len(policies))
		}
		compiled, err := policyFor(s, w.nodes, w.known)
		if err != nil {
			t.Fatal(err)
		}
		for range each {
			f := w.rng.IntN(2)
			src, dst := pick(w.rng, w.addrs[f]...), pick(w.rng, w.addrs[f]...)
			proto, port := pick[uint8](w.rng, 6, 6, 17, 1, 58, 47, 132), 1+w.rng.IntN(200)
			here := pick(w.rng, [2]bool{true, true}, [2]bool{true, false}, [2]bool{false, true})
			want := w.allows(isolated, policies, s, src, dst, proto, port, here)
			got := compiled.Decide(router.Flow{Src: src, Dst: dst, Proto: proto, DstPort: uint16(port)}, here[0], here[1])
			if got.Allowed != want {
				t.Fatalf("seed %d world %d: %v to %v protocol %d port %d, ends here %v: %+v, the model says %v:\n%s", seed, i, src, dst, proto, port, here, got, want, b.String())
			}
			said[want]++
		}
	}
	if said[true] < 20_000 || said[false] < 20_000 {
		t.Errorf("%v: the test tests nothing", said)
	}
}
