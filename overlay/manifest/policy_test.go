package manifest

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"slicewire/overlay"
)

const onePolicy = `---
apiVersion: slicewire.io/v1alpha1
kind: SlicePolicy
metadata: {name: web, namespace: shop}
spec:
  slice: red
  appliesTo:
  - services: [shop/web]
  ingress:
  - from:
    - sites: [b]
      namespaces: [shop]
    - ipBlock: {cidr: 10.1.0.0/16, except: [10.1.4.0/24]}
    ports:
    - port: 80
    - {protocol: UDP, port: 1000, endPort: 2000}
    - protocol: ICMP
  egress: []
`

func policiesOf(text string) ([]overlay.Policy, []Problem) {
	set, problems := Parse("world.yaml", []byte(text))
	mesh, more := Build(set, Options{Now: testNow})
	s, _ := mesh.Slice("red")
	return s.Policies, append(problems, more...)
}

func TestAPolicyIsReadAsItIsWritten(t *testing.T) {
	got, problems := policiesOf(world + onePolicy)
	want := []overlay.Policy{{
		Name:           "shop/web",
		AppliesTo:      []overlay.Selector{{Services: []string{"shop/web"}}},
		PolicesIngress: true, PolicesEgress: true,
		Ingress: []overlay.PolicyRule{{
			Peers: []overlay.Selector{
				{Sites: []string{"b"}, Namespaces: []string{"shop"}},
				{Block: &overlay.Block{Prefix: netip.MustParsePrefix("10.1.0.0/16"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.4.0/24")}}},
			},
			Ports: []overlay.PortRange{{Proto: 6, First: 80, Last: 80}, {Proto: 17, First: 1000, Last: 2000}, {Proto: 1}},
		}},
	}}
	if len(problems) != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, problems)
	}
}

// What denies and what permits, where something is empty or left out.
func TestEmptyMeansDeny(t *testing.T) {
	for _, tt := range []struct {
		name, spec      string
		ingress, egress bool // policed
		rules           int
		anyone          bool
	}{
		{"no rules at all deny both ways", "{slice: red, appliesTo: [{}]}", true, true, 0, false},
		{"an empty list denies its direction alone", "{slice: red, appliesTo: [{}], ingress: []}", true, false, 0, false},
		{"a key without a value denies", "{slice: red, appliesTo: [{}], egress: }", false, true, 0, false},
		{"a type without rules denies", "{slice: red, appliesTo: [{}], policyTypes: [Egress]}", false, true, 0, false},
		{"a rule without anything permits everybody", "{slice: red, appliesTo: [{}], ingress: [{}]}", true, false, 1, true},
	} {
		got, problems := policiesOf(world + "---\napiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: x}\nspec: " + tt.spec + "\n")
		if len(problems) != 0 || len(got) != 1 {
			t.Errorf("%s: %v, %v", tt.name, got, problems)
			continue
		}
		p := got[0]
		if p.PolicesIngress != tt.ingress || p.PolicesEgress != tt.egress || len(p.Ingress)+len(p.Egress) != tt.rules || tt.rules == 1 && p.Ingress[0].Anyone != tt.anyone {
			t.Errorf("%s: %+v", tt.name, p)
		}
	}
}

func TestPoliciesAreReadStrictly(t *testing.T) {
	base := strings.Count(world, "\n")
	for _, tt := range []struct {
		name, old, new string
		line           int // of onePolicy
		field, message string
	}{
		{"an unknown field", "  egress: []", "  egres: []", 18, "spec.egres", "unknown key; did you mean \"egress\"?"},
		{"a field of NetworkPolicy that we do not have", "  appliesTo:", "  podSelector: {}\n  appliesTo:", 7, "spec.podSelector", "unknown key"},
		{"a key that is there twice", "    - port: 80", "    - port: 80\n      port: 81", 17, "spec.ingress[0].ports[0].port", "give it once"},
		{"no slice of that name", "slice: red", "slice: rad", 6, "spec.slice", "did you mean"},
		{"no slice", "  slice: red\n", "", 5, "spec.slice", "is required"},
		{"nobody selected", "appliesTo:\n  - services: [shop/web]", "appliesTo: []", 7, "spec.appliesTo", "is there and empty"},
		{"no selection", "  appliesTo:\n  - services: [shop/web]\n", "", 5, "spec.appliesTo", "is required"},
		{"an empty peer list", "from:\n    - sites: [b]\n      namespaces: [shop]\n    - ipBlock: {cidr: 10.1.0.0/16, except: [10.1.4.0/24]}", "from: []", 10, "spec.ingress[0].from", "is there and empty"},
		{"a peer list without a value", "from:\n    - sites: [b]\n      namespaces: [shop]\n    - ipBlock: {cidr: 10.1.0.0/16, except: [10.1.4.0/24]}", "from:", 10, "spec.ingress[0].from", "is there and empty"},
		{"a peer that is null", "- sites: [b]\n      namespaces: [shop]", "-", 11, "spec.ingress[0].from[0]", "is empty"},
		{"an empty list in a selector", "sites: [b]", "sites: []", 11, "spec.ingress[0].from[0].sites", "is there and empty"},
		{"a block without a value", "ipBlock: {cidr: 10.1.0.0/16, except: [10.1.4.0/24]}", "ipBlock:", 13, "spec.ingress[0].from[1].ipBlock", "is there and empty"},
		{"a site that is none of the slice", "sites: [b]", "sites: [c]", 11, "spec.ingress[0].from[0].sites[0]", "is not one of the clusters"},
		{"a service that is no name", "services: [shop/web]", "services: [web]", 8, "spec.appliesTo[0].services[0]", "not namespace/name"},
		{"a CIDR that is none", "cidr: 10.1.0.0/16", "cidr: 10.1.0.0", 13, "spec.ingress[0].from[1].ipBlock.cidr", "not a CIDR"},
		{"a CIDR with more bits", "cidr: 10.1.0.0/16", "cidr: 10.1.0.9/16", 13, "spec.ingress[0].from[1].ipBlock.cidr", "is 10.1.0.0/16 meant?"},
		{"an exception outside", "except: [10.1.4.0/24]", "except: [10.2.4.0/24]", 13, "spec.ingress[0].from[1].ipBlock.except[0]", "not inside"},
		{"ports that run backwards", "endPort: 2000", "endPort: 2", 16, "spec.ingress[0].ports[1].endPort", "less than port"},
		{"an end without a beginning", "port: 1000, endPort", "endPort", 16, "spec.ingress[0].ports[1].endPort", "needs a port"},
		{"a port of ICMP", "protocol: ICMP", "{protocol: ICMP, port: 8}", 17, "spec.ingress[0].ports[2].port", "no ports to choose"},
		{"a port that is nothing", "- protocol: ICMP", "- {}", 17, "spec.ingress[0].ports[2]", "neither a protocol nor a port"},
		{"a port out of range", "port: 80", "port: 70000", 15, "spec.ingress[0].ports[0].port", "outside 1 to 65535"},
		{"a protocol that is none", "protocol: UDP", "protocol: UPD", 16, "spec.ingress[0].ports[1].protocol", "is none of"},
		{"a direction that is not among the types", "  egress: []", "  egress: []\n  policyTypes: [Ingress]", 18, "spec.egress", "not in policyTypes"},
		{"a kind of ours that there is not", "kind: SlicePolicy", "kind: SlicePolice", 1, "kind", "did you mean \"SlicePolicy\"?"},
	} {
		text := spoil(t, onePolicy, tt.old, tt.new)
		got, problems := policiesOf(world + text)
		found := false
		for _, p := range problems {
			// Within a line: a mistake may be seen where its list or object begins.
			if p.Severity == Error && p.Field == tt.field && strings.Contains(p.Message, tt.message) && p.File == "world.yaml" {
				found = true
				if at := p.Line - base; at < tt.line-1 || at > tt.line+1 {
					t.Errorf("%s: on line %d of the policy, want %d", tt.name, at, tt.line)
				}
			}
		}
		if !found || len(got) != 0 {
			t.Errorf("%s: %+v, %v", tt.name, got, problems)
		}
	}
}

func TestPoliciesOfASliceAreBounded(t *testing.T) {
	text := world
	for i := range 3 {
		text += fmt.Sprintf("---\napiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: x%d}\nspec: {slice: red, appliesTo: [{}], ingress: [%s]}\n", i, strings.Repeat("{},", 1500))
	}
	if got, problems := policiesOf(text); len(got) != 2 || !HasErrors(problems) {
		t.Errorf("%d policies, %v", len(got), problems)
	}
}

func FuzzSlicePolicy(f *testing.F) {
	f.Add(onePolicy)
	f.Add("---\napiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: x}\nspec: {slice: red, appliesTo: [{}], ingress: [{from: [~]}]}\n")
	f.Add("---\napiVersion: slicewire.io/v1alpha1\nkind: SlicePolicy\nmetadata: {name: x}\nspec: {slice: red, appliesTo: &a [{}], egress: [{to: *a, ports: []}]}\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, _ := policiesOf(world + "\n" + text)
		for _, p := range got {
			if len(p.AppliesTo) == 0 || !p.PolicesIngress && !p.PolicesEgress || !p.PolicesIngress && len(p.Ingress) > 0 || !p.PolicesEgress && len(p.Egress) > 0 {
				t.Errorf("%+v", p)
			}
			for _, r := range append(p.Ingress, p.Egress...) {
				if r.Anyone != (len(r.Peers) == 0) {
					t.Errorf("a rule with %d peers for anyone %v", len(r.Peers), r.Anyone)
				}
				for _, x := range r.Ports {
					if x.Proto == 0 || x.First > x.Last || x.First == 0 && x.Last != 0 {
						t.Errorf("%+v", x)
					}
				}
			}
		}
		overlay.CompileRules(&overlay.Slice{Policies: got}, nil, nil)
		ParsePolicyTests("f", []byte(text))
	})
}

func TestParsePolicyTests(t *testing.T) {
	const good = `manifests: [m]
slice: red
tests:
- from: {namespace: shop}
  to: {service: shop/web, site: b}
  port: 80
  expect: allow
`
	if f, problems := ParsePolicyTests("t.yaml", []byte(good)); len(problems) != 0 || len(f.Tests) != 1 || f.Tests[0].Protocol != "TCP" || f.Tests[0].Line != 4 {
		t.Errorf("%+v, %v", f, problems)
	}
	for _, tt := range []struct{ name, old, new, at string }{
		{"an unknown key", "port: 80", "prot: 80", "t.yaml:6: tests[0].prot"},
		{"no expectation", "  expect: allow\n", "", "t.yaml:4: tests[0].expect"},
		{"another expectation", "expect: allow", "expect: maybe", "t.yaml:7: tests[0].expect"},
		{"a port of ICMP", "port: 80", "port: 80\n  protocol: ICMP", "t.yaml:6: tests[0].port"},
		{"an address that is none", "{namespace: shop}", "{address: 10.1}", "t.yaml:4: tests[0].from.address"},
		{"a service that is no name", "shop/web", "web", "t.yaml:5: tests[0].to.service"},
		{"no tests", good[strings.Index(good, "tests:"):], "tests: []\n", "t.yaml: tests"},
	} {
		_, problems := ParsePolicyTests("t.yaml", []byte(spoil(t, good, tt.old, tt.new)))
		if len(problems) != 1 || !strings.HasPrefix(problems[0].String(), tt.at) || problems[0].Severity != Error {
			t.Errorf("%s: %v", tt.name, problems)
		}
	}
}
