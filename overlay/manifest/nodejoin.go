package manifest

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"slicewire/overlay"
)

// NodeJoin says where a gateway that holds an issuer's key lets nodes in, and
// which clusters' pods.
type NodeJoin struct {
	Listen     netip.AddrPort    `json:"listen"`    // TCP; zero: the address and port of the tunnels
	Advertise  []netip.AddrPort  `json:"advertise"` // where other nodes reach Listen; empty: worked out
	Kubernetes []NodeJoinCluster `json:"kubernetes"`
}

// NodeJoinCluster lets the pods of one service account of a cluster be nodes of a
// site, by the tokens that the cluster gives them.
type NodeJoinCluster struct {
	Site           string   `json:"site" req:"1"`                                                  // that pods become nodes of
	Keys           string   `json:"keys" req:"1"`                                                  // file: what `kubectl get --raw /openid/v1/jwks` prints, read at every use
	Issuer         string   `json:"issuer" default:"https://kubernetes.default.svc.cluster.local"` // the cluster's --service-account-issuer
	Audience       string   `json:"audience" default:"slicewire"`
	Namespace      string   `json:"namespace" default:"slicewire-system"`
	ServiceAccount string   `json:"serviceAccount" default:"slicewire"` // "*": each of the namespace
	Gateway        bool     `json:"gateway"`                            // they speak for the whole site
	Slices         []string `json:"slices"`                             // that they may take part in; empty: all of the site
}

// anyAccount is a service account's name that stands for all.
const anyAccount = "*"

func (n *NodeFile) checkJoin() []Problem {
	var out []Problem
	fail := func(i int, field, format string, args ...any) {
		out = append(out, n.problem(Error, fmt.Sprintf("join.kubernetes[%d].%s", i, field), format, args...))
	}
	for i, c := range n.Join.Kubernetes {
		for _, x := range []struct{ field, name string }{{"site", c.Site}, {"namespace", c.Namespace}} {
			if x.name != "" && !overlay.ValidLabel(x.name) {
				fail(i, x.field, "%q is not a DNS label (a-z, 0-9, inner hyphens, at most 63)", x.name)
			}
		}
		for j, s := range c.Slices {
			if !overlay.ValidLabel(s) {
				fail(i, fmt.Sprintf("slices[%d]", j), "%q is not a DNS label", s)
			}
		}
		switch {
		case c.ServiceAccount == anyAccount && c.Gateway:
			fail(i, "serviceAccount", "whoever may make pods in %s could speak for the whole site: name one for gateways", c.Namespace)
		case c.ServiceAccount != anyAccount && !overlay.ValidDNSName(c.ServiceAccount):
			fail(i, "serviceAccount", "%q is not a service account's name", c.ServiceAccount)
		}
		for j, before := range n.Join.Kubernetes[:i] {
			if before.Site == c.Site && before.Issuer == c.Issuer && before.Keys == c.Keys && before.Namespace == c.Namespace && before.ServiceAccount == c.ServiceAccount {
				fail(i, "serviceAccount", "%s/%s of that cluster is already join.kubernetes[%d]", c.Namespace, c.ServiceAccount, j)
			}
		}
	}
	return out
}

// absJoin makes its paths absolute.
func (n *NodeFile) absJoin(dir string) {
	for i := range n.Join.Kubernetes {
		if p := &n.Join.Kubernetes[i].Keys; *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}
