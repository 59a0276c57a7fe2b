package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// summary writes an export, or why it is none, in one line.
func (e *exported) summary() string {
	if e.fault != (fault{}) {
		return e.fault.condition + " " + e.fault.reason
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %v", e.export.Slice, e.export.Terms.Type, e.export.Ports)
	for _, x := range e.export.Backends {
		fmt.Fprintf(&b, " %s=%v%v", x.Name, x.Addr, x.Targets)
	}
	return b.String()
}

func TestWhatIsExported(t *testing.T) {
	shop, a, b := namespace("shop"), pod("shop", "web-a", "web", "10.244.1.1"), pod("shop", "web-b", "web", "10.244.1.2")
	const http = "{name: http, port: 8080, protocol: TCP}"
	long := strings.Repeat("x", 1<<20)
	for _, c := range []struct {
		name    string
		objects []string
		want    string
		left    string // part of what is said of endpoints that are left out
	}{
		{"pods by their labels, with the container's port", []string{shop, web, a, b, pod("shop", "db", "db", "10.244.1.3")},
			"red Headless [http 8080/TCP] web-a=10.244.1.1[8080] web-b=10.244.1.2[8080]", ""},
		{"no pods of other namespaces", []string{shop, web, a, pod("other", "web-c", "web", "10.244.1.9")}, "red Headless [http 8080/TCP] web-a=10.244.1.1[8080]", ""},
		{"no pods that are not ready", []string{shop, web, unready(a), b}, "red Headless [http 8080/TCP] web-b=10.244.1.2[8080]", ""},
		{"an export without a ready pod is one all the same", []string{shop, web, unready(a)}, "red Headless [http 8080/TCP]", ""},
		{"no pods that have the network of their node", []string{shop, web, pod("shop", "web-a", "web", "10.0.0.1", "hostNetwork: true")}, "red Headless [http 8080/TCP]", "node's ports"},
		{"a name that is no label gets one", []string{shop, web, pod("shop", "web.a", "web", "10.244.1.1")}, "red Headless [http 8080/TCP] pod-" + short("shop", "web.a") + "=10.244.1.1[8080]", ""},
		{"a slice that is not there is waited for", []string{shop, strings.Replace(web, "slice: red", "slice: green", 1)}, "Ready Pending", ""},
		{"a namespace that is not bound is waited for", []string{strings.ReplaceAll(web, "shop", "metrics")}, "Ready Pending", ""},
		{"a namespace of the system is not bound", []string{strings.ReplaceAll(web, "shop", "kube-system")}, "Ready Pending", ""},
		{"a port out of range", []string{shop, strings.Replace(web, "8080", "70000", 1)}, "Valid InvalidPort", ""},
		{"a port twice", []string{shop, strings.Replace(web, "}]}", "}, {name: x, containerPort: 8080}]}", 1)}, "Valid InvalidPort", ""},
		{"only ports of a protocol that slices do not carry", []string{shop, strings.Replace(web, "TCP", "SCTP", 1)}, "Valid NoPorts", "neither TCP nor UDP"},
		{"a selector that would select all", []string{shop, strings.Replace(web, "{app: web}", "{}", 1), a}, "Valid NoSelector", ""},
		{"an alias of a megabyte", []string{shop, strings.Replace(web, "slice: red", "slice: red, aliases: [\""+long+"\"]", 1)}, "Valid InvalidAlias", ""},
		{"an alias with a newline", []string{shop, strings.Replace(web, "slice: red", `slice: red, aliases: ["a\nb.example"]`, 1)}, "Valid InvalidAlias", ""},
		{"an alias that is another service's name", []string{shop, strings.Replace(web, "slice: red", "slice: red, aliases: [db.shop.svc.slice.local]", 1)}, "Valid InvalidAlias", ""},
		{"a type that is none", []string{shop, strings.Replace(web, "namespace: shop", "namespace: shop, annotations: {slicewire.io/service-type: Both}", 1)}, "Valid InvalidAnnotation", ""},
		{"KubeSlice's export comes before MCS's of the same name", []string{shop, web, a, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{port: 1}]}")}, "red Headless [http 8080/TCP] web-a=10.244.1.1[8080]|Ready Pending", ""},

		{"the Service of the export's name", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), a, slice("web", http, endpointOf("web-a", "10.244.1.1"))},
			"red ClusterSetIP [http 80/TCP] web-a=10.244.1.1[8080]", ""},
		{"a headless Service", []string{shop, mcs("web"), service("web", "{clusterIP: None, ports: [{name: http, port: 8080}]}"), a, slice("web", http, endpointOf("web-a", "10.244.1.1"))},
			"red Headless [http 8080/TCP] web-a=10.244.1.1[8080]", ""},
		{"labels that other clusters may not set", []string{shop, strings.Replace(mcs("web"), "}}", "}, spec: {exportedLabels: {kubeslice.io/slice: red}}}", 1), service("web", "{clusterIP: 10.96.0.9, ports: [{port: 80}]}")}, "Valid InvalidExported", ""},
		{"an annotation of a megabyte", []string{shop, strings.Replace(mcs("web"), "}}", "}, spec: {exportedAnnotations: {a: "+long+"}}}", 1), service("web", "{clusterIP: 10.96.0.9, ports: [{port: 80}]}")}, "Valid InvalidExported", ""},
		{"no Service of that name", []string{shop, mcs("web")}, "Valid NoService", ""},
		{"ExternalName", []string{shop, mcs("web"), service("web", "{type: ExternalName, externalName: example.com}")}, "Valid InvalidServiceType", ""},
		{"the Service that stands for an import", []string{shop, mcs("web"), strings.Replace(service("web", "{clusterIP: 10.96.0.9, ports: [{port: 80}]}"), "namespace: shop", "namespace: shop, labels: {app.kubernetes.io/managed-by: slicewire}", 1)}, "Valid InvalidServiceType", ""},
		{"an endpoint that is no pod", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), slice("web", http, `{addresses: ["169.254.169.254"]}`)},
			"red ClusterSetIP [http 80/TCP]", "not the address of a pod"},
		{"an endpoint that says it is another's pod", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), a,
			pod("kube-system", "dns", "dns", "10.244.0.9"), slice("web", http, endpointOf("web-a", "10.244.0.9"))}, "red ClusterSetIP [http 80/TCP]", "not the address of a pod"},
		{"an endpoint that is not ready", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), a,
			slice("web", http, strings.Replace(endpointOf("web-a", "10.244.1.1"), "ready: true", "ready: false", 1))}, "red ClusterSetIP [http 80/TCP]", ""},
		{"an EndpointSlice without the Service's port", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), a,
			slice("web", "{name: other, port: 1, protocol: TCP}", endpointOf("web-a", "10.244.1.1"))}, "red ClusterSetIP [http 80/TCP]", "lacks a port"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := read(t, c.objects...)
			list := exports(o, red(), findReplicas(o, "slicewire-system", here().self))
			var got, left []string
			for i := range list {
				got = append(got, list[i].summary())
				left = append(left, list[i].left...)
			}
			if s := strings.Join(got, "|"); s != c.want {
				t.Errorf("got %.200s, want %s", s, c.want)
			}
			if s := strings.Join(left, "; "); c.left == "" && s != "" || !strings.Contains(s, c.left) {
				t.Errorf("left out: %q, want %q", s, c.left)
			}
		})
	}
}

func TestTermsOfAnExport(t *testing.T) {
	o := read(t, namespace("shop"), mcs("web"), service("web", "{clusterIP: 10.96.0.9, sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}, ports: [{port: 80}]}"))
	e := exports(o, red(), &replicas{})
	if got := e[0].export.Terms.AffinitySeconds; got != 60 {
		t.Errorf("affinity %d s, want 60", got)
	}
	e = exports(read(t, namespace("shop"), web), red(), &replicas{})
	if got := e[0].export.Terms.Created.String(); !strings.HasPrefix(got, "2026-01-02 03:04:05") {
		t.Errorf("created %s, want the export's creation", got)
	}
}

// Every endpoint is published by exactly one replica, and one that goes moves
// only what was its own.
func TestReplicasShareEndpoints(t *testing.T) {
	app := func(name, ip string) string { return pod("slicewire-system", name, "slicewire", ip) }
	parts := []string{namespace("shop"), web, app("r1", "10.244.0.2"), app("r2", "10.244.0.3"), app("r3", "10.244.0.4"), pod("slicewire-system", "else", "other", "10.244.0.5")}
	for i := range 60 {
		parts = append(parts, pod("shop", fmt.Sprintf("web-%d", i), "web", fmt.Sprintf("10.244.1.%d", i+1)))
	}
	owners := func(o *Objects, self ...string) map[string]string {
		out := make(map[string]string)
		for _, ip := range self {
			e := exports(o, red(), findReplicas(o, "slicewire-system", netip.MustParseAddr(ip)))
			for _, b := range e[0].export.Backends {
				if by, twice := out[b.Name]; twice {
					t.Errorf("%s is published by %s and %s", b.Name, by, ip)
				}
				out[b.Name] = ip
			}
		}
		return out
	}
	three := owners(read(t, parts...), "10.244.0.2", "10.244.0.3", "10.244.0.4")
	if len(three) != 60 {
		t.Fatalf("%d of 60 endpoints are published", len(three))
	}
	parts[4] = unready(parts[4])
	two := owners(read(t, parts...), "10.244.0.2", "10.244.0.3")
	count := make(map[string]int)
	for name, ip := range three {
		count[ip]++
		if ip != "10.244.0.4" && two[name] != ip {
			t.Errorf("%s moved from %s to %s", name, ip, two[name])
		}
	}
	for ip, n := range count {
		if n < 10 {
			t.Errorf("%s publishes %d of 60", ip, n)
		}
	}
	if len(two) != 60 {
		t.Errorf("%d of 60 endpoints are published by two", len(two))
	}
}

// Where there is no room for all, every service keeps an endpoint before one
// keeps many.
func TestRoomIsSharedByServices(t *testing.T) {
	parts := []string{namespace("shop")}
	for s := range 3 {
		name := fmt.Sprintf("web%d", s)
		parts = append(parts, strings.ReplaceAll(strings.ReplaceAll(web, "name: web", "name: "+name), "app: web", "app: "+name))
		for i := range []int{1, 4, 20}[s] {
			parts = append(parts, pod("shop", fmt.Sprintf("%s-%d", name, i), name, fmt.Sprintf("10.244.%d.%d", s, i+1)))
		}
	}
	state := red()
	state.Slices[0].Room = 10
	list := exports(read(t, parts...), state, &replicas{})
	if lost := fit(list)["red"]; lost != 15 {
		t.Errorf("%d endpoints have no address, want 15", lost)
	}
	var got []int
	for i := range list {
		got = append(got, len(list[i].export.Backends))
	}
	if fmt.Sprint(got) != "[1 4 5]" {
		t.Errorf("kept %v, want [1 4 5]", got)
	}
}
