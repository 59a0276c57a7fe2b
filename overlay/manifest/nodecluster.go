package manifest

import (
	"net/netip"
	"time"

	"slicewire/overlay"
)

// NodeCluster is for a node that runs in a pod: it exports the cluster's services
// and has the cluster's pods reach imported ones.
type NodeCluster struct {
	Kubeconfig string     `json:"kubeconfig"` // empty: what the cluster gives the pod
	Namespace  string     `json:"namespace"`  // slicewire's own; empty: $POD_NAMESPACE, or the service account's
	PodIP      netip.Addr `json:"podIP"`      // as other pods reach this one; zero: $POD_IP
	DNS        string     `json:"dns"`        // host:port where the cluster's DNS asks for names of imported services; empty: nowhere
	Routed     bool       `json:"routed"`     // pods have a way to addresses of the slice, so names are answered with these
	Linger     string     `json:"linger"`     // how long what stands for an imported service stays after it has gone; 30s unless set
}

// maxLinger is far above what a node needs to hear of everything there is.
const maxLinger = time.Hour

// LingerTime returns Linger as a time; 0 unless it is set.
func (c *NodeCluster) LingerTime() time.Duration {
	d, _ := time.ParseDuration(c.Linger) // checked when it was read
	return d
}

func (n *NodeFile) checkCluster() []Problem {
	c := n.Kubernetes.Cluster
	if c == nil {
		return nil
	}
	var out []Problem
	if c.Namespace != "" && !overlay.ValidLabel(c.Namespace) {
		out = append(out, n.problem(Error, "kubernetes.cluster.namespace", "%q is not a DNS label", c.Namespace))
	}
	if a := c.PodIP; a.IsValid() && (a.IsUnspecified() || a.IsMulticast() || a.IsLoopback()) {
		out = append(out, n.problem(Error, "kubernetes.cluster.podIP", "%v is not an address that other pods reach", a))
	}
	if c.DNS != "" {
		if _, err := checkHostPort(c.DNS, 0); err != nil {
			out = append(out, n.problem(Error, "kubernetes.cluster.dns", "%v", err))
		}
	}
	if d, err := time.ParseDuration(c.Linger); c.Linger != "" && (err != nil || d <= 0 || d > maxLinger) {
		out = append(out, n.problem(Error, "kubernetes.cluster.linger", "%q is no time between 0s and %v", c.Linger, maxLinger))
	}
	return out
}
