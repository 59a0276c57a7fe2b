package hub

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"slicewire/kube"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// hostile are objects that somebody may write who should not; they name no
// namespace. Slice red, with clusters one and two, is there before.
var hostile = map[string]struct {
	text  string
	taken bool // the hub's definitions let it through
}{
	"an alias with a newline": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h1"},
		"spec":{"serviceName":"x","serviceNamespace":"red-app","sourceCluster":"one","sliceName":"red","aliases":["a.b\nkind: Evil"]}}`, true},
	"a service's name with markup": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h2"},
		"spec":{"serviceName":"<script>x</script>","serviceNamespace":"red-app","sourceCluster":"one","sliceName":"red"}}`, false},
	"an export of a site that is not on the slice": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h3"},
		"spec":{"serviceName":"x","serviceNamespace":"red-app","sourceCluster":"three","sliceName":"red"}}`, true},
	"an endpoint of another site than the slice's": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h4"},
		"spec":{"serviceName":"x","serviceNamespace":"red-app","sourceCluster":"one","sliceName":"red","serviceDiscoveryEndpoints":[{"podName":"p\u0000\n","cluster":"elsewhere","nsmIp":"10.1.16.1"}]}}`, true},
	"a namespace with a dot": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h5"},
		"spec":{"serviceName":"x","serviceNamespace":"kube-system/../red","sourceCluster":"one","sliceName":"red"}}`, true},
	"a slice that takes a namespace of another": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceConfig","metadata":{"name":"thief","labels":{"kubernetes.io/metadata.name":"kube-system"}},
		"spec":{"sliceSubnet":"10.3.0.0/16","sliceGatewayProvider":{},"clusters":["one"],"standardQosProfileName":"default","namespaceIsolationProfile":{"applicationNamespaces":[{"namespace":"red-app","clusters":["*"]}]}}}`, true},
	"a policy for nodes of nowhere": {`{"apiVersion":"slicewire.io/v1alpha1","kind":"SlicePolicy","metadata":{"name":"h6"},
		"spec":{"slice":"red","appliesTo":[{"nodes":["one/a\nb"]}],"ingress":[]}}`, true},
	"a policy of a slice with markup in its name": {`{"apiVersion":"slicewire.io/v1alpha1","kind":"SlicePolicy","metadata":{"name":"h7"},
		"spec":{"slice":"<b>red</b>","appliesTo":[{"sites":["one"]}],"ingress":[]}}`, true},
	"a profile without a ceiling": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceQoSConfig","metadata":{"name":"h8"},
		"spec":{"priority":0,"bandwidthCeilingKbps":-5,"bandwidthGuaranteedKbps":-9,"dscpClass":"EF"}}`, false},
	"a slice that takes kube-system": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceConfig","metadata":{"name":"system"},
		"spec":{"sliceSubnet":"10.4.0.0/16","sliceGatewayProvider":{},"clusters":["one"],"standardQosProfileName":"default","namespaceIsolationProfile":{"applicationNamespaces":[{"namespace":"kube-system","clusters":["*"]}]}}}`, true},
	"a slice whose addresses are another's": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceConfig","metadata":{"name":"shadow"},
		"spec":{"sliceSubnet":"127.0.0.0/16","sliceGatewayProvider":{},"clusters":["one"],"standardQosProfileName":"default"}}`, false},
	"a slice with a mebibyte of namespaces": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceConfig","metadata":{"name":"big"},
		"spec":{"sliceSubnet":"10.5.0.0/16","sliceGatewayProvider":{},"clusters":["one"],"standardQosProfileName":"default","namespaceIsolationProfile":{"applicationNamespaces":[{"namespace":"` + strings.Repeat("x", 1<<20) + `","clusters":["*"]}]}}}`, false},
	"a cluster with a name that is no label": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"Cluster","metadata":{"name":"one.two"},"spec":{"nodeIPs":["192.0.2.1"]}}`, false},
	"a cluster at no address":                {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"Cluster","metadata":{"name":"h10"},"spec":{"nodeIPs":["192.0.2.1\n<b>"]}}`, false},
	"a part of a slice with another's number": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceConfig","metadata":{"name":"aaa","labels":{"worker-cluster":"two","app.kubernetes.io/managed-by":"slicewire"}},
		"spec":{"sliceName":"red","octet":4711}}`, false},
	"a part of a slice under a name that is not its own": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceConfig","metadata":{"name":"aab","labels":{"worker-cluster":"two","kubernetes.io/metadata.name":"kube-system"}},
		"spec":{"sliceName":"red","octet":9,"clusterSubnetCIDR":"127.0.0.0/8"}}`, true},
	"classes of a slice with markup in its name": {`{"apiVersion":"slicewire.io/v1alpha1","kind":"SliceClasses","metadata":{"name":"h11"},"spec":{"slice":"<b>red</b>","classes":[{"name":"rest"}]}}`, true},
	"a class with a newline":                     {`{"apiVersion":"slicewire.io/v1alpha1","kind":"SliceClasses","metadata":{"name":"h12"},"spec":{"slice":"red","classes":[{"name":"a\nb"}]}}`, true},
	"addresses of a slice that are no addresses": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceIpam","metadata":{"name":"h13"},
		"spec":{"sliceName":"red","sliceSubnet":"10.1.0.0\n/16","subnetSize":24}}`, false},
	"a mebibyte of aliases": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"ServiceExportConfig","metadata":{"name":"h9"},
		"spec":{"serviceName":"x","serviceNamespace":"red-app","sourceCluster":"one","sliceName":"red","aliases":["` + strings.Repeat("x_.", 80) + strings.Repeat(`","`+strings.Repeat("x_.", 80), 4000) + `"]}}`, true},
}

// made are of the kinds that come of others and are never gone by. What says that
// it is slicewire's is removed, the rest gets a condition.
var made = map[string]struct {
	text  string
	taken bool
}{
	"a gateway to a site with markup and a newline": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceGateway","metadata":{"name":"g1","labels":{"worker-cluster":"one"}},
		"spec":{"sliceName":"red","localGatewayConfig":{"clusterName":"one"},"remoteGatewayConfig":{"clusterName":"<b>\nx","nodeIps":["169.254.169.254"]}}}`, true},
	"a gateway to a site that is not on the slice": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceGateway","metadata":{"name":"red-one-three","labels":{"worker-cluster":"one"}},
		"spec":{"sliceName":"red","localGatewayConfig":{"clusterName":"one"},"remoteGatewayConfig":{"clusterName":"three"}}}`, true},
	"a gateway to itself": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceGateway","metadata":{"name":"red-one-one"},
		"spec":{"sliceName":"red","localGatewayConfig":{"clusterName":"one"},"remoteGatewayConfig":{"clusterName":"one"}}}`, true},
	"a gateway to a mebibyte": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceGateway","metadata":{"name":"g3"},
		"spec":{"sliceName":"red","localGatewayConfig":{"clusterName":"one"},"remoteGatewayConfig":{"clusterName":"` + strings.Repeat("x", 1<<20) + `"}}}`, true},
	"a gateway that says it is slicewire's": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerSliceGateway","metadata":{"name":"g4","labels":{"app.kubernetes.io/managed-by":"slicewire"}},
		"spec":{"sliceName":"red","localGatewayConfig":{"clusterName":"one"},"remoteGatewayConfig":{"clusterName":"two"}}}`, true},
	"an import into kube-system": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerServiceImport","metadata":{"name":"i1","labels":{"worker-cluster":"one","kubernetes.io/metadata.name":"kube-system"}},
		"spec":{"serviceName":"kube-dns","serviceNamespace":"kube-system","sliceName":"red","sourceClusters":["two"],"serviceDiscoveryEndpoints":[{"podName":"a\nb","cluster":"two","nsmIp":"10.1.16.1"}]}}`, true},
	"an import with markup": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerServiceImport","metadata":{"name":"i2"},
		"spec":{"serviceName":"<script>","serviceNamespace":"red-app","sliceName":"red"}}`, true},
	"an import that says it is slicewire's": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerServiceImport","metadata":{"name":"i3","labels":{"app.kubernetes.io/managed-by":"slicewire"}},
		"spec":{"serviceName":"x","serviceNamespace":"kube-system","sliceName":"red"}}`, true},
	"an import of a mebibyte": {`{"apiVersion":"worker.kubeslice.io/v1alpha1","kind":"WorkerServiceImport","metadata":{"name":"i4"},
		"spec":{"serviceName":"x","serviceNamespace":"red-app","sliceName":"red","aliases":["` + strings.Repeat("x", 1<<20) + `"]}}`, false},
	"a rotation of another slice": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"VpnKeyRotation","metadata":{"name":"r1"},
		"spec":{"sliceName":"red","rotationInterval":1}}`, false},
	"a rotation of no slice": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"VpnKeyRotation","metadata":{"name":"r2"},
		"spec":{"sliceName":"r2","clusterGatewayMapping":{"one\n<b>":["x"]}}}`, true},
	"a rotation that says it is slicewire's": {`{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"VpnKeyRotation","metadata":{"name":"r3","labels":{"app.kubernetes.io/managed-by":"slicewire"}},
		"spec":{"sliceName":"r3"}}`, true},
}

// Every kind that is watched is somewhere in the tables.
func TestHostileObjectsAreOfEveryKind(t *testing.T) {
	seen := map[string]bool{}
	see := func(text string) {
		var o unstructured.Unstructured
		if err := json.Unmarshal([]byte(text), &o.Object); err != nil {
			t.Fatal(err)
		}
		seen[o.GetKind()] = true
	}
	for _, h := range hostile {
		see(h.text)
	}
	for _, h := range made {
		see(h.text)
	}
	for kind := range resources {
		if !seen[kind] {
			t.Errorf("no hostile %s", kind)
		}
	}
}

func TestHostileObjectsAreRefusedAlone(t *testing.T) {
	good := documents{}
	add := func(ds documents, text string) string {
		var m map[string]any
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
		o := &unstructured.Unstructured{Object: m}
		o.SetNamespace("n")
		d := ds.of(o)
		ds[d.ID] = d
		return d.ID
	}
	add(good, `{"apiVersion":"controller.kubeslice.io/v1alpha1","kind":"SliceConfig","metadata":{"name":"red"},
		"spec":{"sliceSubnet":"10.1.0.0/16","sliceGatewayProvider":{},"clusters":["one","two"],"standardQosProfileName":"default","namespaceIsolationProfile":{"applicationNamespaces":[{"namespace":"red-app","clusters":["*"]}]}}}`)
	for name, h := range hostile {
		now := join(good)
		id := add(now, h.text)
		m := merge(&manifest.Set{}, now, good, manifest.Options{})
		if len(m.mesh.Slices) != 1 || m.mesh.Slices[0].Name != "red" || len(m.mesh.Slices[0].Policies) != 0 {
			t.Errorf("%s: slices %+v", name, m.mesh.Slices)
		}
		if len(m.mesh.Slices) == 1 && len(m.mesh.Slices[0].Services) != 0 {
			t.Errorf("%s: services %+v", name, m.mesh.Slices[0].Services)
		}
		v := m.verdicts[id]
		if v.refused == "" {
			t.Errorf("%s: not refused", name)
		}
		c := condition{kind: "Accepted", reason: "Refused", message: v.refused}.object(&unstructured.Unstructured{}, now[id].Gone)
		if text := c["message"].(string); len(text) > maxMessage || strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%s: the condition's message is %q", name, text)
		}
	}
}

func TestHostileObjectsOnAHubGetAConditionAndNothingElseIsWritten(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	const user = "hostile-test-node"
	p.put(`apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: hostile-test}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: ` + user + `}]`)
	n := p.node("one", nil, func(_ *Config, access *rest.Config) { access.Impersonate.UserName = user }) // it may do anything
	p.until("the slice", func() bool { return n.slices() == "red" })
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Exports: []Export{{Slice: "red", Namespace: "kube-system", Name: "web", Endpoints: []overlay.Endpoint{{Name: "a"}}}}})
	var refused, removed []*unstructured.Unstructured
	both := maps.Clone(hostile)
	maps.Copy(both, made)
	for name, h := range both {
		o := &unstructured.Unstructured{}
		if err := json.Unmarshal([]byte(h.text), &o.Object); err != nil {
			t.Fatal(err)
		}
		o.SetNamespace(p.namespace)
		_, err := p.client.Dynamic.Resource(resources[o.GetKind()]).Namespace(p.namespace).Create(p.ctx, o, createNow)
		if taken := err == nil; taken != h.taken {
			t.Errorf("%s: taken by the server %v, %.300v", name, taken, err)
		}
		switch {
		case err != nil:
		case kube.Ours(o):
			removed = append(removed, o)
		default:
			refused = append(refused, o)
		}
	}
	for _, o := range refused {
		p.until("a condition of "+o.GetName(), func() bool {
			c := conditionOf(p.get(o.GetKind(), o.GetName()), "Accepted")
			return c != nil && c["status"] == "False"
		})
	}
	for _, o := range removed {
		p.until(o.GetName()+" gone", func() bool { return p.get(o.GetKind(), o.GetName()) == nil })
	}
	p.settle(n)
	for _, o := range refused {
		c := conditionOf(p.get(o.GetKind(), o.GetName()), "Accepted")
		if text, _ := c["message"].(string); c["status"] != "False" || len(text) > maxMessage || strings.ContainsAny(text, "\n\r\x00") {
			t.Errorf("%s %s: condition %.2000v", o.GetKind(), o.GetName(), c)
		}
	}
	if n.slices() != "red" {
		t.Errorf("slices %q", n.slices())
	}
	// The one service is what the node itself was told to say.
	if m := n.meshNow(); len(m.Slices) == 1 && (len(m.Slices[0].Services) != 1 || m.Slices[0].Sites[0].Index > 1 || m.Slices[0].Sites[1].Index > 1) {
		t.Errorf("the slice has services %+v, sites %+v", m.Slices[0].Services, m.Slices[0].Sites)
	}
	n.steady(t, "red")
	if strings.Contains(n.log.String(), "panic") {
		t.Error("it crashed")
	}
	made := 0
	for _, r := range server.Requests(t, user) {
		if r.Verb == "list" || r.Verb == "watch" || r.Verb == "get" {
			continue
		}
		made++
		if r.ObjectRef.Namespace != p.namespace {
			t.Errorf("written elsewhere: %s %s", r.Verb, r.RequestURI)
		}
	}
	if made < len(refused) {
		t.Fatalf("only %d writes seen", made)
	}
}

func TestAThousandExportsAreReadSoon(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	begin := make(chan int, 1000)
	for i := range 1000 {
		begin <- i
	}
	close(begin)
	failed := make(chan error, 8)
	for range cap(failed) {
		go func() {
			for i := range begin {
				var endpoints []any
				for e := range 5 {
					endpoints = append(endpoints, map[string]any{"podName": fmt.Sprintf("pod-%d", e), "cluster": "one", "nsmIp": fmt.Sprintf("10.1.%d.%d", i/250, i%250), "dnsName": fmt.Sprintf("pod-%d.one.s%d.red-app.svc.slice.local", e, i), "port": int64(80)})
				}
				o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "controller.kubeslice.io/v1alpha1", "kind": "ServiceExportConfig",
					"metadata": map[string]any{"name": fmt.Sprintf("s%d-red-app-one", i), "namespace": p.namespace},
					"spec": map[string]any{"serviceName": fmt.Sprintf("s%d", i), "serviceNamespace": "red-app", "sourceCluster": "one", "sliceName": "red", "serviceDiscoveryEndpoints": endpoints,
						"serviceDiscoveryPorts": []any{map[string]any{"name": "http", "port": int64(80), "protocol": "TCP"}}}}}
				if _, err := p.client.Dynamic.Resource(resources["ServiceExportConfig"]).Namespace(p.namespace).Create(p.ctx, o, createNow); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range cap(failed) {
		if err := <-failed; err != nil {
			t.Fatal(err)
		}
	}
	before := residentKiB(t)
	n := p.node("one", nil, func(c *Config, _ *rest.Config) { c.Controller = "reader" })
	took := p.within(patience, "all services", func() bool {
		m := n.meshNow()
		s, ok := m.Slice("red")
		return ok && len(s.Services) == 1000
	})
	t.Logf("1,000 exports with 5,000 endpoints after %v, %d MiB more resident", took, (residentKiB(t)-before)>>10)
	if took.Seconds() > 10 {
		t.Errorf("took %v, want 10s at most", took)
	}
	if w := p.settle(n); w != 0 {
		t.Errorf("%d writes", w)
	}
}
