package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"slicewire/overlay"
)

// kindOf finds an object's Kind.
func kindOf(t testing.TB, u *unstructured.Unstructured) Kind {
	t.Helper()
	for kind, info := range kinds() {
		if info.kind == u.GetKind() && info.resource.Group == u.GroupVersionKind().Group {
			return Kind(kind)
		}
	}
	t.Fatalf("%s %s: no kind of ours", u.GetAPIVersion(), u.GetKind())
	return 0
}

// read reads objects; parts are YAML streams.
func read(t testing.TB, parts ...string) *Objects {
	t.Helper()
	var list []*Object
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader([]byte(strings.Join(parts, "\n---\n"))), 4096)
	for {
		u := &unstructured.Unstructured{}
		err := d.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return NewObjects(list)
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) > 0 {
			list = append(list, NewObject(kindOf(t, u), u))
		}
	}
}

func namespace(name string) string {
	return "{apiVersion: v1, kind: Namespace, metadata: {name: " + name + "}}"
}

// pod makes a ready pod; more goes into its spec.
func pod(namespace, name, app, ip string, more ...string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: {app: %s}}
spec: {x: y%s}
status: {phase: Running, podIPs: [{ip: "%s"}], conditions: [{type: Ready, status: "True"}]}
`, name, namespace, app, strings.Join(append([]string{""}, more...), ", "), ip)
}

func unready(pod string) string {
	return strings.ReplaceAll(pod, `type: Ready, status: "True"`, `type: Ready, status: "False"`)
}

// web is an export of KubeSlice's of pods with app: web.
const web = `
apiVersion: networking.kubeslice.io/v1beta1
kind: ServiceExport
metadata: {name: web, namespace: shop, creationTimestamp: "2026-01-02T03:04:05Z"}
spec: {slice: red, selector: {matchLabels: {app: web}}, ports: [{name: http, containerPort: 8080, protocol: TCP}]}
`

// mcs exports the Service of a name.
func mcs(name string) string {
	return "{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: " + name + ", namespace: shop}}"
}

// service makes a Service; spec is its spec.
func service(name, spec string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: shop}, spec: %s}", name, spec)
}

// slice makes an EndpointSlice of one port.
func slice(service, port string, endpoints ...string) string {
	return fmt.Sprintf(`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: %s-1, namespace: shop, labels: {kubernetes.io/service-name: %s}},
addressType: IPv4, ports: [%s], endpoints: [%s]}`, service, service, port, strings.Join(endpoints, ", "))
}

func endpointOf(pod, ip string) string {
	return fmt.Sprintf(`{addresses: ["%s"], conditions: {ready: true}, targetRef: {kind: Pod, name: %s, namespace: shop}}`, ip, pod)
}

// red is a slice that binds shop, and allows metrics.
func red(services ...overlay.ServiceView) *State {
	return &State{Site: "east", Slices: []Slice{{
		Name: "red", Isolated: true, Networked: true, Namespaces: []string{"shop"}, Allowed: []string{"metrics"}, Room: 250, Services: services,
	}}}
}

// view is shop/web as two sites export it.
func view(kind overlay.ServiceType, names ...string) overlay.ServiceView {
	ports := []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}}
	v := overlay.ServiceView{Name: "web", Namespace: "shop", Type: kind, Ports: ports, DNSNames: []string{"web.shop.svc.slice.local"}}
	for i, n := range names {
		site, name, _ := strings.Cut(n, "/")
		v.Endpoints = append(v.Endpoints, overlay.EndpointView{
			Endpoint: overlay.Endpoint{Name: name, Addr: netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + i)})},
			Origin:   overlay.NodeID{Site: site, Node: "gw"}, Ports: ports,
		})
	}
	return v
}

// here is a setting with everything the cluster may have.
func here() *setting {
	s := &setting{namespace: "slicewire-system", self: netip.MustParseAddr("10.244.0.2"), kinds: kinds()}
	for k := range s.has {
		s.has[k] = true
	}
	return s
}

// wanted finds a wanted object.
func (p *plan) wanted(kind Kind, namespace, name string) *want {
	for i := range p.wants {
		if p.wants[i].Ref == (Ref{kind, namespace, name}) {
			return &p.wants[i]
		}
	}
	return nil
}

// with adds wanted objects to what there is, as the API server would have them:
// Services with addresses.
func (p *plan) with(t testing.TB, o *Objects) *Objects {
	t.Helper()
	var list []*Object
	for _, x := range o.all {
		list = append(list, x)
	}
	for i := range p.wants {
		w := &p.wants[i]
		if w.whole == nil || w.shared {
			continue
		}
		u := w.whole()
		if w.Kind == KindService {
			u.Object["spec"].(map[string]any)["clusterIPs"] = []any{fmt.Sprintf("10.96.0.%d", 10+len(list)%200)}
		}
		list = append(list, NewObject(w.Kind, u))
	}
	return NewObjects(list)
}

// said finds a condition in a status.
func said(u *unstructured.Unstructured, kind string) string {
	for _, c := range objectsIn(u.Object, "status", "conditions") {
		if text(c, "type") == kind {
			return text(c, "status") + " " + text(c, "reason")
		}
	}
	return ""
}
