package overlay

import (
	"net/netip"
	"testing"
)

// What a cluster exports joins what manifests say, in the order that others rely
// on, and leaves the mesh itself as it was.
func TestFurtherServicesOfAMesh(t *testing.T) {
	m := Mesh{Slices: []Slice{{Name: "blue", Services: []Service{{Name: "web", Namespace: "shop"}}}, {Name: "red"}}}
	port := []ServicePort{{"http", 80, TCP}}
	more := m.WithServices([]SliceService{
		{"blue", Service{Name: "db", Namespace: "shop"}}, {"blue", Service{Name: "web", Namespace: "shop", Ports: port}}, {"green", Service{Name: "x", Namespace: "y"}},
	})
	if got := more.Slices[0].Services; len(got) != 2 || got[0].Name != "db" || got[1].Name != "web" || len(got[1].Ports) != 1 {
		t.Errorf("services %+v", got)
	}
	if len(more.Slices[1].Services) != 0 || len(m.Slices[0].Services) != 1 || m.Slices[0].Services[0].Ports != nil {
		t.Errorf("another slice, or the mesh itself, changed: %+v", m)
	}
}

// A service that is exported without a backend is told of, so that others keep
// what stands for it; one with backends once.
func TestAnExportWithoutBackendsIsTold(t *testing.T) {
	web, db := Service{Name: "web", Namespace: "shop"}, Service{Name: "db", Namespace: "shop"}
	a := []Attachment{{Slice: "blue", Backends: []AttachedBackend{{
		Backend: Backend{Slice: "blue", Namespace: "shop", Service: "db", Name: "db-0"}, BackendAddr: BackendAddr{Addr: netip.MustParseAddr("10.1.0.2")}, Service: db,
	}}}}
	AttachExports(a, []SliceService{{"blue", web}, {"blue", db}, {"red", web}})
	got := make(map[string]int)
	for _, r := range Tell(NodeID{"a", "n"}, nil, a, map[string]KeyBody{"blue": {}}) {
		if r.Key.Kind == KindService {
			if _, twice := got[r.Key.Name]; twice {
				t.Errorf("%s is told twice", r.Key.Name)
			}
			got[r.Key.Name] = len(r.Service.Endpoints)
		}
	}
	if len(got) != 2 || got["shop/web"] != 0 || got["shop/db"] != 1 {
		t.Errorf("told %v", got)
	}
}
