//go:build !nokube

package main

import (
	"net/netip"
	"testing"

	"slicewire/overlay"
)

// Endpoints at nodes that are not reached have no names; what others see of the
// service is not changed.
func TestServicesWithoutLostNodes(t *testing.T) {
	gone, here := overlay.NodeID{Site: "west", Node: "gw"}, overlay.NodeID{Site: "east", Node: "gw"}
	v := &overlay.ServiceView{Name: "web", Endpoints: []overlay.EndpointView{
		{Endpoint: overlay.Endpoint{Name: "a"}, Origin: here}, {Endpoint: overlay.Endpoint{Name: "b"}, Origin: gone},
	}}
	if got := without(v, map[overlay.NodeID]bool{gone: true}); len(got.Endpoints) != 1 || got.Endpoints[0].Name != "a" || got.Name != "web" {
		t.Errorf("got %+v", got)
	}
	if len(v.Endpoints) != 2 || v.Endpoints[1].Name != "b" {
		t.Errorf("the view was changed: %+v", v)
	}
	if got := without(v, nil); len(got.Endpoints) != 2 {
		t.Errorf("with nobody lost: %+v", got)
	}
}

func TestWhereThePodIsAsked(t *testing.T) {
	for _, c := range [][3]string{
		{"0.0.0.0:1053", "10.0.0.7", "10.0.0.7:1053"}, {"127.0.0.1:1053", "10.0.0.7", "127.0.0.1:1053"},
		{"[::]:1053", "10.0.0.7", "[::]:1053"}, {"0.0.0.0:1053", "fd00::7", "0.0.0.0:1053"}, {"name:1053", "10.0.0.7", "name:1053"},
	} {
		if got := ofPod(c[0], netip.MustParseAddr(c[1])); got != c[2] {
			t.Errorf("%s of %s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
}
