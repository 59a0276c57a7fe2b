package hub

import (
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"slicewire/kube/apitest"
	"slicewire/overlay"
)

// roleObjects are the Roles that are shipped, for a namespace and a cluster.
func roleObjects(t *testing.T, namespace, cluster string, files ...string) (string, []*unstructured.Unstructured) {
	t.Helper()
	var all []string
	for _, f := range files {
		text, err := os.ReadFile("../../deploy/hub/" + f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.NewReplacer("kubeslice-demo", namespace, "worker-1", cluster).Replace(string(text)))
	}
	text := strings.Join(all, "---\n")
	objects, err := apitest.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return text, objects
}

// live is how a node's day goes: everything that it may have to do.
func (p *project1) live(configure func(*Config, *rest.Config), controls bool) {
	p.t.Helper()
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(extras)
	web := Export{Slice: "red", Namespace: "red-app", Name: "web", Ports: []overlay.ServicePort{{Port: 80, Protocol: "TCP"}}, Endpoints: []overlay.Endpoint{{Name: "pod-1"}}}
	if !controls { // somebody else works them out
		p.put(workedOut)
	}
	links := []Link{{Slice: "red", Site: "two", Up: true, RTT: 3400 * time.Microsecond}}
	for _, gates := range []string{"WatchList=true", "WatchList=false"} { // the second finds the events of the first, on a server as old ones are
		server.StopAPI()
		server.Flags = []string{"--feature-gates=" + gates}
		if err := server.StartAPI(); err != nil {
			p.t.Fatal(err)
		}
		n := p.node("one", nil, configure)
		n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Exports: []Export{web}, Links: links})
		p.until("the export", func() bool { return p.get("ServiceExportConfig", "web-red-app-one") != nil })
		p.until("what is said of a tunnel", func() bool {
			return field(p.get("WorkerSliceGateway", "red-one-two"), "status", "connectionState") == "Connected" && field(p.get("WorkerSliceConfig", "red-one"), "status", "sliceHealth", "sliceHealthStatus") == "Normal"
		})
		if controls {
			p.until("what is worked out", func() bool {
				return p.count("WorkerSliceGateway") == 2 && p.count("WorkerServiceImport") == 2 && p.count("VpnKeyRotation") == 1
			})
			p.until("conditions", func() bool {
				for _, x := range [][2]string{{"SliceConfig", "red"}, {"SliceQoSConfig", "gold"}, {"SlicePolicy", "p"}, {"SliceClasses", "c"}, {"ServiceExportConfig", "stray"}} {
					if conditionOf(p.get(x[0], x[1]), "Accepted") == nil {
						return false
					}
				}
				return true
			})
			p.put(strays)
			for _, x := range strayNames {
				p.until("a condition of what nothing comes to", func() bool { return conditionOf(p.get(x[0], x[1]), "Accepted") != nil })
				p.remove(x[0], x[1])
			}
		}
		n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Links: links})
		p.until("no export", func() bool { return p.get("ServiceExportConfig", "web-red-app-one") == nil })
		p.put(edit(sliceText, "[one, two]", "[one]"), "red", "10.1.0.0/16")
		if controls {
			p.until("what is no longer worked out", func() bool {
				return p.count("WorkerSliceGateway")+p.count("WorkerServiceImport")+p.count("VpnKeyRotation") == 0 && p.count("WorkerSliceConfig") == 1
			})
		}
		p.settle(n)
		p.until("events", func() bool { return p.event("ClusterHealthy") })
		p.settle(n)
		n.stop()
		p.put(sliceText, "red", "10.1.0.0/16")
		p.unregister()
	}
}

// unregister has the node find that its Cluster is not well.
func (p *project1) unregister() {
	p.t.Helper()
	o := bare(p.get("Cluster", "one"))
	o.Object["status"] = map[string]any{"clusterHealth": map[string]any{"clusterHealthStatus": "Warning"}}
	p.applyStatus(o)
}

// applyStatus has somebody else write a status.
func (p *project1) applyStatus(o *unstructured.Unstructured) {
	p.t.Helper()
	if _, err := p.client.Dynamic.Resource(resources[o.GetKind()]).Namespace(p.namespace).ApplyStatus(p.ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "test", Force: true}); err != nil {
		p.t.Fatal(err)
	}
}

func edit(text, old, new string) string { return strings.Replace(text, old, new, 1) }

const workedOut = `
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceConfig
metadata: {name: red-one, labels: {worker-cluster: one, original-slice-name: red, app.kubernetes.io/managed-by: slicewire}}
spec: {sliceName: red, octet: 0, clusterSubnetCIDR: 10.1.0.0/20}
---
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceGateway
metadata: {name: red-one-two, labels: {worker-cluster: one, original-slice-name: red, app.kubernetes.io/managed-by: slicewire}}
spec: {sliceName: red, localGatewayConfig: {clusterName: one}, remoteGatewayConfig: {clusterName: two}}
`

const extras = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceQoSConfig
metadata: {name: gold}
spec: {priority: 1, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
---
apiVersion: slicewire.io/v1alpha1
kind: SlicePolicy
metadata: {name: p}
spec: {slice: red, appliesTo: [{namespaces: [red-app]}], ingress: []}
---
apiVersion: slicewire.io/v1alpha1
kind: SliceClasses
metadata: {name: c}
spec: {slice: red, classes: [{name: rest}]}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: ServiceExportConfig
metadata: {name: stray}
spec: {serviceName: stray, sourceCluster: nowhere, sliceName: red}
`

// strays are of the kinds that are worked out, and nothing comes to them.
const strays = `
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceConfig
metadata: {name: stray, labels: {worker-cluster: one}}
spec: {sliceName: red, octet: 9}
---
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceGateway
metadata: {name: stray}
spec: {sliceName: red, localGatewayConfig: {clusterName: one}, remoteGatewayConfig: {clusterName: two}}
---
apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerServiceImport
metadata: {name: stray}
spec: {serviceName: stray, serviceNamespace: red-app, sliceName: red}
---
apiVersion: controller.kubeslice.io/v1alpha1
kind: VpnKeyRotation
metadata: {name: stray}
spec: {sliceName: stray}
`

var strayNames = [][2]string{{"WorkerSliceConfig", "stray"}, {"WorkerSliceGateway", "stray"}, {"WorkerServiceImport", "stray"}, {"VpnKeyRotation", "stray"}}

func TestTheRolesAreWhatANodeNeedsAndNoMore(t *testing.T) {
	t.Cleanup(func() {
		server.StopAPI()
		server.Flags = nil
		if err := server.StartAPI(); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		name     string
		files    []string
		controls bool
	}{
		{"worker", []string{"role-worker.yaml"}, false},
		{"controller", []string{"role-worker.yaml", "role-controller.yaml"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newProject(t)
			text, objects := roleObjects(t, p.namespace, "one", c.files...)
			p.put("%s", text)
			user := "system:serviceaccount:" + p.namespace + ":slicewire-one"
			p.live(func(cfg *Config, access *rest.Config) {
				access.Impersonate.UserName, access.Impersonate.Groups = user, []string{"system:authenticated"}
				if !c.controls {
					cfg.Controller = "reader"
				}
			}, c.controls)
			made := server.Requests(t, user)
			for _, r := range made {
				if r.ResponseStatus.Code == 403 {
					t.Errorf("denied: %s %s", r.Verb, r.RequestURI)
				}
				if r.ObjectRef.Resource == "secrets" || r.ObjectRef.Namespace != "" && r.ObjectRef.Namespace != p.namespace {
					t.Errorf("asked of what is not its own: %s %s", r.Verb, r.RequestURI)
				}
			}
			for _, o := range objects {
				if o.GetKind() == "Role" {
					if rights := apitest.CheckUsed(t, o, made); rights < 10 {
						t.Errorf("%s: only %d rights read", o.GetName(), rights)
					}
				}
			}
		})
	}
}

func TestWhatIsForbiddenIsSaidAndStopsNothingElse(t *testing.T) {
	p := newProject(t)
	text, _ := roleObjects(t, p.namespace, "one", "role-worker.yaml")
	p.put("%s", text)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	user := "system:serviceaccount:" + p.namespace + ":slicewire-one"
	n := p.node("one", nil, func(_ *Config, access *rest.Config) {
		access.Impersonate.UserName, access.Impersonate.Groups = user, []string{"system:authenticated"}
	})
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}})
	p.until("the cluster is registered", func() bool {
		return field(p.get("Cluster", "one"), "status", "registrationStatus") == "Registered"
	})
	p.until("what is forbidden is said", func() bool { return strings.Contains(n.hub.Status().Denied, leaseWorked) })
	p.put(sliceText, "blue", "10.2.0.0/16")
	p.until("the slices", func() bool { return n.slices() == "blue red" })
	p.settle(n)
	denied := 0
	for _, r := range server.Requests(t, user) {
		if r.ResponseStatus.Code == 403 {
			denied++
		}
	}
	if denied != 1 {
		t.Errorf("asked %d times for what is forbidden", denied)
	}
}
