package manifest

import (
	"maps"
	"slices"

	"slicewire/overlay"
)

// Summary is what a mesh and its problems come to, ready to be written as JSON
// or YAML: no list is null.
type Summary struct {
	Slices   []SliceSummary   `json:"slices"`
	Clusters []ClusterSummary `json:"clusters"`
	Warnings []ProblemSummary `json:"warnings"`
	Errors   []ProblemSummary `json:"errors"`
}

// SliceSummary is a slice as the daemon would run it.
type SliceSummary struct {
	Name       string           `json:"name"`
	Subnet     string           `json:"subnet"`
	Subnet6    string           `json:"subnet6"`
	Mode       string           `json:"mode"`
	Sites      []SiteSummary    `json:"sites"`
	QoS        QoSSummary       `json:"qos"`
	Namespaces []string         `json:"namespaces"`
	Services   []ServiceSummary `json:"services"`
	Isolated   bool             `json:"isolated,omitempty"` // its namespaces are
	Policies   []PolicySummary  `json:"policies,omitempty"`
}

// PolicySummary is a SlicePolicy: which directions it polices, with how many rules.
type PolicySummary struct {
	Name    string `json:"name"`
	Ingress *int   `json:"ingress,omitempty"` // absent: it says nothing of that direction
	Egress  *int   `json:"egress,omitempty"`
}

// SiteSummary is one site's share of a slice.
type SiteSummary struct {
	Name    string `json:"name"`
	Index   int    `json:"index"`
	Prefix  string `json:"prefix"`
	Prefix6 string `json:"prefix6"`
}

// QoSSummary is a slice's share of an uplink, in kbit/s.
type QoSSummary struct {
	CeilingKbps    int    `json:"ceilingKbps"`
	GuaranteedKbps int    `json:"guaranteedKbps"`
	Priority       int    `json:"priority"`
	DSCP           string `json:"dscp"`
}

// ServiceSummary is an exported service.
type ServiceSummary struct {
	Name      string        `json:"name"`
	Namespace string        `json:"namespace"`
	DNSNames  []string      `json:"dnsNames"`
	Ports     []PortSummary `json:"ports"`
}

// PortSummary is one port of a service.
type PortSummary struct {
	Name     string `json:"name"`
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
}

// ClusterSummary is a site and the slices it is on.
type ClusterSummary struct {
	Name    string   `json:"name"`
	NodeIPs []string `json:"nodeIPs"`
	Slices  []string `json:"slices"`
}

// ProblemSummary is a problem; Message begins with the field it is about.
type ProblemSummary struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Object  string `json:"object"`
	Message string `json:"message"`
}

// Report sums up a mesh and the problems found on the way to it. Sites that no
// Cluster object speaks of are listed with no node IPs.
func Report(mesh overlay.Mesh, problems []Problem) Summary {
	sum := Summary{Slices: []SliceSummary{}, Clusters: []ClusterSummary{}, Warnings: []ProblemSummary{}, Errors: []ProblemSummary{}}
	clusters := map[string]*ClusterSummary{}
	at := func(name string) *ClusterSummary {
		if clusters[name] == nil {
			clusters[name] = &ClusterSummary{Name: name, NodeIPs: []string{}, Slices: []string{}}
		}
		return clusters[name]
	}
	for _, c := range mesh.Clusters {
		for _, ip := range c.NodeIPs {
			at(c.Name).NodeIPs = append(at(c.Name).NodeIPs, ip.String())
		}
		at(c.Name)
	}
	for _, s := range mesh.Slices {
		sum.Slices = append(sum.Slices, summarize(s))
		for _, site := range s.Sites {
			at(site.Name).Slices = append(at(site.Name).Slices, s.Name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(clusters)) {
		sum.Clusters = append(sum.Clusters, *clusters[name])
	}
	problems = slices.Clone(problems)
	sortProblems(problems)
	for _, p := range problems {
		out := ProblemSummary{p.File, p.Line, p.Object, p.Text()}
		if p.Severity == Error {
			sum.Errors = append(sum.Errors, out)
		} else {
			sum.Warnings = append(sum.Warnings, out)
		}
	}
	return sum
}

func summarize(s overlay.Slice) SliceSummary {
	out := SliceSummary{
		Name:       s.Name,
		Mode:       string(s.Mode),
		Sites:      []SiteSummary{},
		QoS:        QoSSummary{s.QoS.CeilingKbps, s.QoS.GuaranteedKbps, s.QoS.Priority, s.QoS.DSCP},
		Namespaces: []string{},
		Services:   []ServiceSummary{},
	}
	out.Isolated = s.Isolated
	for _, p := range s.Policies {
		x := PolicySummary{Name: p.Name}
		if n := len(p.Ingress); p.PolicesIngress {
			x.Ingress = &n
		}
		if n := len(p.Egress); p.PolicesEgress {
			x.Egress = &n
		}
		out.Policies = append(out.Policies, x)
	}
	if s.Subnet.IsValid() {
		out.Subnet = s.Subnet.String()
	}
	if s.Subnet6.IsValid() {
		out.Subnet6 = s.Subnet6.String()
	}
	for _, site := range s.Sites {
		x := SiteSummary{Name: site.Name, Index: site.Index}
		if site.Prefix.IsValid() {
			x.Prefix, x.Prefix6 = site.Prefix.String(), site.Prefix6.String()
		}
		out.Sites = append(out.Sites, x)
	}
	for _, n := range s.Namespaces {
		out.Namespaces = append(out.Namespaces, n.Namespace)
	}
	for _, svc := range s.Services {
		x := ServiceSummary{svc.Name, svc.Namespace, append([]string{}, svc.DNSNames...), []PortSummary{}}
		for _, p := range svc.Ports {
			x.Ports = append(x.Ports, PortSummary{p.Name, int(p.Port), string(p.Protocol)})
		}
		out.Services = append(out.Services, x)
	}
	return out
}
