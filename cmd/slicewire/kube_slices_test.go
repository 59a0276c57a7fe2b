//go:build !nokube

package main

import (
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"

	"slicewire/gateway"
	"slicewire/kube"
	"slicewire/kube/cluster"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// What the cluster part is told of KubeSlice's slices: who is reached where, and
// which tunnels are up. That a round trip took another time is no news, that a
// tunnel went down is.
func TestWhatAClusterIsToldOfItsTunnels(t *testing.T) {
	set, problems := manifest.Parse("x", []byte("{apiVersion: controller.kubeslice.io/v1alpha1, kind: SliceConfig, metadata: {name: red}, spec: {sliceSubnet: 10.1.0.0/16, clusters: [east, west, north], sliceGatewayProvider: {sliceGatewayType: OpenVPN, sliceCaType: Local}, standardQosProfileName: default}}"))
	mesh, more := manifest.Build(set, manifest.Options{})
	if manifest.HasErrors(problems) || manifest.HasErrors(more) {
		t.Fatal(problems, more)
	}
	at := func(list ...string) (out []netip.AddrPort) {
		for _, s := range list {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	id := func(site, node string) overlay.NodeID { return overlay.NodeID{Site: site, Node: node} }
	nodes := []overlay.Node{
		{ID: id("east", "gw2"), Gateway: true, Endpoints: at("192.0.2.2:31821")}, {ID: id("east", "plain"), Endpoints: at("192.0.2.3:9")},
		{ID: id("west", "gw1"), Gateway: true, Endpoints: at("198.51.100.2:443", "198.51.100.1:51820")}, {ID: id("west", "gw2"), Gateway: true, Endpoints: at("198.51.100.1:51820")},
	}
	links := []gateway.PeerStatus{{Name: "west/gw1", Watched: true}, {Name: "west/gw2", Watched: true, Up: true, RTT: 5}, {Name: "north/gw1"}, {Name: "east/gw2", Watched: true}}
	v := &siteView{mesh: &mesh, worked: (*kubeHub)(nil).worked(set, &mesh, "east"),
		slices:    []sliceView{{self: id("east", "gw1"), node: &sliceNode{name: "red"}, attachment: overlay.Attachment{Slice: "red"}, view: overlay.View{Nodes: nodes}}},
		endpoints: func() []netip.AddrPort { return at("192.0.2.1:31820") }, links: func(string) []gateway.PeerStatus { return links }}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	writeFile(t, path, "{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: x, user: x}}], clusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: x, user: {}}]}")
	client, err := kube.Connect(path, "test")
	if err != nil {
		t.Fatal(err)
	}
	k := &kubeCluster{}
	if k.cluster, err = cluster.New(cluster.Config{Client: client, Namespace: "slicewire-system", Self: netip.MustParseAddr("10.0.0.1")}); err != nil {
		t.Fatal(err)
	}
	k.relinked(v)
	if k.told != nil {
		t.Fatal("it is told of tunnels before it is told of slices")
	}
	k.tell("east", v, nil)
	told := k.told
	w := told.Slices[0].Worker
	if w == nil || len(w.Gateways) != 2 || w.Config.ClusterSubnetCIDR != "10.1.0.0/20" {
		t.Fatalf("told of %+v", w)
	}
	west, north := w.Gateways[0], w.Gateways[1]
	if west.LocalGatewayConfig.GatewayName != "red-east-west" || west.Tunnel != cluster.TunnelUp || north.Tunnel != cluster.TunnelUnknown {
		t.Errorf("west is %q, north %q", west.Tunnel, north.Tunnel)
	}
	if !reflect.DeepEqual(west.NodePorts, []uint16{31820, 31821}) || !reflect.DeepEqual(west.RemoteIPs, []string{"198.51.100.1", "198.51.100.2"}) ||
		!reflect.DeepEqual(west.RemotePorts, []uint16{443, 51820}) || len(north.RemoteIPs) != 0 {
		t.Errorf("west %+v, north %+v", west, north)
	}

	links[1].RTT = 7
	if k.relinked(v); k.told != told {
		t.Error("another round-trip time is news")
	}
	links[1].Up = false
	if k.relinked(v); k.told == told || k.told.Slices[0].Worker.Gateways[0].Tunnel != cluster.TunnelDown {
		t.Error("that no gateway answers is no news")
	}
	if told.Slices[0].Worker.Gateways[0].Tunnel != cluster.TunnelUp || !reflect.DeepEqual(told.Slices[0].Namespaces, k.told.Slices[0].Namespaces) {
		t.Error("what was told before was changed, or more than tunnels")
	}
}
