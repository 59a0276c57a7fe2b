package hub

import (
	"context"
	"os"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube/apitest"
	"slicewire/overlay"
)

func TestWorkersSayHowTheirPartsAre(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	n := p.node("one", nil, nil)
	web := Export{Slice: "red", Namespace: "red-app", Name: "web", Ports: []overlay.ServicePort{{Port: 80, Protocol: "TCP"}}, Endpoints: []overlay.Endpoint{{Name: "pod-1"}}}
	facts := func(up bool, rtt time.Duration, sites ...string) Facts {
		f := Facts{NodeIPs: []string{"198.51.100.7"}, Exports: []Export{web}, Links: []Link{}, PodIPs: map[string]string{"red-app/pod-1": "10.244.1.1", "other/pod-1": "10.244.1.2"}}
		for _, s := range sites {
			f.Links = append(f.Links, Link{Slice: "red", Site: s, Up: up, RTT: rtt})
		}
		return f
	}
	state := func(name string) any { return field(p.get("WorkerSliceGateway", name), "status", "connectionState") }
	health := func() any {
		return field(p.get("WorkerSliceConfig", "red-one"), "status", "sliceHealth", "sliceHealthStatus")
	}
	n.hub.Tell(facts(false, 0))
	p.until("nobody is known", func() bool { return state("red-one-two") == pending })
	n.hub.Tell(facts(true, 3400*time.Microsecond, "two"))
	p.until("connected", func() bool { return state("red-one-two") == connected && health() == "Normal" })
	o := p.get("WorkerSliceGateway", "red-one-two")
	if rtt := field(o, "status", "gatewayMetrics", "avgLatency"); rtt != int64(3) {
		t.Errorf("avgLatency %v, want 3", rtt)
	}
	if c := conditionOf(o, "Connected"); c == nil || c["status"] != "True" || c["observedGeneration"] != o.GetGeneration() {
		t.Errorf("condition %v of generation %d", c, o.GetGeneration())
	}
	w := p.get("WorkerSliceConfig", "red-one")
	pods, _ := field(w, "status", "connectedAppPods").([]any)
	namespaces, _ := field(w, "status", "onboardedAppNamespaces").([]any)
	if len(pods) != 1 || pods[0].(map[string]any)["podName"] != "pod-1" || pods[0].(map[string]any)["podIp"] != "10.244.1.1" || len(namespaces) != 1 || namespaces[0].(map[string]any)["name"] != "red-app" {
		t.Errorf("pods %v, namespaces %v", pods, namespaces)
	}
	for _, kind := range []string{"WorkerSliceConfig", "WorkerSliceGateway"} {
		name := map[string]string{"WorkerSliceConfig": "red-two", "WorkerSliceGateway": "red-two-one"}[kind]
		if s := field(p.get(kind, name), "status"); s != nil {
			t.Errorf("%s %s, of another site, was told %v", kind, name, s)
		}
	}
	settled := p.settle(n)
	n.hub.Tell(facts(true, 5*time.Millisecond, "two")) // as it is all the time
	if again := p.settle(n); again != settled {
		t.Errorf("%d writes for a round trip that is no other", again-settled)
	}
	n.hub.Tell(facts(false, 0, "two"))
	p.until("not connected", func() bool { return state("red-one-two") == notConnected && health() == "Warning" })
	p.until("an event", func() bool { return p.event("WorkerSliceHealthUpdated") })
	if up := n.sample("kubeslice_slice_component_up", "red"); up != 0 {
		t.Errorf("kubeslice_slice_component_up %v", up)
	}
	if pods := n.sample("kubeslice_app_pods", "red"); pods != 1 {
		t.Errorf("kubeslice_app_pods %v", pods)
	}
}

// KubeSlice's definitions have no place for the state of a tunnel: it is left out,
// and all else is said.
func TestADefinitionWithoutRoomStopsNothing(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	text, err := os.ReadFile("../../deploy/crds/workerslicegateways.worker.kubeslice.io.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := apitest.Read(text)
	if err != nil {
		t.Fatal(err)
	}
	versions, _, _ := unstructured.NestedSlice(objects[0].Object, "spec", "versions")
	unstructured.RemoveNestedField(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "status", "properties", "connectionState")
	if err := unstructured.SetNestedSlice(objects[0].Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	theirs, err := objects[0].MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	p.put("%s", theirs)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := apitest.InstallCRDs(ctx, p.client, "../../deploy/crds"); err != nil {
			t.Error(err)
		}
	})
	n := p.node("one", nil, nil)
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Links: []Link{{Slice: "red", Site: "two", Up: true}}})
	p.until("it is found out", func() bool { return n.hub.lacking("WorkerSliceGateway") })
	p.until("the rest is said", func() bool {
		return field(p.get("WorkerSliceConfig", "red-one"), "status", "sliceHealth", "sliceHealthStatus") == "Normal"
	})
	settled := p.settle(n)
	n.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, Links: []Link{{Slice: "red", Site: "two", Up: true, RTT: time.Second}}})
	if again := p.settle(n); again != settled {
		t.Errorf("%d writes for what there is no room for", again-settled)
	}
}

func TestARoundTripIsToldWhenItIsAnother(t *testing.T) {
	for _, c := range []struct {
		before int64
		rtt    time.Duration
		want   int64
	}{
		{0, 300 * time.Microsecond, 1}, {0, 12 * time.Millisecond, 12}, {12, 15 * time.Millisecond, 12}, {12, 17 * time.Millisecond, 12},
		{12, 18 * time.Millisecond, 18}, {100, 60 * time.Millisecond, 100}, {100, 49 * time.Millisecond, 49}, {1, 5 * time.Millisecond, 1}, {1, 6 * time.Millisecond, 6},
	} {
		if got := steadyMs(c.before, c.rtt); got != c.want {
			t.Errorf("%d and then %v: %d, want %d", c.before, c.rtt, got, c.want)
		}
	}
}

// By what a site's pods prove who they are is told with the worker's narrow Role,
// read by others, and put right when somebody else changes it.
func TestASiteTellsByWhatItsPodsProveWhoTheyAre(t *testing.T) {
	p := newProject(t)
	p.put(clusters+sliceText, "red", "10.1.0.0/16")
	one, two := p.node("one", nil, nil), p.node("two", nil, nil)
	one.hub.Tell(Facts{NodeIPs: []string{"198.51.100.7"}, TokenIssuer: "https://one", TokenKeys: `{"keys":[]}`})
	told := func(issuer string) func() bool {
		return func() bool {
			i, k, err := two.hub.PodTokens("one")
			return err == nil && i == issuer && k == `{"keys":[]}`
		}
	}
	p.until("another site reads it", told("https://one"))
	if _, _, err := two.hub.PodTokens("two"); err == nil {
		t.Error("a site that told nothing has something")
	}
	o := bare(p.get("Cluster", "one"))
	o.Object["status"] = map[string]any{"podTokens": map[string]any{"issuer": "https://thief"}}
	p.applyStatus(o)
	p.until("a change by others is put right", func() bool {
		return field(p.get("Cluster", "one"), "status", "podTokens", "issuer") == "https://one" && told("https://one")()
	})
	one.hub.Tell(Facts{NodeIPs: []string{"198.51.100.8"}}) // by a node that is in no cluster
	p.until("the addresses are others", func() bool {
		ips, _ := field(p.get("Cluster", "one"), "status", "nodeIPs").([]any)
		return len(ips) == 1 && ips[0] == "198.51.100.8"
	})
	if got := field(p.get("Cluster", "one"), "status", "podTokens", "issuer"); got != "https://one" {
		t.Errorf("a node that does not know took it away: %v", got)
	}
}
