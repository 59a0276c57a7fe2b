package cluster

import (
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
)

// alwaysAllowed are the namespaces that KubeSlice never cuts off.
var alwaysAllowed = []string{"kubeslice-system", "kube-system", "istio-system"}

// A notice is something that a namespace's owner should know.
type notice struct {
	event   string // KubeSlice's name
	slice   string
	on      *unstructured.Unstructured
	message string
}

// allowedOf lists the namespaces that a slice's application namespaces may speak
// with besides each other; own is slicewire's.
func allowedOf(s *Slice, own string) []string {
	out := slices.Clone(s.Allowed)
	for _, n := range append([]string{own}, alwaysAllowed...) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// isolation decides about labels of namespaces and about NetworkPolicies, as
// KubeSlice's worker does:
//
//   - An application namespace is labelled with its slice, whether the slice is
//     isolated or not: others' selectors go by it.
//   - Of an isolated slice, every application namespace has a policy named
//     <slice>-<namespace> that lets in and out what the slice's namespaces and the
//     allowed ones send, and these are labelled for it.
func isolation(o *Objects, state *State, own string, k *[numKinds]kindInfo) []want {
	labels := make(map[string]map[string]string) // by namespace
	allowedBy := make(map[string][]string)
	set := func(namespace, key, value string) {
		if labels[namespace] == nil {
			labels[namespace] = make(map[string]string)
		}
		labels[namespace][key] = value
	}
	var out []want
	for i := range state.Slices {
		s := &state.Slices[i]
		for _, n := range s.Namespaces {
			if o.exists(n) && state.sliceOf(n) == s {
				set(n, kube.LabelSlice, s.Name)
				set(n, kube.LabelInject, "true")
				if s.Isolated {
					out = append(out, isolate(o, s, n, own, k))
				}
			}
		}
		if !s.Isolated {
			continue
		}
		for _, n := range allowedOf(s, own) {
			if o.exists(n) {
				set(n, kube.LabelNamespace, n)
				allowedBy[n] = append(allowedBy[n], s.Name)
			}
		}
	}
	for _, x := range o.kinds[KindNamespace] {
		if len(labels[x.Name]) == 0 && !labelledByUs(x) || x.Ending {
			continue
		}
		out = append(out, want{Ref: x.Ref, shared: true, whole: func() *unstructured.Unstructured {
			u := k[KindNamespace].object(x.Ref)
			if l := labels[x.Name]; len(l) > 0 {
				u.SetLabels(l)
				notes := map[string]string{kube.AnnotationSlice: strings.Join(compact(append(slices.Clone(allowedBy[x.Name]), l[kube.LabelSlice])), ",")}
				if by := allowedBy[x.Name]; len(by) > 0 {
					notes[kube.AnnotationAllowedSlice] = strings.Join(by, ",")
				}
				u.SetAnnotations(notes)
			}
			return u
		}})
	}
	return out
}

func compact(list []string) []string {
	list = slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
	slices.Sort(list)
	return slices.Compact(list)
}

// labelledByUs reports whether a namespace has our annotation: it is then to
// lose what no slice wants any more.
func labelledByUs(x *Object) bool {
	_, there := x.Annotations[kube.AnnotationSlice]
	return there
}

// isolate makes the policy of one namespace. Where somebody else has taken its name,
// it gets another: who may write policies there could else keep the namespace
// from being isolated at all.
func isolate(o *Objects, s *Slice, namespace, own string, k *[numKinds]kindInfo) want {
	r := Ref{KindNetworkPolicy, namespace, s.Name + "-" + namespace}
	if x := o.Get(r); x != nil && !x.ours {
		r.Name = "slicewire-" + short(s.Name, namespace)
	}
	return want{Ref: r, slice: s.Name, whole: func() *unstructured.Unstructured { return policyOf(r, s, own, k) }}
}

func policyOf(r Ref, s *Slice, own string, k *[numKinds]kindInfo) *unstructured.Unstructured {
	peer := func(key, value string) any {
		return map[string]any{"namespaceSelector": map[string]any{"matchLabels": map[string]any{key: value}}}
	}
	peers := []any{peer(kube.LabelSlice, s.Name)}
	for _, n := range allowedOf(s, own) {
		peers = append(peers, peer(kube.LabelNamespace, n))
	}
	u := k[KindNetworkPolicy].made(r, s.Name, nil)
	u.Object["spec"] = map[string]any{
		"podSelector": map[string]any{},
		"policyTypes": []any{"Ingress", "Egress"},
		"ingress":     []any{map[string]any{"from": peers}},
		"egress":      []any{map[string]any{"to": peers}},
	}
	return u
}

// foreignPolicies says which NetworkPolicies of others are in a slice's
// application namespaces, and which of them let in more than the slice does.
// As in KubeSlice, only what comes in is looked at. Of one policy maxWidened peers
// are told.
func foreignPolicies(o *Objects, state *State) (out []notice) {
	for _, x := range o.kinds[KindNetworkPolicy] {
		s := state.sliceOf(x.Namespace)
		if s == nil || !s.Isolated || x.ours {
			continue
		}
		raw := x.whole()
		if raw == nil {
			continue
		}
		left := 1 + maxWidened
		say := func(event, message string) {
			if left--; left >= 0 {
				out = append(out, notice{event, s.Name, raw, message})
			}
		}
		say("NetPolAdded", "NetworkPolicy "+x.String()+" is not the slice's")
		for _, rule := range objectsIn(raw.Object, "spec", "ingress") {
			for _, peer := range objectsIn(rule, "from") {
				if left <= 0 {
					break
				}
				if n := widened(o, s, peer); n != "" {
					say("NetPolScopeWidenedNamespace", "NetworkPolicy "+x.String()+" lets in namespace "+n)
				}
				if p, err := netip.ParsePrefix(text(peer, "ipBlock", "cidr")); err == nil && private(p.Addr()) {
					say("NetPolScopeWidenedIPBlock", "NetworkPolicy "+x.String()+" lets in "+p.String())
				}
			}
		}
	}
	return out
}

// maxWidened bounds of how many peers of one policy it is told that they are let
// in: it may have as many as fit into its size.
const maxWidened = 20

// widened returns a namespace that a peer selects and the slice does not allow.
func widened(o *Objects, s *Slice, peer map[string]any) string {
	if _, selects := peer["namespaceSelector"].(map[string]any); !selects {
		return ""
	}
	selector := textMap(peer, "namespaceSelector", "matchLabels")
	for _, n := range o.kinds[KindNamespace] {
		if matches(selector, n.Labels) && !s.binds(n.Name) {
			return n.Name
		}
	}
	return ""
}

func private(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast()
}
