package overlay

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestARouteNeedsThreeYeses(t *testing.T) {
	p := netip.MustParsePrefix
	given, granted, block := p("192.168.0.0/16"), p("192.168.7.0/24"), p("10.1.16.0/24")
	mesh := &Mesh{Slices: []Slice{{Name: "red", Sites: []SliceSite{{Name: "west", Routes: []netip.Prefix{given}}, {Name: "east", Routes: []netip.Prefix{p("172.20.0.0/16")}}}}}}
	self := Authority{ID: NodeID{Site: "west", Node: "a"}, Grants: []Grant{{Slice: "red", Prefixes: []netip.Prefix{block, granted}}}}
	for _, c := range []struct {
		name  string
		route SubnetRoute
		up    bool
		says  string
		told  bool
	}{
		{"all agree", SubnetRoute{Slice: "red", Real: granted, Via: "lan"}, true, "", true},
		{"a part of it", SubnetRoute{Slice: "red", Real: p("192.168.7.128/25"), Via: "lan"}, true, "", true},
		{"the way there is down", SubnetRoute{Slice: "red", Real: granted, Via: "lan"}, false, "", false},
		{"the manifests do not give it", SubnetRoute{Slice: "red", Real: p("172.20.1.0/24"), Via: "lan"}, true, "do not give", false},
		{"the certificate does not grant it", SubnetRoute{Slice: "red", Real: p("192.168.8.0/24"), Via: "lan"}, true, "does not grant", false},
		{"more than the certificate grants", SubnetRoute{Slice: "red", Real: given, Via: "lan"}, true, "does not grant", false},
		{"another slice", SubnetRoute{Slice: "blue", Real: granted, Via: "lan"}, true, "", false},
	} {
		all := []Attachment{{Slice: "red", Block: block, Announce: []netip.Prefix{block}}}
		errs := AttachRoutes(mesh, self, all, []SubnetRoute{c.route}, func(slice, via string) bool { return c.up && slice == "red" && via == "lan" })
		fault := ""
		for _, err := range errs {
			fault += err.Error()
		}
		if (fault == "") != (c.says == "") || !strings.Contains(fault, c.says) {
			t.Errorf("%s: %q", c.name, fault)
		}
		if told := slices.Contains(all[0].Announce, c.route.Real); told != c.told || (len(all[0].Routes) == 1) != c.told || !slices.Contains(all[0].Announce, block) {
			t.Errorf("%s: announces %v, routes %v", c.name, all[0].Announce, all[0].Routes)
		}
	}
	s := &mesh.Slices[0]
	if got := s.RoutesBeside("west", []SubnetRoute{{Slice: "red", Real: granted, Via: "lan"}}, "lan"); !slices.Equal(got, []netip.Prefix{p("172.20.0.0/16")}) {
		t.Errorf("the way there itself: %v", got)
	}
	if got := s.RoutesBeside("west", nil, "other"); len(got) != 2 {
		t.Errorf("another workload: %v", got)
	}
}

func TestHostsBehindANodeAreToldByTheirAddressOnTheSlice(t *testing.T) {
	p, ip := netip.MustParsePrefix, netip.MustParseAddr
	mesh := &Mesh{Slices: []Slice{{Name: "red", Services: []Service{{Name: "nas", Namespace: "lab"}}}}}
	host := func(service string, a, a6 netip.Addr) Backend {
		return Backend{Slice: "red", Namespace: "lab", Service: service, Name: "disk", Host: BackendAddr{a, a6}}
	}
	routes := []SubnetRoute{
		{Slice: "red", Real: p("192.168.1.0/24"), Prefix: p("100.91.101.0/24")},
		{Slice: "red", Real: p("fd78::/64"), Prefix: p("fd78::/64")},
	}
	for _, c := range []struct {
		name string
		host Backend
		want BackendAddr // none: it is not told
		says string
	}{
		{"mapped", host("nas", ip("192.168.1.10"), netip.Addr{}), BackendAddr{ip("100.91.101.10"), netip.Addr{}}, ""},
		{"not mapped, and no way to the other", host("nas", ip("192.168.2.10"), ip("fd78::10")), BackendAddr{netip.Addr{}, ip("fd78::10")}, ""},
		{"by its mapped address", host("nas", ip("100.91.101.10"), netip.Addr{}), BackendAddr{}, ""},
		{"the node itself", Backend{Slice: "red", Namespace: "lab", Service: "nas", Name: "n"}, BackendAddr{}, ""},
		{"not exported", host("gone", ip("192.168.1.10"), netip.Addr{}), BackendAddr{}, "no exported service lab/gone"},
	} {
		all := []Attachment{{Slice: "red", Routes: routes}}
		fault := ""
		for _, err := range AttachHosts(mesh, all, []Backend{c.host}) {
			fault += err.Error()
		}
		if (fault == "") != (c.says == "") || !strings.Contains(fault, c.says) {
			t.Errorf("%s: %q", c.name, fault)
		}
		told := tellServices(NodeID{"west", "a"}, &all[0])
		if (len(told) == 1) != (c.want != BackendAddr{}) {
			t.Fatalf("%s: told %+v", c.name, told)
		}
		if len(told) == 1 {
			if e := told[0].Service.Endpoints; len(e) != 1 || e[0] != (Endpoint{"disk", c.want.Addr, c.want.Addr6}) {
				t.Errorf("%s: %v", c.name, e)
			}
		}
	}
}

func TestWhatIsBehindANodeIsNotTheNode(t *testing.T) {
	p := netip.MustParsePrefix
	own := &Attachment{Subnet: p("10.190.0.0/16"), Subnet6: p("fd00:1:2::/48")}
	n := Node{ID: NodeID{"east", "g1"}, Prefixes: []netip.Prefix{p("10.190.16.0/24"), p("100.91.101.0/24"), p("fd00:1:2:100::/64"), p("fd77::/64")}}
	want := []netip.Addr{netip.MustParseAddr("10.190.16.1"), netip.MustParseAddr("fd00:1:2:100::1")}
	if got := own.AddrsOf(n); !slices.Equal(got, want) {
		t.Errorf("addresses %v", got)
	}
	if k := Know(NodeID{"west", "g1"}, own, &View{Nodes: []Node{n}}); len(k) != 1 || !slices.Equal(k[0].Addrs, want) {
		t.Errorf("policy knows it as %v", k)
	}
}
