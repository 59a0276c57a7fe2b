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
		{"all agree", SubnetRoute{"red", granted, "lan"}, true, "", true},
		{"a part of it", SubnetRoute{"red", p("192.168.7.128/25"), "lan"}, true, "", true},
		{"the way there is down", SubnetRoute{"red", granted, "lan"}, false, "", false},
		{"the manifests do not give it", SubnetRoute{"red", p("172.20.1.0/24"), "lan"}, true, "do not give", false},
		{"the certificate does not grant it", SubnetRoute{"red", p("192.168.8.0/24"), "lan"}, true, "does not grant", false},
		{"more than the certificate grants", SubnetRoute{"red", given, "lan"}, true, "does not grant", false},
		{"another slice", SubnetRoute{"blue", granted, "lan"}, true, "", false},
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
		if told := slices.Contains(all[0].Announce, c.route.Prefix); told != c.told || (len(all[0].Routes) == 1) != c.told || !slices.Contains(all[0].Announce, block) {
			t.Errorf("%s: announces %v, routes %v", c.name, all[0].Announce, all[0].Routes)
		}
	}
	s := &mesh.Slices[0]
	if got := s.RoutesBeside([]SubnetRoute{{"red", granted, "lan"}}, "lan"); !slices.Equal(got, []netip.Prefix{p("172.20.0.0/16")}) {
		t.Errorf("the way there itself: %v", got)
	}
	if got := s.RoutesBeside(nil, "other"); len(got) != 2 {
		t.Errorf("another workload: %v", got)
	}
}
