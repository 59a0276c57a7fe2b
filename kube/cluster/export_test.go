package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"slicewire/overlay"
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
		{"a version of the PROXY protocol that is not spoken", []string{shop, strings.Replace(web, "namespace: shop", "namespace: shop, annotations: {slicewire.io/proxy-protocol: v1}", 1)}, "Valid InvalidAnnotation", ""},
		{"KubeSlice's export comes before MCS's of the same name", []string{shop, web, a, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{port: 1}]}")}, "red Headless [http 8080/TCP] web-a=10.244.1.1[8080]|Ready Pending", ""},

		{"the Service of the export's name", []string{shop, mcs("web"), service("web", "{clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}"), a, slice("web", http, endpointOf("web-a", "10.244.1.1"))},
			"red ClusterSetIP [http 80/TCP] web-a=10.244.1.1[8080]", ""},
		{"a headless Service", []string{shop, mcs("web"), service("web", "{clusterIP: None, ports: [{name: http, port: 8080}]}"), a, slice("web", http, endpointOf("web-a", "10.244.1.1"))},
			"red Headless [http 8080/TCP] web-a=10.244.1.1[8080]", ""},
		{"an endpoint's hostname before its pod's name", []string{shop, mcs("web"), service("web", "{clusterIP: None, ports: [{name: http, port: 8080}]}"), a,
			slice("web", http, strings.Replace(endpointOf("web-a", "10.244.1.1"), "conditions:", "hostname: first, conditions:", 1))}, "red Headless [http 8080/TCP] first=10.244.1.1[8080]", ""},
		{"a Service of type LoadBalancer is one with an address", []string{shop, mcs("web"), service("web", "{type: LoadBalancer, clusterIP: 10.96.0.9, ports: [{name: http, port: 80, nodePort: 30080}]}")},
			"red ClusterSetIP [http 80/TCP]", ""},
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

func TestServersThatAreToldOfTheirClients(t *testing.T) {
	for _, c := range []struct {
		annotations string
		want        bool
	}{{"{}", false}, {"{slicewire.io/proxy-protocol: v2}", true}} {
		for _, kind := range []string{web, mcs("web")} {
			kind = strings.Replace(kind, "namespace: shop", "namespace: shop, annotations: "+c.annotations, 1)
			e := exports(read(t, namespace("shop"), kind, service("web", "{ports: [{port: 80}]}")), red(), &replicas{})
			if e[0].export == nil || e[0].export.Proxied != c.want {
				t.Errorf("%s: %+v", c.annotations, e[0].export)
			}
		}
	}
}

// Endpoints that have an IPv6 address only are counted and told of.
func TestEndpointsWithoutAnIPv4Address(t *testing.T) {
	v := view(overlay.Headless, "east/web-0", "east/web-1", "west/web-2")
	v.Endpoints[1].Addr, v.Endpoints[1].Addr6 = netip.Addr{}, netip.MustParseAddr("fd00::8000:1")
	v.Endpoints[2].Addr = netip.Addr{} // not ours
	state := red(v)
	state.Slices[0].Room4 = 1
	p := work(read(t, namespace("shop"), web, pod("shop", "web-0", "web", "10.244.1.1"), pod("shop", "web-1", "web", "10.244.1.2")), state, here(), nil)
	if p.only6 != 1 || len(p.lost) != 0 {
		t.Errorf("%d have an IPv6 address only, %v are lost; want 1 and none", p.only6, p.lost)
	}
	status := p.wanted(KindExport, "shop", "web").status().Object
	if got := objectsIn(status, "status", "conditions")[1]; !strings.Contains(text(got, "message"), "1 endpoints have an IPv6 address only") || text(got, "status") != "True" {
		t.Errorf("condition %v", got)
	}
	if got := objectsIn(status, "status", "pods")[1]; text(got, "nsmIp") != "fd00::8000:1" {
		t.Errorf("pod %v", got)
	}
	state.Slices[0].Room4 = 2
	if p := work(p.objects, state, here(), nil); p.only6 != 0 {
		t.Errorf("%d of two in a block for two", p.only6)
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
		t.Errorf("%d endpoints are not published, want 15", lost)
	}
	var got []int
	for i := range list {
		got = append(got, len(list[i].export.Backends))
	}
	if fmt.Sprint(got) != "[1 4 5]" {
		t.Errorf("kept %v, want [1 4 5]", got)
	}
}
