package manifest

import (
	"strings"
	"testing"
)

func TestJoinKubernetes(t *testing.T) {
	const head = "version: 1\nsite: a\nnode: n\njoin:\n  kubernetes:\n"
	for _, c := range []struct{ name, text, want string }{
		{"the defaults are the chart's", "  - {site: a, keys: k.json}\n", ""},
		{"any account of a namespace may be a leaf", "  - {site: a, keys: k.json, namespace: apps, serviceAccount: '*'}\n", ""},
		{"any account may not be a gateway", "  - {site: a, keys: k.json, serviceAccount: '*', gateway: true}\n", "name one for gateways"},
		{"keys are needed", "  - {site: a}\n", "keys"},
		{"a site is a label", "  - {site: A_b, keys: k.json}\n", "not a DNS label"},
		{"one account is there once", "  - {site: a, keys: k.json}\n  - {site: a, keys: k.json}\n", "already join.kubernetes[0]"},
		{"keys of two clusters of a site may be apart", "  - {site: a, keys: k.json}\n  - {site: a, keys: l.json}\n", ""},
		{"its own cluster is asked", "  - {site: a, verify: tokenreview}\nkubernetes: {cluster: {}}\n", ""},
		{"only its own cluster can be asked", "  - {site: b, verify: tokenreview}\nkubernetes: {cluster: {}}\n", "which is site a"},
		{"a node in no cluster asks none", "  - {site: a, verify: tokenreview}\n", "name it in kubernetes.cluster"},
		{"the hub has keys", "  - {site: b, verify: hub}\nkubernetes: {hub: {namespace: kubeslice-x}}\n", ""},
		{"a node without a hub has none of there", "  - {site: b, verify: hub}\n", "name it in kubernetes.hub"},
		{"keys that nobody reads", "  - {site: b, verify: hub, keys: k.json}\nkubernetes: {hub: {namespace: kubeslice-x}}\n", "nobody reads"},
		{"one site both ways", "  - {site: a, verify: tokenreview}\n  - {site: a, verify: hub}\nkubernetes: {cluster: {}, hub: {namespace: kubeslice-x}}\n", ""},
	} {
		n, problems := ParseNode("/etc/x/node.yaml", []byte(head+c.text))
		var all strings.Builder
		for _, p := range problems {
			all.WriteString(p.String() + "\n")
		}
		if (c.want == "") != (len(problems) == 0) || !strings.Contains(all.String(), c.want) {
			t.Errorf("%s: problems %q, want %q", c.name, all.String(), c.want)
		}
		if c.want == "" {
			if k := n.Join.Kubernetes[0]; (k.Verify == VerifyKeys) != (k.Keys == "/etc/x/k.json") || k.Audience != "slicewire" || k.Issuer != "https://kubernetes.default.svc.cluster.local" {
				t.Errorf("%s: %+v", c.name, k)
			}
		}
	}
}
