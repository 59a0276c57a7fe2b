package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	clientrest "k8s.io/client-go/rest"

	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

const system = overlay.SystemNamespace

const redConfig = `
apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: red}
spec:
  sliceSubnet: 10.1.0.0/16
  clusters: [west, east, north]
  qosProfileDetails: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 5120, bandwidthGuaranteedKbps: 2560, dscpClass: AF11}
  sliceGatewayProvider: {sliceGatewayType: OpenVPN, sliceCaType: Local}
  namespaceIsolationProfile:
    isolationEnabled: true
    applicationNamespaces: [{namespace: shop, clusters: [east]}, {namespace: none, clusters: ["*"]}]
    allowedNamespaces: [{namespace: metrics, clusters: ["*"]}]
`

// toldOf makes a state of red in which KubeSlice's users see it: the tunnel to west is
// as that says, and of the one to north nothing is known.
func toldOf(t *testing.T, namespace string, west Tunnel, services ...overlay.ServiceView) *State {
	t.Helper()
	set, problems := manifest.Parse("x", []byte(strings.ReplaceAll(redConfig, "namespace: shop", "namespace: "+namespace)))
	mesh, more := manifest.Build(set, manifest.Options{})
	if manifest.HasErrors(problems) || manifest.HasErrors(more) {
		t.Fatal(problems, more)
	}
	state := in(namespace, services...)
	w := manifest.WorkerSlices(set, &mesh, "east")["red"]
	state.Slices[0].Worker = &Worker{Config: w.Config}
	for _, g := range w.Gateways {
		x := Gateway{WorkerSliceGatewaySpec: g, NodePorts: []uint16{31820}}
		if g.RemoteGatewayConfig.ClusterName == "west" {
			x.RemoteIPs, x.RemotePorts, x.Tunnel = []string{"192.0.2.7"}, []uint16{31821, 31822}, west
		}
		state.Slices[0].Worker.Gateways = append(state.Slices[0].Worker.Gateways, x)
	}
	return state
}

// gatewayPod is a pod of slicewire's, ready.
func gatewayPod(name, ip string) string {
	return strings.Replace(pod("slicewire-system", name, "x", ip), "app: x", "app.kubernetes.io/name: slicewire", 1)
}

// Of several replicas every Slice and SliceGateway is written by one, and what one of
// them writes no other takes away.
func TestOneReplicaWritesASlice(t *testing.T) {
	addrs := []string{"10.244.0.2", "10.244.0.3", "10.244.0.4"}
	parts := []string{namespace("shop"), namespace(system), gatewayPod("slicewire-0", addrs[0]), gatewayPod("slicewire-1", addrs[1]), unready(gatewayPod("slicewire-2", addrs[2]))}
	ours := func(kind, name string) string {
		return "{apiVersion: networking.kubeslice.io/v1beta1, kind: " + kind + ", metadata: {name: " + name + ", namespace: " + system + ", labels: {app.kubernetes.io/managed-by: slicewire}}}"
	}
	all := []Ref{{KindSlice, system, "red"}, {KindSliceGateway, system, "red-east-west"}, {KindSliceGateway, system, "red-east-north"}}
	for _, r := range all {
		parts = append(parts, ours(kinds()[r.Kind].kind, r.Name))
	}
	parts = append(parts, ours("Slice", "gone"), ours("SliceGateway", "gone-east-west"))
	o := read(t, parts...)
	writes, removes := map[Ref]int{}, map[string]int{}
	for _, a := range addrs {
		s := here()
		s.self = netip.MustParseAddr(a)
		p := work(o, toldOf(t, "shop", TunnelUp), s, nil)
		for i := range p.wants {
			if k := p.wants[i].Kind; k == KindSlice || k == KindSliceGateway {
				if writes[p.wants[i].Ref]++; a == addrs[2] {
					t.Errorf("a pod that is not ready writes %v", p.wants[i].Ref)
				}
			}
		}
		for _, x := range p.unwanted(s) {
			removes[x.Name]++
		}
	}
	for _, r := range all {
		if writes[r] != 1 {
			t.Errorf("%d replicas write %v", writes[r], r)
		}
	}
	if want := map[string]int{"gone": 1, "gone-east-west": 1}; !reflect.DeepEqual(removes, want) {
		t.Errorf("removed are %v, want %v", removes, want)
	}
}

// Where KubeSlice's namespace is missing or its operator runs nothing is written,
// and what was goes.
func TestWhereNoSliceIsWritten(t *testing.T) {
	mine := "{apiVersion: networking.kubeslice.io/v1beta1, kind: Slice, metadata: {name: red, namespace: " + system + ", labels: {app.kubernetes.io/managed-by: slicewire}}}"
	ending := "{apiVersion: v1, kind: Namespace, metadata: {name: " + system + `, deletionTimestamp: "2026-01-02T03:04:05Z"}}`
	operator := pod(system, "kubeslice-operator-5d9f-x7k2p", "operator", "10.244.3.1")
	for _, c := range []struct {
		name  string
		parts []string
		mute  string
		goes  int
	}{
		{"the namespace and nobody else", []string{namespace(system), mine}, "", 0},
		{"no namespace", nil, "there is no namespace kubeslice-system", 0},
		{"a namespace that ends", []string{ending, mine}, "there is no namespace kubeslice-system", 1},
		{"an operator", []string{namespace(system), operator, mine}, "KubeSlice's operator runs, as pod kubeslice-system/kubeslice-operator-5d9f-x7k2p", 1},
		{"an operator that has ended", []string{namespace(system), strings.Replace(operator, "Running", "Succeeded", 1), mine}, "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := work(read(t, append(c.parts, namespace("shop"))...), toldOf(t, "shop", TunnelUp), here(), nil)
			if p.mute != c.mute || (p.wanted(KindSlice, system, "red") != nil) != (c.mute == "") || len(p.unwanted(here())) != c.goes {
				t.Errorf("mute %q, wanted %v, unwanted %v", p.mute, p.wanted(KindSlice, system, "red"), p.unwanted(here()))
			}
		})
	}
	if p := work(read(t, namespace("shop")), in("shop"), here(), nil); p.mute != "" {
		t.Errorf("of a slice that no manifest has it is said that %s", p.mute)
	}
}

// Why there are no Slices is said once, and again when it is something else; not where
// the cluster has no such kind.
func TestWhyThereAreNoSlicesIsSaidOnce(t *testing.T) {
	var said strings.Builder
	c := &Cluster{cfg: Config{Log: slog.New(slog.NewTextHandler(&said, nil))}}
	for i, x := range []struct {
		mute  string
		has   bool
		lines int
	}{{"a", false, 0}, {"a", true, 1}, {"a", true, 1}, {"b", true, 2}, {"", true, 2}, {"b", true, 3}} {
		c.setting.has[KindSlice] = x.has
		c.sayMute(&plan{mute: x.mute})
		if n := strings.Count(said.String(), "\n"); n != x.lines {
			t.Errorf("step %d: %d lines, want %d:\n%s", i, n, x.lines, said.String())
		}
	}
}

// impersonate makes a client of a service account that may do what
// deploy/rbac/cluster.yaml says, and returns the role and the user, too.
func (f *fixture) impersonate(account string) (client *kube.Client, role *unstructured.Unstructured, user string) {
	f.t.Helper()
	shipped, err := os.ReadFile("../../deploy/rbac/cluster.yaml")
	if err != nil {
		f.t.Fatal(err)
	}
	text := strings.NewReplacer("name: slicewire,", "name: "+account+",", "name: slicewire-cluster", "name: "+account+"-cluster").Replace(string(shipped))
	f.put(text)
	objects, err := apitest.Read([]byte(text))
	if err != nil {
		f.t.Fatal(err)
	}
	for _, o := range objects {
		if o.GetKind() == "ClusterRole" {
			role = o
		}
	}
	user = "system:serviceaccount:slicewire-system:" + account
	config := clientrest.CopyConfig(server.Config)
	config.Impersonate.UserName = user
	config.QPS, config.Burst = 2000, 4000
	if client, err = kube.NewClient(config, "test"); err != nil {
		f.t.Fatal(err)
	}
	return client, role, user
}

// What KubeSlice's users look at comes, says what is so, follows when a tunnel goes
// down, and goes with the slice; what others made stays as it is, and while nothing
// happens nothing is written. The rights are those that are shipped.
func TestSlicesAndSliceGatewaysOfACluster(t *testing.T) {
	f := defined(t)
	const ns = "told"
	move := strings.NewReplacer("shop", ns)
	f.put(namespace("slicewire-system"), namespace(system), namespace(ns), namespace("metrics"), gatewayPod("slicewire-0", "10.244.0.2"),
		move.Replace(pod("shop", "web-a", "web", "10.244.1.1")), move.Replace(web), move.Replace(service("web", "{ports: [{name: http, port: 80}]}")), move.Replace(mcs("web")),
		"{apiVersion: v1, kind: Service, metadata: {name: slicewire-dns, namespace: slicewire-system}, spec: {ports: [{name: dns, port: 53, protocol: UDP}]}}",
		`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: slicewire-dns-1, namespace: slicewire-system, labels: {kubernetes.io/service-name: slicewire-dns}}, addressType: IPv4, endpoints: [{addresses: ["10.244.0.2"]}]}`,
		"{apiVersion: networking.kubeslice.io/v1beta1, kind: SliceGateway, metadata: {name: red-east-north, namespace: "+system+"}, spec: {sliceName: theirs}}")
	admin := f.client
	client, role, user := f.impersonate("slicewire")
	f.client = client
	f.run(Config{})
	f.client = admin
	v, far := view(overlay.Headless, "east/web-a", "west/web-x7k2p"), view(overlay.Virtual, "west/far-1")
	far.Name = "far"
	f.Set(toldOf(t, ns, TunnelUp, v, far))

	dns := text(f.get(KindService, "slicewire-system", "slicewire-dns").Object, "spec", "clusterIP")
	profile := map[string]any{"isolationEnabled": true, "applicationNamespaces": []any{ns, "none"}, "allowedNamespaces": []any{"metrics"}}
	wantSlice := map[string]any{
		"sliceConfig": map[string]any{
			"sliceId": "", "sliceDisplayName": "red", "sliceSubnet": "10.1.0.0/16", "sliceType": "Application", "clusterSubnetCIDR": "10.1.16.0/20",
			"sliceIpam": map[string]any{"sliceIpamType": "Local", "ipamClusterOctet": int64(1)}, "sliceOverlayNetworkDeploymentMode": "single-network",
			"sliceGatewayServiceType": "NodePort", "sliceGatewayProtocol": "UDP", "namespaceIsolationProfile": profile,
			"qosProfileDetails": map[string]any{"queueType": "HTB", "tcType": "BANDWIDTH_CONTROL", "priority": int64(1), "dscpClass": "AF11", "bandwidthCeilingKbps": int64(5120), "bandwidthGuaranteedKbps": int64(2560)},
		},
		"applicationNamespaces": []any{ns}, "allowedNamespaces": []any{"metrics", "slicewire-system", system, "kube-system"}, "networkPoliciesInstalled": true, "dnsIP": dns,
		"appPods": []any{map[string]any{"podName": "web-a", "podNamespace": ns, "podIp": "10.244.1.1", "nsmIp": "10.1.0.10"}},
	}
	gateway := func(tunnel string) map[string]any {
		return map[string]any{
			"config": map[string]any{
				"sliceName": "red", "sliceGatewayId": "red-east-west", "sliceGatewayName": "0", "sliceGatewayType": "Wireguard", "sliceGatewayHostType": "Client",
				"sliceGatewaySubnet": "10.1.16.0/20", "sliceGatewayRemoteSubnet": "10.1.0.0/20", "sliceGatewayConnectivityType": "NodePort", "sliceGatewayProtocol": "UDP",
				"sliceGatewayRemoteClusterId": "west", "sliceGatewayRemoteGatewayId": "red-west-east", "sliceGatewayNodePorts": []any{int64(31820)},
				"sliceGatewayRemoteNodePorts": []any{int64(31821), int64(31822)}, "sliceGatewayRemoteNodeIps": []any{"192.0.2.7"},
			},
			"podNames":         []any{"slicewire-0"},
			"gatewayPodStatus": []any{map[string]any{"podName": "slicewire-0", "podIP": "10.244.0.2", "tunnelStatus": map[string]any{"TunnelState": tunnel}}},
		}
	}
	says := func(kind Kind, name string, want map[string]any) func() error {
		return func() error {
			u := f.get(kind, system, name)
			if u == nil {
				return fmt.Errorf("no %s %s", kinds()[kind].kind, name)
			}
			if got := u.Object["status"]; !reflect.DeepEqual(got, any(want)) || !kube.Ours(u) {
				return fmt.Errorf("%s %s has labels %v and says\n%v, want\n%v; fault %s", kinds()[kind].kind, name, u.GetLabels(), got, want, f.Status().Fault)
			}
			return nil
		}
	}
	f.eventually(says(KindSlice, "red", wantSlice))
	f.eventually(says(KindSliceGateway, "red-east-west", gateway("UP")))
	if u := f.get(KindSliceGateway, system, "red-east-west"); text(u.Object, "spec", "sliceName") != "red" || text(u.Object, "spec", "siteName") != "east" || u.GetLabels()[kube.LabelSlice] != "red" {
		t.Errorf("the gateway's spec is %v, its labels %v", u.Object["spec"], u.GetLabels())
	}
	f.still(2 * time.Second)

	before := f.Status().Writes
	f.Set(toldOf(t, ns, TunnelUp, v, far))
	f.still(time.Second)
	if n := f.Status().Writes - before; n != 0 {
		t.Errorf("%d requests write the same again", n)
	}
	f.Set(toldOf(t, ns, TunnelDown, v, far))
	f.eventually(says(KindSliceGateway, "red-east-west", gateway("DOWN")))
	f.still(time.Second)
	if n := f.Status().Writes - before; n != 1 {
		t.Errorf("%d requests for a tunnel that went down", n)
	}

	f.Set(&State{Site: "east"})
	f.eventually(func() error {
		if f.get(KindSlice, system, "red") != nil || f.get(KindSliceGateway, system, "red-east-west") != nil || f.get(KindService, ns, "slicewire-"+short(ns, "far")) != nil {
			return errors.New("it is still there without the slice")
		}
		return nil
	})
	f.still(time.Second)
	if u := f.get(KindSliceGateway, system, "red-east-north"); u == nil || text(u.Object, "spec", "sliceName") != "theirs" || u.Object["status"] != nil || len(u.GetLabels()) != 0 {
		t.Errorf("what others made is %v", u)
	}
	f.stop()
	f.again(t, client, toldOf(t, ns, TunnelUp, v, far))
	made := server.Requests(t, user)
	for _, r := range made {
		if r.ResponseStatus.Code == http.StatusForbidden {
			t.Errorf("denied: %s %s", r.Verb, r.RequestURI)
		}
	}
	if rights := apitest.CheckUsed(t, role, made); rights < 40 {
		t.Errorf("%d rights", rights)
	}
	f.remove(KindPod, "slicewire-system", "slicewire-0") // other tests have none there
	f.remove(KindService, "slicewire-system", "slicewire-dns")
	f.remove(KindEndpointSlice, "slicewire-system", "slicewire-dns-1")
	f.remove(KindSliceGateway, system, "red-east-north")
}

// again runs a Cluster once more, on an API server that lists as old ones do, until
// it has written the Slice of a state and taken it away.
func (f *fixture) again(t *testing.T, client *kube.Client, state *State) {
	t.Helper()
	start := func(flags ...string) {
		server.StopAPI()
		server.Flags = flags
		if err := server.StartAPI(); err != nil {
			t.Fatal(err)
		}
	}
	start("--feature-gates=WatchList=false")
	defer start()
	admin := f.client
	f.client = client
	f.run(Config{})
	f.client = admin
	f.Set(state)
	there := func(want bool) func() error {
		return func() error {
			if got := f.get(KindSlice, system, "red") != nil; got != want {
				return fmt.Errorf("the Slice is there: %v, fault %s", got, f.Status().Fault)
			}
			return nil
		}
	}
	f.eventually(there(true))
	f.still(time.Second)
	f.Set(&State{Site: "east"})
	f.eventually(there(false))
	f.still(time.Second)
	f.stop()
}
