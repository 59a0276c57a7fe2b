package manifest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestMulticast(t *testing.T) {
	for _, c := range []struct{ name, mode, text, want, says string }{
		{"none", "", "", "", ""},
		{"groups of both families and the broadcast", "", " 239.1.0.0/16, ff05::/16,224.0.0.251 , 255.255.255.255, 239.1.0.0/16", "239.1.0.0/16 ff05::/16 224.0.0.251/32 255.255.255.255/32", ""},
		{"all", "", "all", "224.0.0.0/4 ff00::/8 255.255.255.255/32", ""},
		{"a word", "", "yes", "", `"yes" is no multicast address`},
		{"an address of somebody", "", "10.190.0.1", "", "no multicast address"},
		{"more than multicast", "", "192.0.0.0/2", "", "no multicast address"},
		{"host bits", "", "239.1.0.1/16", "", "no multicast address"},
		{"a hole", "", "239.1.0.0/16,", "", `"" is no multicast address`},
		{"too many", "", strings.TrimSuffix(many(65), ","), "", "65 groups, at most 64"},
		{"a slice without a network", "  overlayNetworkDeploymentMode: no-network\n", "all", "", "no multicast"},
	} {
		text := strings.NewReplacer("GROUPS", c.text, "MODE", c.mode).Replace(`apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: lab, namespace: kubeslice-lab, annotations: {slicewire.io/multicast: "GROUPS"}}
spec:
  sliceSubnet: 10.190.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Static
  clusters: [west, east]
MODE  qosProfileDetails: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
`)
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
		var want []netip.Prefix
		for _, p := range strings.Fields(c.want) {
			want = append(want, netip.MustParsePrefix(p))
		}
		if got := mesh.Slices[0].Multicast; !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", c.name, got, want)
		}
	}
}

// many is a list of so many groups.
func many(n int) string {
	var b strings.Builder
	a := netip.MustParseAddr("239.0.0.1")
	for range n {
		b.WriteString(a.String() + ",")
		a = a.Next()
	}
	return b.String()
}
