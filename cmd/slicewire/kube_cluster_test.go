//go:build !nokube

package main

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

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

// Until a node of another site has been heard of, what the others export is not
// known; where there are no others, there is nothing to wait for.
func TestWhoHearsNobody(t *testing.T) {
	alone := &overlay.Mesh{Slices: []overlay.Slice{{Name: "red", Sites: []overlay.SliceSite{{Name: "east"}}}, {Name: "blue", Sites: []overlay.SliceSite{{Name: "west"}, {Name: "north"}}}}}
	joined := &overlay.Mesh{Slices: []overlay.Slice{{Name: "red", Sites: []overlay.SliceSite{{Name: "west"}, {Name: "east"}}}}}
	of := func(sites ...string) (out []overlay.Record) {
		for _, s := range sites {
			out = append(out, overlay.Record{Origin: overlay.NodeID{Site: s, Node: "gw"}})
		}
		return out
	}
	for _, c := range []struct {
		name    string
		mesh    *overlay.Mesh
		records []overlay.Record
		want    bool
	}{
		{"nothing is configured", &overlay.Mesh{}, nil, false},
		{"no slice is shared", alone, of("east"), false},
		{"only its own site", joined, of("east", "east"), true},
		{"nobody", joined, nil, true},
		{"another site", joined, of("east", "west"), false},
	} {
		if got := hearsNobody("east", c.mesh, c.records); got != c.want {
			t.Errorf("%s: hearsNobody is %v", c.name, got)
		}
	}
}

// Who is about to end goes on until nobody has come for a while, or for long.
func TestCallsEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		until time.Duration // somebody comes every 200 ms for so long
		quiet bool
		waits time.Duration
	}{
		{"nobody comes", 0, true, time.Second},
		{"they come for three seconds", 3 * time.Second, true, 4 * time.Second},
		{"they do not end", time.Hour, false, 10 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			var k calls
			ended := make(chan struct{})
			began := time.Now()
			go func() {
				defer close(ended)
				for time.Since(began) < c.until && ctx.Err() == nil {
					k.came()
					time.Sleep(200 * time.Millisecond)
				}
			}()
			if got := k.quiet(t.Context(), time.Second, 10*time.Second); got != c.quiet {
				t.Errorf("%s: quiet is %v", c.name, got)
			}
			if took := time.Since(began); took < c.waits-200*time.Millisecond || took > c.waits+200*time.Millisecond {
				t.Errorf("%s: it took %v, want %v", c.name, took, c.waits)
			}
			stop()
			<-ended
		})
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
