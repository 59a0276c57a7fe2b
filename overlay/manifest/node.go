package manifest

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"

	"slicewire/overlay"
)

// The range of a slice's MTU: what IPv6 demands (RFC 8200, section 5), and what
// fits a UDP datagram around WireGuard's and the outer headers.
const (
	minMTU = 1280
	maxMTU = 65535 - 80
)

// NodeFile is what only one node knows. LoadNode reads it; afterwards defaults
// are filled in and paths are absolute.
type NodeFile struct {
	Version   int              `json:"version" req:"1" min:"1" max:"1"`
	Mesh      string           `json:"mesh" default:"default"`
	Site      string           `json:"site" req:"1"`
	Node      string           `json:"node" req:"1"`
	Listen    netip.AddrPort   `json:"listen" default:"0.0.0.0:51820"` // UDP, all tunnels; port 0 lets the system choose
	Advertise []netip.AddrPort `json:"advertise"`                      // where other nodes reach Listen; empty: worked out
	Gossip    NodeGossip       `json:"gossip" default:"{}"`
	Join      NodeJoin         `json:"join" default:"{}"`
	Ephemeral bool             `json:"ephemeral"`                                 // the node ends for good when it is told to end: it then takes back what it told
	Manifests []string         `json:"manifests" default:"manifests"`             // files and folders
	State     string           `json:"state"`                                     // folder; empty: the daemon chooses
	Socket    string           `json:"socket"`                                    // unix socket; empty: the daemon chooses
	Metrics   string           `json:"metrics" default:"127.0.0.1:9586"`          // host:port that Prometheus asks; off: none
	OuterTOS  string           `json:"outerTOS" default:"ecn" enum:"off,ecn,all"` // what tunnels show of traffic classes

	UplinkKbps int `json:"uplinkKbps" min:"0"` // that all slices of the node share, on the underlay; 0: not known, each slice has its own ceiling only

	Slices  map[string]NodeSlice `json:"slices"`
	Forward []Forward            `json:"forward"`
	Publish []Publish            `json:"publish"`
	Routes  []NodeRoute          `json:"routes"`

	Kubernetes NodeKubernetes `json:"kubernetes"`

	file  string
	lines map[string]int
}

// What Metrics says unless it says otherwise, and that there are to be none.
const (
	DefaultMetrics = "127.0.0.1:9586"
	MetricsOff     = "off"
)

// NodeGossip says how the node meets the others. Listen and Advertise are for
// gateways that others can reach; other nodes only dial.
type NodeGossip struct {
	Listen    netip.AddrPort `json:"listen" default:"0.0.0.0:7946"`
	Advertise netip.AddrPort `json:"advertise"`                // zero: Listen's
	Reachable bool           `json:"reachable" default:"true"` // false: a gateway that nobody can dial, as behind NAT
	Join      []string       `json:"join"`                     // host:port of gateways that can be reached
}

// Forward makes a local port that leads to a destination on a slice.
type Forward struct {
	Slice  string `json:"slice" req:"1"`
	Listen string `json:"listen" req:"1"` // host:port or unix:/path
	To     string `json:"to" req:"1"`     // host:port; names are resolved inside the slice
}

// Publish makes a local server a backend of an exported service.
type Publish struct {
	Slice     string        `json:"slice" req:"1"`
	Service   string        `json:"service" req:"1"`
	Namespace string        `json:"namespace" req:"1"`
	Backend   string        `json:"backend"` // the node's name unless set
	Target    string        `json:"target"`  // host:port; short for Ports when the service has one port
	Ports     []PublishPort `json:"ports"`
	Addresses []netip.Addr  `json:"addresses"`                         // instead of targets: of a host behind one of the node's routes, as it is called there
	Check     string        `json:"check" enum:"none,tcp"`             // tcp: the target is connected to twice a second, and withdrawn while it does not accept
	Export    []ExportPort  `json:"export"`                            // exports the service from here when no ServiceExport does
	Type      string        `json:"type" enum:"Headless,ClusterSetIP"` // of the service that Export exports; Headless unless set
	Proxy     string        `json:"proxyProtocol" enum:"v2"`           // v2: TCP connections to targets begin with a header of the PROXY protocol that names the client
}

// NodeRoute is a network behind this node, reached by one of its workloads. The
// manifests have to give it to the site (AnnotationSiteRoutes).
type NodeRoute struct {
	Slice  string       `json:"slice" req:"1"`
	Prefix netip.Prefix `json:"prefix" req:"1"`
	Via    string       `json:"via" req:"1"` // a workload: a run's name, or NETNS-PATH/DEVICE of an attached namespace
}

// TargetOf returns where the service's port of that name leads, "" when the
// backend does not serve it.
func (p *Publish) TargetOf(port string) string {
	if p.Target != "" {
		return p.Target
	}
	for _, x := range p.Ports {
		if x.Name == port {
			return x.Target
		}
	}
	return ""
}

// PublishPort sends one port of the service, by its name there, to a target.
type PublishPort struct {
	Name   string `json:"name" req:"1"`
	Target string `json:"target" req:"1"`
}

// ExportPort is one port of a service that a node file exports.
type ExportPort struct {
	Name     string `json:"name"`
	Port     uint16 `json:"port" req:"1" min:"1"`
	Protocol string `json:"protocol" default:"TCP" enum:"TCP,UDP"`
}

// ID returns the node's name in the mesh.
func (n *NodeFile) ID() overlay.NodeID { return overlay.NodeID{Site: n.Site, Node: n.Node} }

// SliceSettings returns the node's settings for a slice: those of the file, or
// the defaults.
func (n *NodeFile) SliceSettings(slice string) NodeSlice {
	s := n.Slices[slice]
	if s.MTU == 0 {
		s.MTU = overlay.DefaultMTU
	}
	return s
}

// problem makes a problem with a field of the file.
func (n *NodeFile) problem(sev Severity, field, format string, args ...any) Problem {
	return Problem{sev, n.file, lineOf(n.lines, field, 1), n.object(), field, fmt.Sprintf(format, args...)}
}

func (n *NodeFile) object() string {
	if n.Site == "" || n.Node == "" {
		return "node file"
	}
	return "node " + n.ID().String()
}

// ParseNode reads a node file. Relative paths in it are taken from the folder
// of file. It is strict: any key that it does not know is an error. The
// NodeFile is nil when the text holds none.
func ParseNode(file string, data []byte) (*NodeFile, []Problem) {
	n := &NodeFile{file: file}
	var problems []Problem
	var count [2]int
	report := func(sev Severity, line int, field, message string) {
		if count[sev]++; count[sev] <= maxProblems {
			problems = append(problems, Problem{sev, file, line, "", field, message})
		}
	}
	if len(data) > maxFileBytes {
		report(Error, 0, "", fmt.Sprintf("the file is larger than %d MiB", maxFileBytes>>20))
		return nil, problems
	}
	docs := split(data)
	if len(docs) != 1 {
		report(Error, 0, "", fmt.Sprintf("a node file is one YAML document, not %d", len(docs)))
		return nil, problems
	}
	if separators(docs[0].text) > maxNodes {
		report(Error, 0, "", fmt.Sprintf("the document has more than %d values", maxNodes))
		return nil, problems
	}
	root, line, err := parseDocument(docs[0])
	if err != nil {
		report(Error, line, "", err.Error())
		return nil, problems
	}
	if root == nil {
		report(Error, 0, "", "the file is empty")
		return nil, problems
	}
	budget := maxNodes
	d := newDecoder(true, &budget, report)
	d.value(root, reflect.ValueOf(n).Elem(), "", "", 0)
	if d.spent {
		return nil, problems
	}
	n.lines = d.lines
	for i := range problems {
		problems[i].Object = n.object()
	}
	n.finish()
	for _, p := range n.check() {
		if count[p.Severity]++; count[p.Severity] <= maxProblems {
			problems = append(problems, p)
		}
	}
	sortProblems(problems)
	return n, problems
}

// finish fills in what depends on other fields and makes paths absolute.
func (n *NodeFile) finish() {
	if _, given := n.lines["manifests"]; n.Kubernetes.Hub != nil && !given {
		n.Manifests = nil // the hub says it all
	}
	dir := filepath.Dir(n.file)
	abs := func(p *string) {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
	for i := range n.Manifests {
		abs(&n.Manifests[i])
	}
	abs(&n.State)
	abs(&n.Socket)
	n.absJoin(dir)
	listener := func(addr *string) {
		if path, ok := strings.CutPrefix(*addr, unixPrefix); ok {
			abs(&path)
			*addr = unixPrefix + path
		}
	}
	for i := range n.Forward {
		listener(&n.Forward[i].Listen)
	}
	if h := n.Kubernetes.Hub; h != nil {
		abs(&h.Kubeconfig)
	}
	if c := n.Kubernetes.Cluster; c != nil {
		abs(&c.Kubeconfig)
	}
	for name, s := range n.Slices {
		listener(&s.Proxy)
		if s.MTU == 0 {
			s.MTU = overlay.DefaultMTU
		}
		n.Slices[name] = s
	}
	for i := range n.Publish {
		if p := &n.Publish[i]; p.Backend == "" {
			p.Backend = n.Node
		}
	}
}

const unixPrefix = "unix:"

// check holds every rule that needs nothing but the file itself.
func (n *NodeFile) check() []Problem {
	var out []Problem
	fail := func(field, format string, args ...any) {
		out = append(out, n.problem(Error, field, format, args...))
	}
	label := func(field, s string) {
		if s != "" && !overlay.ValidLabel(s) {
			fail(field, "%q is not a DNS label (a-z, 0-9, inner hyphens, at most 63)", s)
		}
	}
	label("mesh", n.Mesh)
	label("site", n.Site)
	label("node", n.Node)
	for i, a := range n.Advertise {
		if err := checkAdvertised(a); err != nil {
			fail(fmt.Sprintf("advertise[%d]", i), "%v", err)
		}
	}
	if a := n.Gossip.Advertise; a.IsValid() {
		if err := checkAdvertised(a); err != nil {
			fail("gossip.advertise", "%v", err)
		} else if !n.Gossip.Reachable {
			fail("gossip.advertise", "says where other nodes reach this one, and gossip.reachable that they do not: leave one out")
		}
	}
	for i, a := range n.Join.Advertise {
		if err := checkAdvertised(a); err != nil {
			fail(fmt.Sprintf("join.advertise[%d]", i), "%v", err)
		}
	}
	out = append(out, n.checkJoin()...)
	for i, j := range n.Gossip.Join {
		if _, err := checkHostPort(j, 1); err != nil {
			fail(fmt.Sprintf("gossip.join[%d]", i), "%v", err)
		}
	}
	if n.Metrics != "" && n.Metrics != MetricsOff {
		switch host, err := checkHostPort(n.Metrics, 0); {
		case err != nil:
			fail("metrics", "%v; or say off", err)
		case !loopbackHost(host):
			out = append(out, n.problem(Warning, "metrics", "%s is not a loopback address: whoever reaches it reads which slices the node has and what they do", n.Metrics))
		}
	}
	for i, m := range n.Manifests {
		if m == "" {
			fail(fmt.Sprintf("manifests[%d]", i), "is empty")
		}
	}
	for _, name := range sortedKeys(n.Slices) {
		out = append(out, n.checkSlice(name)...)
	}
	for i, f := range n.Forward {
		at := fmt.Sprintf("forward[%d].", i)
		label(at+"slice", f.Slice)
		if f.Listen != "" {
			out = append(out, n.checkListener(at+"listen", f.Listen, true)...)
		}
		if f.To != "" {
			if _, err := checkHostPort(f.To, 1); err != nil {
				fail(at+"to", "%v", err)
			}
		}
	}
	for i, r := range n.Routes {
		at := fmt.Sprintf("routes[%d].", i)
		label(at+"slice", r.Slice)
		if r.Prefix.IsValid() && r.Prefix != r.Prefix.Masked() {
			fail(at+"prefix", "%v has bits behind its length: want %v", r.Prefix, r.Prefix.Masked())
		}
		for j := range i {
			if n.Routes[j].Slice == r.Slice && n.Routes[j].Prefix == r.Prefix {
				fail(at+"prefix", "%v is already routes[%d]", r.Prefix, j)
			}
		}
	}
	out = append(out, n.checkHub()...)
	out = append(out, n.checkCluster()...)
	seen := map[string]int{}
	for i, p := range n.Publish {
		at := fmt.Sprintf("publish[%d].", i)
		label(at+"slice", p.Slice)
		label(at+"service", p.Service)
		label(at+"namespace", p.Namespace)
		label(at+"backend", p.Backend)
		key := strings.Join([]string{p.Slice, p.Namespace, p.Service, p.Backend}, "/")
		if j, twice := seen[key]; twice {
			fail(at+"backend", "%q of the same service is already publish[%d]", p.Backend, j)
		} else {
			seen[key] = i
		}
		out = append(out, n.checkPorts(at, p)...)
	}
	return out
}
