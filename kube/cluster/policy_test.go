package cluster

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
)

// The policy of a namespace is what KubeSlice's worker writes.
func TestPolicyOfANamespace(t *testing.T) {
	p := work(read(t, namespace("shop"), namespace("metrics"), namespace("kube-system")), red(), here(), nil)
	w := p.wanted(KindNetworkPolicy, "shop", "red-shop")
	if w == nil {
		t.Fatalf("wants %v", p.refs(KindNetworkPolicy))
	}
	var peers []string
	peer := func(key, v string) string {
		return fmt.Sprintf("{namespaceSelector: {matchLabels: {%s: %s}}}", key, v)
	}
	peers = append(peers, peer("kubeslice.io/slice", "red"))
	for _, n := range []string{"metrics", "slicewire-system", "kubeslice-system", "kube-system", "istio-system"} {
		peers = append(peers, peer("kubeslice.io/namespace", n))
	}
	list := strings.Join(peers, ", ")
	var want map[string]any
	if err := yaml.Unmarshal([]byte("{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: ["+list+"]}], egress: [{to: ["+list+"]}]}"), &want); err != nil {
		t.Fatal(err)
	}
	if got := w.whole().Object["spec"]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

func TestLabelsOfNamespaces(t *testing.T) {
	state := red()
	state.Slices = append(state.Slices, Slice{Name: "blue", Namespaces: []string{"bank"}, Allowed: []string{"audit"}})
	o := read(t, namespace("shop"), namespace("metrics"), namespace("kube-system"), namespace("bank"), namespace("audit"), namespace("other"),
		"{apiVersion: v1, kind: Namespace, metadata: {name: left, labels: {kubeslice.io/slice: red, mine: x}, annotations: {slicewire.io/slice: red}}}")
	p := work(o, state, here(), nil)
	got := make(map[string]string)
	for i := range p.wants {
		if w := &p.wants[i]; w.Kind == KindNamespace {
			if !w.shared {
				t.Errorf("%s would be taken for slicewire's own", w.Name)
			}
			got[w.Name] = fmt.Sprint(w.whole().GetLabels(), w.whole().GetAnnotations())
		}
	}
	want := map[string]string{
		"shop":        "map[kubeslice.io/inject:true kubeslice.io/slice:red] map[slicewire.io/slice:red]",
		"metrics":     "map[kubeslice.io/namespace:metrics] map[kubeslice.io/trafficAllowedToSlices:red slicewire.io/slice:red]",
		"kube-system": "map[kubeslice.io/namespace:kube-system] map[kubeslice.io/trafficAllowedToSlices:red slicewire.io/slice:red]",
		"bank":        "map[kubeslice.io/inject:true kubeslice.io/slice:blue] map[slicewire.io/slice:blue]", // not isolated, but bound
		"left":        "map[] map[]",                                                                        // it was bound once
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if got := p.refs(KindNetworkPolicy); !slices.Equal(got, []string{"shop/red-shop"}) {
		t.Errorf("policies %v, want only the isolated slice's", got)
	}
}

func TestIsolationThatIsOffTakesPoliciesAway(t *testing.T) {
	o := read(t, namespace("shop"))
	on := work(o, red(), here(), nil)
	state := red()
	state.Slices[0].Isolated = false
	p := work(on.with(t, o), state, here(), nil)
	gone := p.unwanted(here())
	if len(gone) != 1 || gone[0].String() != "shop/red-shop" {
		t.Errorf("removed %v, want the policy", gone)
	}
}

func TestPoliciesOfOthers(t *testing.T) {
	policy := func(namespace, name, from string) string {
		return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: %s}, spec: {podSelector: {}, ingress: [{from: [%s]}]}}", name, namespace, from)
	}
	labelled := "{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {team: x}}}"
	for _, c := range []struct{ name, policy, want string }{
		{"one of others is told of", policy("shop", "mine", "{podSelector: {}}"), "NetPolAdded"},
		{"outside of the slice it is not", policy("other", "mine", "{podSelector: {}}"), ""},
		{"one that lets in another namespace", policy("shop", "mine", "{namespaceSelector: {matchLabels: {team: x}}}"), "NetPolAdded NetPolScopeWidenedNamespace"},
		{"one that lets in every namespace", policy("shop", "mine", "{namespaceSelector: {}}"), "NetPolAdded NetPolScopeWidenedNamespace"},
		{"one that lets in private addresses", policy("shop", "mine", `{ipBlock: {cidr: "10.0.0.0/8"}}`), "NetPolAdded NetPolScopeWidenedIPBlock"},
		{"public ones are not the slice's matter", policy("shop", "mine", `{ipBlock: {cidr: "192.0.2.0/24"}}`), "NetPolAdded"},
		{"the slice's own", strings.Replace(policy("shop", "red-shop", `{ipBlock: {cidr: "10.0.0.0/8"}}`), "namespace: shop", "namespace: shop, labels: {app.kubernetes.io/managed-by: slicewire}", 1), ""},
		{"one that takes the name of the slice's", policy("shop", "red-shop", `{ipBlock: {cidr: "10.0.0.0/8"}}`), "NetPolAdded NetPolScopeWidenedIPBlock"},
		{"one of very many peers", policy("shop", "mine", strings.Repeat(`{ipBlock: {cidr: "10.0.0.0/8"}}, `, 5000)+"{podSelector: {}}"), "NetPolAdded" + strings.Repeat(" NetPolScopeWidenedIPBlock", maxWidened)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := work(read(t, namespace("shop"), labelled, c.policy), red(), here(), nil)
			var got []string
			for _, n := range p.notices {
				got = append(got, n.event)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("told %q, want %q", s, c.want)
			}
		})
	}
}
