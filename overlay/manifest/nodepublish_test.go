package manifest

import (
	"strings"
	"testing"
)

func TestPublishedHosts(t *testing.T) {
	manifests, problems := Parse("x.yaml", []byte(`apiVersion: controller.kubeslice.io/v1alpha1
kind: SliceConfig
metadata: {name: lab, namespace: kubeslice-lab, annotations: {slicewire.io/site-routes: "west=192.168.7.0/24,fd77::/64"}}
spec:
  sliceSubnet: 10.190.0.0/16
  sliceType: Application
  sliceGatewayProvider: {sliceGatewayType: Wireguard, sliceCaType: Local}
  sliceIpamType: Static
  clusters: [west, east]
  qosProfileDetails: {queueType: HTB, priority: 1, tcType: BANDWIDTH_CONTROL, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}
  namespaceIsolationProfile: {applicationNamespaces: [{namespace: lab, clusters: ['*']}]}
`))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	for _, c := range []struct{ name, publish, says string }{
		{"one", "addresses: [192.168.7.10]", ""},
		{"of both families", `addresses: [192.168.7.10, "fd77::10"]`, ""},
		{"two of one", "addresses: [192.168.7.10, 192.168.7.11]", "one address of each family"},
		{"nonsense", "addresses: [nas]", "nas"},
		{"with a target", "addresses: [192.168.7.10], target: 127.0.0.1:80", "needs no target"},
		{"with a check", "addresses: [192.168.7.10], check: tcp", "needs no target"},
		{"behind no route", "addresses: [192.168.8.10]", "behind no route of this node"},
		{"neither", "backend: x", "give target"},
	} {
		n, problems := ParseNode("node.yaml", []byte(`version: 1
mesh: lab
site: west
node: g1
listen: 127.0.0.1:1
state: /tmp/x
routes:
- {slice: lab, prefix: 192.168.7.0/24, via: lan}
- {slice: lab, prefix: "fd77::/64", via: lan}
publish:
- {slice: lab, namespace: lab, service: nas, export: [{port: 80}], `+c.publish+"}\n"))
		if n == nil {
			t.Fatal(problems)
		}
		_, more := Build(manifests, Options{Mesh: "lab", Node: n})
		fault := ""
		for _, p := range append(problems, more...) {
			if p.Severity == Error {
				fault += p.String()
			}
		}
		if (fault == "") != (c.says == "") || !strings.Contains(fault, c.says) {
			t.Errorf("%s: %q", c.name, fault)
		}
	}
}
