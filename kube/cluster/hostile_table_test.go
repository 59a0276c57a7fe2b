package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"

	"slicewire/kube"
	"slicewire/overlay"
)

type hostileObject struct {
	name, text string
	refused    bool // it is a ServiceExport that is to get a condition
}

// hostileObjects are objects of a cluster that somebody wrote to do harm, as an API
// server without our definitions would let them through, too. Slice red binds
// shop, where pod web-a at 10.244.1.1 and Service web are; kube-system and other,
// with pod spy at 10.244.1.66, are none of it.
var hostileObjects = []hostileObject{
	{"a namespace that labels itself into the slice", "{apiVersion: v1, kind: Namespace, metadata: {name: other, labels: {kubeslice.io/slice: red, kubernetes.io/metadata.name: shop}}}", false},
	{"a namespace that says slicewire labelled it", "{apiVersion: v1, kind: Namespace, metadata: {name: other, annotations: {slicewire.io/slice: \"red\\nblue\"}}}", false},
	{"a pod with no address", "{apiVersion: v1, kind: Pod, metadata: {name: x, namespace: shop, labels: {app: web}}, status: {phase: Running, podIPs: [{ip: \"10.244.1.1\\n\"}, {ip: <b>}, 7], conditions: [{type: Ready, status: \"True\"}]}}", false},
	{"a pod with its node's network", pod("shop", "host", "web", "192.0.2.1", "hostNetwork: true"), false},
	{"a pod of kube-system with the label", pod("kube-system", "dns", "web", "10.244.9.9"), false},
	{"a Service outside of the cluster", service("far", "{type: ExternalName, externalName: metadata.internal}") + "\n---\n" + mcs("far"), true},
	{"a Service with a port that is none", service("far", "{clusterIP: 10.96.0.9, ports: [{port: 4294967376}]}") + "\n---\n" + mcs("far"), true},
	{"a Service with a port's name of two lines", service("far", `{clusterIP: 10.96.0.9, ports: [{name: "a\nb", port: 80}]}`) + "\n---\n" + mcs("far"), true},
	{"a Service that says it is slicewire's", "{apiVersion: v1, kind: Service, metadata: {name: far, namespace: shop, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}}\n---\n" + mcs("far"), true},
	{"endpoints at the cloud's metadata", slice("web", "{name: http, port: 80, protocol: TCP}", `{addresses: ["169.254.169.254"], conditions: {ready: true}}`), false},
	{"endpoints at another namespace's pod", slice("web", "{name: http, port: 80, protocol: TCP}", endpointOf("web-a", "10.244.1.66"), endpointOf("spy", "10.244.1.66")), false},
	{"endpoints on the loopback, and none", slice("web", "{name: http, port: 80, protocol: TCP}", endpointOf("web-a", "127.0.0.1"), endpointOf("web-a", `x\ny`), "7"), false},
	{"a policy under the slice's name that lets all in", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: red-shop, namespace: shop}, spec: {podSelector: {matchLabels: {app: none}}, ingress: [{}], egress: [{}]}}", false},
	{"a policy that is no policy", "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: x, namespace: shop}, spec: {ingress: [7, {from: [7, {ipBlock: {cidr: \"a\\nb\"}}]}]}}", false},
	{"KubeSlice's export of a slice with a mebibyte of name", strings.Replace(web, "slice: red", "slice: "+strings.Repeat("x", 1<<20), 1), true},
	{"KubeSlice's export with an alias of two lines", strings.Replace(web, "slice: red", `slice: red, aliases: ["a\nb"]`, 1), true},
	{"KubeSlice's export with markup", strings.Replace(web, "slice: red", `slice: red, aliases: ["<b>x</b>"]`, 1), true},
	{"KubeSlice's export of very many aliases", strings.Replace(web, "slice: red", `slice: red, aliases: [`+strings.Repeat("a.example, ", 5000)+"]", 1), true},
	{"KubeSlice's export of very many ports", strings.Replace(web, "ports: [", "ports: ["+strings.Repeat("{containerPort: 1}, ", 5000), 1), true},
	{"KubeSlice's export in kube-system", strings.Replace(web, "namespace: shop", "namespace: kube-system", 1), true},
	{"KubeSlice's export that is no object within", "{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceExport, metadata: {name: web, namespace: shop}, spec: {slice: [red], selector: 7, ports: {a: b}}}", true},
	{"KubeSlice's export under a name that is none", strings.Replace(web, "name: web", `name: "web.\nx"`, 1), true},
	{"KubeSlice's export with terms that are none", strings.Replace(web, "namespace: shop", `namespace: shop, annotations: {slicewire.io/type: "a\nb", slicewire.io/affinity: "a\nb", slicewire.io/session-affinity: "a\nb", slicewire.io/proxy-protocol: "a\nb"}`, 1), true},
	{"the API's export in kube-system that names the slice", "{apiVersion: v1, kind: Service, metadata: {name: dns, namespace: kube-system}, spec: {clusterIP: 10.96.0.10, ports: [{port: 53}]}}\n---\n{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: dns, namespace: kube-system, labels: {kubeslice.io/slice: red}}}", true},
	{"the API's export of no Service", mcs("none"), true},
	{"the API's export with labels of two lines", strings.Replace(mcs("web"), "shop}", `shop}, spec: {exportedLabels: {"a\nb": "c\nd"}}`, 1), true},
	{"the API's export with a mebibyte of annotations", strings.Replace(mcs("web"), "shop}", "shop}, spec: {exportedAnnotations: {a: "+strings.Repeat("x", 1<<20)+"}}", 1), true},
	{"KubeSlice's import that somebody made up", "{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceImport, metadata: {name: theirs, namespace: kube-system}, spec: {slice: red, dnsName: \"a\\nb\"}, status: {endpoints: [{ip: 169.254.169.254}]}}", false},
	{"the API's import that somebody made up", "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {name: far, namespace: shop, labels: {multicluster.kubernetes.io/service-name: kube-dns}}, spec: {type: ClusterSetIP, ips: [169.254.169.254]}}", false},
	{"a Slice that somebody made up", "{apiVersion: networking.kubeslice.io/v1beta1, kind: Slice, metadata: {name: red, namespace: kubeslice-system}, status: {dnsIP: 169.254.169.254, appPods: [7, {podName: \"a\\nb\"}]}}", false},
	{"a Slice elsewhere that says it is slicewire's", "{apiVersion: networking.kubeslice.io/v1beta1, kind: Slice, metadata: {name: red, namespace: kube-system, labels: {app.kubernetes.io/managed-by: slicewire}}}", false},
	{"a Slice of slicewire's that somebody has filled", "{apiVersion: networking.kubeslice.io/v1beta1, kind: Slice, metadata: {name: red, namespace: kubeslice-system, labels: {app.kubernetes.io/managed-by: slicewire}}, status: {sliceConfig: 7, applicationNamespaces: {a: b}}}", false},
	{"a SliceGateway that somebody made up", "{apiVersion: networking.kubeslice.io/v1beta1, kind: SliceGateway, metadata: {name: red-east-west, namespace: kubeslice-system}, status: {config: [\"a\\nb\"], gatewayPodStatus: 7}}", false},
	{"a pod that says it is KubeSlice's operator", pod("other", "kubeslice-operator-x", "web", "10.244.9.9"), false},
}

// checkStatus looks at what would be said of an export.
func (c *hostileObject) checkStatus(t *testing.T, hostile *Objects, w *want) {
	t.Helper()
	u := w.status()
	for _, x := range objectsIn(u.Object, "status", "conditions") {
		if m := text(x, "message"); len(m) > maxMessage+10 || strings.ContainsFunc(m, unicode.IsControl) {
			t.Errorf("%v: the message %.300q of %d bytes", w.Ref, m, len(m))
		}
	}
	if c.refused && hostile.Get(w.Ref) != nil && !strings.HasPrefix(said(u, "Ready"), "False") {
		t.Errorf("%v is not refused: %.500s", w.Ref, fmt.Sprint(u.Object["status"]))
	}
}

// Whatever is written, nothing but pods of the slice's own namespaces is exported,
// nothing is made outside of them, and what is said of it is one bounded line.
func TestHostileObjectsOfEveryKindOfACluster(t *testing.T) {
	calm := []string{namespace("shop"), namespace("kube-system"), namespace(system), namespace("slicewire-system"), pod("shop", "web-a", "web", "10.244.1.1"), pod("other", "spy", "web", "10.244.1.66"),
		service("web", "{clusterIP: 10.96.0.8, ports: [{name: http, port: 80}]}"), mcs("web")}
	seen := make(map[Kind]bool)
	for _, c := range hostileObjects {
		t.Run(c.name, func(t *testing.T) {
			hostile := read(t, c.text)
			parts := slices.Clone(calm)
			for ref := range hostile.all {
				if seen[ref.Kind] = true; (ref.Kind == KindExport || ref.Kind == KindMCSExport) && ref.Name == "web" {
					parts = parts[:len(parts)-1] // that is the export
				}
			}
			if !strings.Contains(c.text, "name: other") {
				parts = append(parts, namespace("other"))
			}
			o := read(t, append(parts, c.text)...)
			state := toldOf(t, "shop", TunnelUp, view(overlay.Virtual, "west/far-1"))
			state.Slices[0].Services[0].Name = "far"
			p := work(o, state, here(), nil)
			for _, e := range p.result.Exports {
				for _, b := range e.Backends {
					if e.Namespace != "shop" || b.Pod != "web-a" || b.Addr.String() != "10.244.1.1" {
						t.Errorf("exported: %s/%s at %v", e.Namespace, e.Name, b)
					}
				}
				if r := (Ref{KindExport, e.Namespace, e.Name}); c.refused && hostile.Get(r) != nil {
					t.Errorf("%v is exported", r)
				}
			}
			isolated, tells := false, false
			for i := range p.wants {
				w := &p.wants[i]
				isolated = isolated || w.Kind == KindNetworkPolicy && w.Namespace == "shop" && (o.Get(w.Ref) == nil || o.Get(w.Ref).ours)
				told := w.Kind == KindSlice || w.Kind == KindSliceGateway
				if w.whole != nil && w.Kind != KindNamespace && (w.Namespace != "shop" && !told || told && w.Namespace != system) {
					t.Errorf("%v would be written", w.Ref)
				}
				tells = tells || w.Ref == Ref{KindSlice, system, "red"}
				if w.Kind == KindNamespace && w.Name == "other" && w.whole().GetLabels()[kube.LabelSlice] != "" {
					t.Error("another namespace is labelled")
				}
				if w.status != nil {
					c.checkStatus(t, hostile, w)
				}
			}
			if !isolated || !tells {
				t.Errorf("the namespace is isolated: %v, its slice is told of: %v", isolated, tells)
			}
			for _, x := range p.unwanted(here()) {
				if x.Namespace != "shop" {
					t.Errorf("removed would be %v", x.Ref)
				}
			}
			for _, n := range p.notices {
				if len(n.message) > 1000 || strings.ContainsFunc(n.message, unicode.IsControl) {
					t.Errorf("told %q", n.message)
				}
			}
		})
	}
	for kind := range numKinds {
		if !seen[kind] {
			t.Errorf("no hostile %s", here().kinds[kind].kind)
		}
	}
}
