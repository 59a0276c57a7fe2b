package hub

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

func TestSlicesFollowTheHub(t *testing.T) {
	p := newProject(t)
	n := p.node("one", nil, nil)
	if n.slices() != "" {
		t.Fatalf("slices before the hub was heard: %q", n.slices())
	}
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.until("the slice", func() bool { return n.slices() == "red" })
	p.put(sliceText, "blue", "10.2.0.0/16")
	p.until("both slices", func() bool { return n.slices() == "blue red" })
	p.remove("SliceConfig", "blue")
	p.until("the slice goes", func() bool { return n.slices() == "red" })
	p.until("it is said that the slice is in force", func() bool {
		c := conditionOf(p.get("SliceConfig", "red"), "Accepted")
		return c != nil && c["status"] == "True" && c["observedGeneration"] == int64(1)
	})
}

func TestWhatKubeSlicesControllerWritesIsWrittenOnce(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	one, two := p.node("one", nil, nil), p.node("two", nil, nil)
	for _, n := range []*fakeNode{one, two} {
		n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Exports: []Export{{Slice: "red", Namespace: "red-app", Name: "web",
			Ports: []overlay.ServicePort{{Name: "http", Port: 80, Protocol: "TCP"}}, Endpoints: []overlay.Endpoint{{Name: "pod-1"}}}}})
	}
	p.until("both clusters' parts of the slice", func() bool { return p.count("WorkerSliceConfig") == 2 })
	p.until("both ends", func() bool { return p.count("WorkerSliceGateway") == 2 })
	p.until("both exports", func() bool { return p.count("ServiceExportConfig") == 2 })
	p.until("the import of both clusters, with the endpoints of both", func() bool {
		e, _ := field(p.get("WorkerServiceImport", "web-red-app-red-two"), "spec", "serviceDiscoveryEndpoints").([]any)
		return p.count("WorkerServiceImport") == 2 && len(e) == 2
	})
	p.until("the rotation", func() bool { return p.get("VpnKeyRotation", "red") != nil })
	for _, want := range []struct {
		kind, name string
		path       []string
		value      any
	}{
		{"WorkerSliceConfig", "red-one", []string{"spec", "octet"}, int64(0)},
		{"WorkerSliceConfig", "red-two", []string{"spec", "octet"}, int64(1)},
		{"WorkerSliceConfig", "red-two", []string{"spec", "clusterSubnetCIDR"}, "10.1.16.0/20"},
		{"WorkerSliceConfig", "red-two", []string{"metadata", "labels", "worker-cluster"}, "two"},
		{"WorkerSliceConfig", "red-two", []string{"metadata", "labels", "original-slice-name"}, "red"},
		{"WorkerSliceConfig", "red-two", []string{"metadata", "labels", "kubeslice-manager"}, "controller"},
		{"WorkerSliceGateway", "red-one-two", []string{"spec", "gatewayHostType"}, "Server"},
		{"WorkerSliceGateway", "red-two-one", []string{"spec", "gatewayHostType"}, "Client"},
		{"WorkerSliceGateway", "red-two-one", []string{"spec", "localGatewayConfig", "vpnIp"}, "10.1.255.2"},
		{"WorkerSliceGateway", "red-two-one", []string{"spec", "remoteGatewayConfig", "gatewaySubnet"}, "10.1.0.0/20"},
		{"ServiceExportConfig", "web-red-app-one", []string{"spec", "sourceCluster"}, "one"},
		{"VpnKeyRotation", "red", []string{"spec", "rotationCount"}, int64(1)},
		{"VpnKeyRotation", "red", []string{"spec", "rotationInterval"}, int64(30)},
	} {
		if got := field(p.get(want.kind, want.name), want.path...); got != want.value {
			t.Errorf("%s %s %v: %v, want %v", want.kind, want.name, want.path, got, want.value)
		}
	}
	p.until("the cluster is registered", func() bool {
		return field(p.get("Cluster", "one"), "status", "registrationStatus") == "Registered"
	})
	settled := p.settle(one, two)
	// Something that means nothing, for the writers to look once more.
	p.put("apiVersion: controller.kubeslice.io/v1alpha1\nkind: Cluster\nmetadata: {name: one, labels: {a: b}}\nspec: {nodeIPs: [192.0.2.1]}")
	p.until("the label is seen", func() bool {
		for _, o := range one.hub.list("Cluster") {
			if o.GetLabels()["a"] == "b" {
				return true
			}
		}
		return false
	})
	if again := p.settle(one, two); again != settled {
		t.Errorf("%d writes for nothing", again-settled)
	}
	p.until("an event", func() bool { return p.event("WorkerSliceConfigCreated") })
}

// settle waits until nothing was written for two seconds and returns how much was
// until then.
func (p *project1) settle(nodes ...*fakeNode) uint64 {
	p.t.Helper()
	sum := func() (s uint64) {
		for _, n := range nodes {
			s += n.hub.Status().Writes
		}
		return s
	}
	last, since := sum(), time.Now()
	p.until("calm", func() bool {
		if now := sum(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 2*time.Second
	})
	return last
}

func (p *project1) event(name string) bool {
	p.t.Helper()
	list, err := p.client.Dynamic.Resource(eventsResource).Namespace(p.namespace).List(p.ctx, listAll)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, e := range list.Items {
		if e.GetLabels()["eventTitle"] == name {
			return true
		}
	}
	return false
}

func TestARefusedChangeLeavesTheVersionBefore(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	p.put(sliceText, "blue", "10.2.0.0/16")
	n := p.node("one", nil, nil)
	p.until("the slices", func() bool { return n.slices() == "blue red" })
	// blue asks for the namespace of red: the server cannot tell.
	p.put(strings.ReplaceAll(sliceText, "%[1]s-app", "red-app"), "blue", "10.2.0.0/16")
	p.until("refused, with a condition", func() bool {
		c := conditionOf(p.get("SliceConfig", "blue"), "Accepted")
		return c != nil && c["status"] == "False" && c["reason"] == "RefusedUpdate" && strings.Contains(c["message"].(string), "red-app")
	})
	if n.slices() != "blue red" {
		t.Errorf("slices %q", n.slices())
	}
	p.until("an event says so", func() bool { return p.event("HubObjectRefused") })
	p.put(sliceText, "blue", "10.2.0.0/16")
	p.until("put right", func() bool {
		c := conditionOf(p.get("SliceConfig", "blue"), "Accepted")
		return c != nil && c["status"] == "True" && n.slices() == "blue red"
	})
}

func TestKubeSlicesControllerIsLeftAlone(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	// As the controller writes it: two is first there.
	p.put(`apiVersion: worker.kubeslice.io/v1alpha1
kind: WorkerSliceConfig
metadata: {name: red-two, labels: {worker-cluster: two, original-slice-name: red, kubeslice-manager: controller}}
spec: {sliceName: red, octet: 0, clusterSubnetCIDR: 10.1.0.0/20}`)
	n := p.node("one", nil, nil)
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}})
	p.until("the worker's part is told", func() bool {
		return field(p.get("Cluster", "one"), "status", "registrationStatus") == "Registered"
	})
	p.settle(n)
	if c := p.count("WorkerSliceConfig"); c != 1 {
		t.Errorf("%d WorkerSliceConfigs: the controller's work was done for it", c)
	}
	p.until("its octets are taken", func() bool {
		m := n.meshNow()
		s, ok := m.Slice("red")
		if !ok {
			return false
		}
		two, _ := s.Site("two")
		one, _ := s.Site("one")
		return two.Index == 0 && one.Index == 1
	})
}

func TestMergeRefusesNoMoreThanWhatIsWrong(t *testing.T) {
	read := func(text string) documents {
		ds := documents{}
		for _, doc := range strings.Split(text, "---\n") {
			set, problems := manifest.Parse("x", []byte(doc))
			if manifest.HasErrors(problems) || len(set.Objects) != 1 {
				t.Fatalf("%v in %s", problems, doc)
			}
			o := set.Objects[0]
			d := &document{ID: idPrefix + o.Kind + "/" + o.Namespace + "/" + o.Name, Kind: o.Kind, Rev: doc, Body: []byte(doc)}
			d.parse()
			ds[d.ID] = d
		}
		return ds
	}
	config := func(name, namespace string) string {
		return "apiVersion: controller.kubeslice.io/v1alpha1\nkind: SliceConfig\nmetadata: {name: " + name + ", namespace: n}\nspec:\n  sliceSubnet: 10.1.0.0/16\n  sliceGatewayProvider: {}\n  clusters: [one, two]\n  standardQosProfileName: default\n  namespaceIsolationProfile: {applicationNamespaces: [{namespace: " + namespace + ", clusters: ['*']}]}\n"
	}
	octet := func(name, cluster, n string) string {
		return "apiVersion: worker.kubeslice.io/v1alpha1\nkind: WorkerSliceConfig\nmetadata: {name: " + name + ", namespace: n, labels: {worker-cluster: " + cluster + "}}\nspec: {sliceName: red, octet: " + n + "}\n"
	}
	good := read(config("red", "a") + "---\n" + octet("red-one", "one", "0"))
	for _, c := range []struct {
		name, text string
		slices     string
		refused    string // the names of objects, comma-separated
	}{
		{"all is well", config("red", "a") + "---\n" + octet("red-one", "one", "0"), "red", ""},
		{"another slice asks for the namespace", config("red", "a") + "---\n" + octet("red-one", "one", "0") + "---\n" + config("blue", "a"), "red", "blue"},
		{"another octet that is taken, by a name that comes first", config("red", "a") + "---\n" + octet("red-one", "one", "0") + "---\n" + octet("aaa", "two", "0"), "red", "aaa"},
		{"a new slice without the namespace", config("red", "a") + "---\n" + octet("red-one", "one", "0") + "---\n" + config("blue", "b"), "blue red", ""},
	} {
		m := merge(&manifest.Set{}, read(c.text), good, manifest.Options{})
		var names, refused []string
		for _, s := range m.mesh.Slices {
			names = append(names, s.Name)
		}
		for id, v := range m.verdicts {
			if v.refused != "" {
				_, _, n := split(id)
				refused = append(refused, n)
			}
		}
		if got := strings.Join(names, " "); got != c.slices || strings.Join(refused, ",") != c.refused {
			t.Errorf("%s: slices %q, refused %q", c.name, got, refused)
		}
	}
}

var _ lister = fixed{}

// fixed is a hub that does not change.
type fixed map[string][]*unstructured.Unstructured

func (f fixed) list(kind string) []*unstructured.Unstructured { return f[kind] }
