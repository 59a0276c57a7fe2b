package manifest

import (
	"fmt"
	"net/netip"
	"time"

	"slicewire/overlay"
)

// NodeKubernetes says what the node has to do with Kubernetes; nil parts: nothing.
type NodeKubernetes struct {
	Hub     *NodeHub     `json:"hub"`
	Cluster *NodeCluster `json:"cluster"`
}

// NodeHub is the API server whose objects say what should be, and where this node
// tells how it is.
type NodeHub struct {
	Kubeconfig string   `json:"kubeconfig"`                                             // file; empty: the pod's own cluster is the hub
	Namespace  string   `json:"namespace" req:"1"`                                      // of the project: kubeslice-<project>
	Controller string   `json:"controller" default:"auto" enum:"auto,slicewire,reader"` // who works out the workers' objects; auto: nodes, unless KubeSlice's controller does
	HoldFor    string   `json:"holdFor" default:"24h"`                                  // how long many objects that vanish at once go on to count
	CNISubnets []string `json:"cniSubnets"`                                             // of this cluster, told to the hub
}

// maxHold is far above what it takes to notice.
const maxHold = 30 * 24 * time.Hour

// Hold returns HoldFor as a time.
func (h *NodeHub) Hold() time.Duration {
	d, _ := time.ParseDuration(h.HoldFor) // checked when it was read
	return d
}

func (n *NodeFile) checkHub() []Problem {
	h := n.Kubernetes.Hub
	if h == nil {
		return nil
	}
	var out []Problem
	if h.Namespace != "" && !overlay.ValidLabel(h.Namespace) {
		out = append(out, n.problem(Error, "kubernetes.hub.namespace", "%q is not a DNS label", h.Namespace))
	}
	if d, err := time.ParseDuration(h.HoldFor); h.HoldFor != "" && (err != nil || d < time.Minute || d > maxHold) {
		out = append(out, n.problem(Error, "kubernetes.hub.holdFor", "%q is no time from 1m to %v", h.HoldFor, maxHold))
	}
	for i, s := range h.CNISubnets {
		if p, err := netip.ParsePrefix(s); err != nil || p != p.Masked() {
			out = append(out, n.problem(Error, fmt.Sprintf("kubernetes.hub.cniSubnets[%d]", i), "%q is not a CIDR", s))
		}
	}
	return out
}
