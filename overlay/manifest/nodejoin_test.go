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
			if k := n.Join.Kubernetes[0]; k.Keys != "/etc/x/k.json" || k.Audience != "slicewire" || k.Issuer != "https://kubernetes.default.svc.cluster.local" {
				t.Errorf("%s: %+v", c.name, k)
			}
		}
	}
}
