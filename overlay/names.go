package overlay

import "strings"

// The DNS zones of every slice, without a final dot.
const (
	Zone           = "slice.local"      // KubeSlice's
	ClusterSetZone = "clusterset.local" // the Multi-Cluster Services API's
)

// InZones reports whether a name in lower case lies in a zone of every slice.
func InZones(name string) bool {
	for _, zone := range []string{Zone, ClusterSetZone} {
		if name == zone || strings.HasSuffix(name, "."+zone) {
			return true
		}
	}
	return false
}

// NodeDNSName returns the name of a node, which stands for its own addresses.
func NodeDNSName(id NodeID) string { return id.Node + "." + id.Site + ".node." + Zone }

// ServiceDNSName returns the name under which a slice answers for an exported
// service. As in KubeSlice it does not hold the slice's name: the answer
// depends on the slice that asks.
func ServiceDNSName(service, namespace string) string {
	return service + "." + namespace + ".svc." + Zone
}

// EndpointDNSName returns the name of one backend of an exported service.
func EndpointDNSName(pod, cluster, service, namespace string) string {
	return pod + "." + cluster + "." + ServiceDNSName(service, namespace)
}

// ValidLabel reports whether s is a DNS label as Kubernetes wants it (RFC 1123,
// lower case): 1 to 63 letters, digits and inner hyphens.
func ValidLabel(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}

// ValidDNSName reports whether s is a name of lower-case labels separated by
// dots, without a final dot, of at most 253 characters.
func ValidDNSName(s string) bool {
	if len(s) > 253 {
		return false
	}
	start := 0
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			continue
		}
		if !ValidLabel(s[start:i]) {
			return false
		}
		start = i + 1
	}
	return true
}
