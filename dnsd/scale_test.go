package dnsd

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"slicewire/overlay"
)

// bigSlice is a slice of 10,000 services with 50,000 endpoints at five sites,
// as its records say it.
func bigSlice(t testing.TB) (*overlay.Slice, []overlay.Record) {
	t.Helper()
	s := &overlay.Slice{Name: "blue", Mode: overlay.SingleNetwork, Subnet: netip.MustParsePrefix("10.0.0.0/8"), Subnet6: overlay.SliceSubnet6("m", "blue"),
		Namespaces: []overlay.NamespaceBinding{{Namespace: "shop", Sites: []string{"*"}}}}
	var records []overlay.Record
	for site := range 5 {
		name := fmt.Sprintf("site-%d", site)
		s.Sites = append(s.Sites, overlay.SliceSite{Name: name, Index: site})
		for i := range 10_000 {
			a6 := [16]byte{0: 0xfd, 8: byte(site), 14: byte(i >> 8), 15: byte(i)}
			records = append(records, overlay.Record{
				Origin: overlay.NodeID{Site: name, Node: "n1"}, Key: overlay.Key{Kind: overlay.KindService, Slice: "blue", Name: fmt.Sprintf("shop/service-%d", i)},
				Service: &overlay.ServiceBody{
					Ports:     []overlay.ServicePort{{Name: "http", Port: 80, Protocol: overlay.TCP}},
					Endpoints: []overlay.Endpoint{{Name: "pod-0", Addr: netip.AddrFrom4([4]byte{10, byte(site), byte(i >> 8), byte(i)}), Addr6: netip.AddrFrom16(a6)}},
				},
			})
		}
	}
	return s, records
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// What a large slice's names cost beside its records.
func TestTenThousandServices(t *testing.T) {
	s, records := bigSlice(t)
	before := heap()
	start := time.Now()
	v := overlay.Look(overlay.NodeID{Site: "site-0", Node: "n1"}, s, &overlay.Attachment{Slice: "blue"}, records)
	looked := time.Since(start)
	srv, err := New(Config{Zones: []string{overlay.Zone, overlay.ClusterSetZone}})
	if err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	srv.Set(View{Services: v.Services, Reverse: []netip.Prefix{s.Subnet}})
	set := time.Since(start)
	cost := heap() - before
	t.Logf("view in %v, names in %v, %.1f MiB", looked, set, float64(cost)/(1<<20))
	if got, ok := srv.Lookup("service-9999.shop.svc.clusterset.local"); !ok || len(got) != 10 {
		t.Errorf("got %v", got)
	}
	if cost > 48<<20 {
		t.Errorf("names take %d MiB", cost>>20)
	}
	if total := looked + set; total > time.Minute { // many times what it takes on a busy machine: a square somewhere
		t.Errorf("a change takes %v", total)
	}
	runtime.KeepAlive(records)
	runtime.KeepAlive(v)
}
