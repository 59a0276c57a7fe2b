package overlay

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func namespaced(isolated bool) *Slice {
	return &Slice{
		Name: "red", Isolated: isolated, Sites: []SliceSite{{Name: "a"}, {Name: "b"}},
		Namespaces: []NamespaceBinding{{"shop", []string{"*"}}, {"bank", []string{"b"}}}, Allowed: []NamespaceBinding{{"tools", []string{"a"}}},
	}
}

func TestNamespaceFor(t *testing.T) {
	for _, tt := range []struct {
		name        string
		isolated    bool
		site, asked string
		want, err   string
	}{
		{"the only one is taken for granted", true, "a", "", "shop", ""},
		{"one of several has to be chosen", true, "b", "", "", "choose one of shop, bank"},
		{"without isolation nobody has to choose", false, "b", "", "", ""},
		{"what is asked for is given", true, "b", "bank", "bank", ""},
		{"an allowed one may be asked for", true, "a", "tools", "tools", ""},
		{"one of another site may not", true, "a", "bank", "", "not on slice red at site a"},
		{"one that there is not may not", false, "b", "nowhere", "", "not on slice red at site b"},
	} {
		got, err := namespaced(tt.isolated).NamespaceFor(tt.site, tt.asked)
		if got != tt.want || (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

// A node is believed about its own workloads only, and only in namespaces of its site.
func TestWorkloadsAreToldAndBelieved(t *testing.T) {
	at := netip.MustParseAddr
	a := Attachment{Slice: "red", Workloads: []AttachedWorkload{
		{Name: "web", Namespace: "shop", BackendAddr: BackendAddr{Addr: at("10.1.0.5"), Addr6: at("fd00::5")}},
		{Name: "/run/netns/x/sw0", Namespace: "shop", BackendAddr: BackendAddr{Addr: at("10.1.0.6"), Addr6: at("fd00::6")}},
		{Name: "workload--1", Namespace: "shop", BackendAddr: BackendAddr{Addr: at("10.1.0.7"), Addr6: at("fd00::7")}},
		{Name: "nobody", BackendAddr: BackendAddr{Addr: at("10.1.0.8"), Addr6: at("fd00::8")}},
		{Name: "till", Namespace: "bank", BackendAddr: BackendAddr{Addr: at("10.1.0.9"), Addr6: at("fd00::9")}},
	}}
	id := NodeID{Site: "a", Node: "n"}
	now := time.Unix(1e9, 0)
	told := tellWorkloads(id, &a)
	authority := Authority{ID: id, NotAfter: now.Add(time.Hour), Grants: []Grant{{Slice: "red", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24"), netip.MustParsePrefix("fd00::/64")}}}}
	for i := range told {
		told[i].NotAfter = now.Add(time.Minute)
		if err := authority.Permits(told[i], now); err != nil {
			t.Errorf("%+v: %v", told[i].Key, err)
		}
	}
	seen := lookWorkloads(namespaced(true), told)
	if len(told) != 2 || len(seen) != 3 { // bank is none of site a's
		t.Fatalf("%d records, %+v", len(told), seen)
	}
	names := make(map[string]bool)
	for _, w := range seen {
		names[w.Name] = true
		if w.Namespace != "shop" || w.Origin != id {
			t.Errorf("%+v", w)
		}
	}
	if len(names) != 3 || !names["web"] {
		t.Errorf("%v", names)
	}
	foreign := told[0]
	foreign.Service = &ServiceBody{Endpoints: []Endpoint{{Name: "x", Addr: at("10.1.9.9")}}}
	if err := authority.Permits(foreign, now); !errors.Is(err, RefusedAddress) {
		t.Errorf("an address of another node: %v", err)
	}
	foreign.Service = &ServiceBody{Aliases: []string{"x.example"}}
	if err := authority.Permits(foreign, now); !errors.Is(err, RefusedBody) {
		t.Errorf("a name among workloads: %v", err)
	}
}

// A service's virtual address is the service's, for isolation and for policies
// that pick the service, and of no site.
func TestVirtualAddressesAreTheirServices(t *testing.T) {
	virtual := netip.MustParseAddr("198.18.3.4")
	picked := func(s *Slice, x Selector) bool {
		v := View{Services: []ServiceView{{Namespace: "bank", Name: "till", Type: Virtual, Virtual: virtual}}}
		known := Know(NodeID{"a", "n"}, &Attachment{}, &v)
		if s.Isolated {
			return slices.ContainsFunc(CompileRules(s, nil, known)[0].Peer, func(b Block) bool { return b.Contains(virtual) })
		}
		return slices.ContainsFunc(x.blocks(s, nil, known), func(b Block) bool { return b.Contains(virtual) })
	}
	elsewhere := namespaced(true)
	elsewhere.Namespaces = elsewhere.Namespaces[:1]
	for _, tt := range []struct {
		name string
		s    *Slice
		x    Selector
		want bool
	}{
		{"isolation lets to a service of a namespace that the slice has, at any site", namespaced(true), Selector{}, true},
		{"not to one of a namespace that it has nowhere", elsewhere, Selector{}, false},
		{"the service is picked", namespaced(false), Selector{Services: []string{"bank/till"}}, true},
		{"its namespace is picked", namespaced(false), Selector{Namespaces: []string{"bank"}}, true},
		{"another service is not it", namespaced(false), Selector{Services: []string{"shop/till"}}, false},
		{"endpoints of one site are not all that it leads to", namespaced(false), Selector{Services: []string{"bank/till"}, Sites: []string{"a"}}, false},
	} {
		if got := picked(tt.s, tt.x); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
