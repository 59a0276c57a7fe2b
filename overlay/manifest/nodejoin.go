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
	Verify         string   `json:"verify" enum:"keys,tokenreview,hub" default:"keys"`             // by what their tokens are judged, see below
	Keys           string   `json:"keys"`                                                          // file: what `kubectl get --raw /openid/v1/jwks` prints, read at every use
	Issuer         string   `json:"issuer" default:"https://kubernetes.default.svc.cluster.local"` // the cluster's --service-account-issuer
	Audience       string   `json:"audience" default:"slicewire"`
	Namespace      string   `json:"namespace" default:"slicewire-system"`
	ServiceAccount string   `json:"serviceAccount" default:"slicewire"` // "*": each of the namespace
	Gateway        bool     `json:"gateway"`                            // they speak for the whole site
	Slices         []string `json:"slices"`                             // that they may take part in; empty: all of the site
}

// What tokens are judged by: a file with the cluster's public keys; the API server
// of the cluster that this node is in, which also knows whether the pod is still
// there; or the keys that the site tells on the hub.
const (
	VerifyKeys   = "keys"
	VerifyReview = "tokenreview"
	VerifyHub    = "hub"
)

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
		case c.Verify == VerifyKeys && c.Keys == "":
			fail(i, "keys", "missing: the file with the cluster's public keys, or verify: tokenreview or hub")
		case c.Verify != VerifyKeys && c.Keys != "":
			fail(i, "keys", "nobody reads it with verify: %s", c.Verify)
		case c.Verify == VerifyReview && n.Kubernetes.Cluster == nil:
			fail(i, "verify", "tokenreview asks the cluster that this node is in: name it in kubernetes.cluster")
		case c.Verify == VerifyReview && c.Site != n.Site:
			fail(i, "verify", "tokenreview asks the cluster that this node is in, which is site %s: for another, have the hub or a file give its keys", n.Site)
		case c.Verify == VerifyHub && n.Kubernetes.Hub == nil:
			fail(i, "verify", "hub takes the keys that the site tells there: name it in kubernetes.hub")
		}
		switch {
		case c.ServiceAccount == anyAccount && c.Gateway:
			fail(i, "serviceAccount", "whoever may make pods in %s could speak for the whole site: name one for gateways", c.Namespace)
		case c.ServiceAccount != anyAccount && !overlay.ValidDNSName(c.ServiceAccount):
			fail(i, "serviceAccount", "%q is not a service account's name", c.ServiceAccount)
		}
		for j, before := range n.Join.Kubernetes[:i] {
			if before.Site == c.Site && before.Issuer == c.Issuer && before.Keys == c.Keys && before.Verify == c.Verify && before.Namespace == c.Namespace && before.ServiceAccount == c.ServiceAccount {
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
