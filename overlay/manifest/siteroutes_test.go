package manifest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestSiteRoutes(t *testing.T) {
	for _, c := range []struct {
		name, text string
		west       string // the routes of west
		says       string // of the fault
	}{
		{"none", "", "", ""},
		{"of two sites and families", " west = 192.168.7.0/24, fd12:3::/48 ; east=192.168.8.0/24;", "192.168.7.0/24 fd12:3::/48", ""},
		{"an unknown site", "north=192.168.7.0/24", "", "cluster of the slice"},
		{"no prefix", "west", "", "want CLUSTER=PREFIX"},
		{"nonsense", "west=x", "", "no prefix"},
		{"host bits", "west=192.168.7.1/24", "", "no prefix"},
		{"a default route", "west=0.0.0.0/0", "", "no prefix"},
		{"loopback", "west=127.0.0.0/8", "", "no prefix"},
		{"multicast", "west=224.0.0.0/8", "", "no prefix"},
		{"link-local", "west=fe80::/64", "", "no prefix"},
		{"the slice's own subnet", "west=10.190.4.0/24", "", "overlaps 10.190.0.0/16 of the slice"},
		{"another site's", "west=192.168.0.0/16; east=192.168.8.0/24", "", "overlaps 192.168.0.0/16 of west"},
	} {
		text := strings.ReplaceAll(`apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: lab, namespace: kubeslice-lab, annotations: {slicewire.io/site-routes: "ROUTES"}}
spec:
  sliceSubnet: 10.190.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Static
  clusters: [west, east]
  qosProfileDetails: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
`, "ROUTES", c.text)
		objects, problems := Parse("x.yaml", []byte(text))
		mesh, more := Build(objects, Options{Mesh: "lab"})
		fault := ""
		for _, p := range append(problems, more...) {
			if p.Severity == Error {
				fault += p.String()
			}
		}
		if (fault == "") != (c.says == "") || !strings.Contains(fault, c.says) {
			t.Errorf("%s: %q", c.name, fault)
			continue
		}
		if c.says != "" {
			continue
		}
		site, _ := mesh.Slices[0].Site("west")
		var want []netip.Prefix
		for _, p := range strings.Fields(c.west) {
			want = append(want, netip.MustParsePrefix(p))
		}
		if !slices.Equal(site.Routes, want) {
			t.Errorf("%s: %v", c.name, site.Routes)
		}
	}
}
