// Package api is what a daemon's control socket says and is asked, and what the
// command line prints of it as JSON or YAML. Fields are only ever added within a
// version.
package api

import (
	"net/netip"
	"time"

	"slicewire/overlay"
)

// Version is in every document that the command line prints as JSON or YAML.
// Fields are only ever added within a version.
const Version = "slicewire/v1"

// Status is what `slicewire status` shows of a daemon.
type Status struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Version    string        `json:"version"`
	Mesh       string        `json:"mesh"`
	Site       string        `json:"site"`
	Node       string        `json:"node"`
	Gateway    bool          `json:"gateway"`
	Cordoned   bool          `json:"cordoned"`
	Started    time.Time     `json:"started"`
	UptimeSecs float64       `json:"uptimeSeconds"`
	PID        int           `json:"pid"`
	Listen     string        `json:"listen"`
	Metrics    string        `json:"metrics,omitempty"` // where Prometheus asks; absent: nowhere
	Endpoints  []string      `json:"endpoints"`
	CertExpiry time.Time     `json:"certificateNotAfter"`
	Gossip     GossipStatus  `json:"gossip"`
	Slices     []SliceStatus `json:"slices"`
	Warnings   []string      `json:"warnings"`

	Cluster *ClusterStatus `json:"cluster,omitempty"` // of a node that runs in a Kubernetes cluster
	Hub     *HubStatus     `json:"hub,omitempty"`     // of a node that has its objects from a hub
}

// ClusterStatus is the state of the node's part in the Kubernetes cluster that it
// runs in.
type ClusterStatus struct {
	Synced     bool       `json:"synced"` // it has seen all objects
	Heard      *time.Time `json:"heard"`  // when the API server last said that it is well
	Fault      string     `json:"fault"`  // what is wrong; empty: nothing
	Exports    int        `json:"exports"`
	Doors      int        `json:"doors"`     // ports where pods reach imported services
	Names      int        `json:"names"`     // that pods may ask for
	NoAddress  int        `json:"noAddress"` // endpoints that are more than a node may publish
	IPv6Only   int        `json:"ipv6Only"`  // endpoints that the node has no IPv4 address for
	NoPort     int        `json:"noPort"`    // doors that no port was left for
	Writes     uint64     `json:"writes"`    // requests that write
	LostEvents uint64     `json:"lostEvents"`
}

// GossipStatus is the state of the control plane between nodes.
type GossipStatus struct {
	Listen  string            `json:"listen"` // "" on a leaf
	Leaf    bool              `json:"leaf"`   // it is no member and has sessions with gateways
	Members []MemberStatus    `json:"members"`
	Records int               `json:"records"`
	Refused map[string]uint64 `json:"refused"`
}

// MemberStatus is one gossip member, or one at the other end of a session.
type MemberStatus struct {
	Name    string `json:"name"`
	Address string `json:"address"` // of a leaf: where its session comes from
	State   string `json:"state"`
	Leaf    bool   `json:"leaf,omitempty"`
}

// SliceStatus is a slice as one node has it.
type SliceStatus struct {
	Name       string            `json:"name"`
	Namespaces []string          `json:"namespaces,omitempty"`        // bound to it at this site
	Allowed    []string          `json:"allowedNamespaces,omitempty"` // that may be on it besides
	Subnet     netip.Prefix      `json:"subnet"`
	Subnet6    netip.Prefix      `json:"subnet6"`
	Block      netip.Prefix      `json:"block"`
	Address    netip.Addr        `json:"address"`
	Address6   netip.Addr        `json:"address6"`
	Keys       KeyStatus         `json:"keys"`
	MTU        int               `json:"mtu"`
	Proxy      string            `json:"proxy,omitempty"`
	DNS        string            `json:"dns,omitempty"`
	NameServer NameStatus        `json:"nameServer"`
	Peers      []PeerStatus      `json:"peers"`
	Services   []ServiceStatus   `json:"services"`
	Publish    []PublishStatus   `json:"publish"`
	Routes     []RouteStatus     `json:"routes"` // networks behind sites
	Forward    []ForwardStatus   `json:"forward"`
	Workloads  []WorkloadStatus  `json:"workloads"`
	Counters   CounterStatus     `json:"counters"`
	Drops      map[string]uint64 `json:"drops"`
	Shaping    ShapingStatus     `json:"shaping"`
}

// ShapingStatus is how a slice is shaped on its way outside. Bytes are those that
// the underlay carries.
type ShapingStatus struct {
	CeilingKbps    int           `json:"ceilingKbps"`    // this node's part of the slice's; 0: none
	GuaranteedKbps int           `json:"guaranteedKbps"` // the same
	Classes        []ClassStatus `json:"classes"`
}

// ClassStatus is what has become of a class's packets.
type ClassStatus struct {
	Name         string `json:"name"`
	SentPackets  uint64 `json:"sentPackets"`
	SentBytes    uint64 `json:"sentBytes"`
	Drops        uint64 `json:"drops"` // packets
	Marks        uint64 `json:"marks"` // packets marked as having met congestion
	Waiting      int    `json:"waitingPackets"`
	WaitingBytes int    `json:"waitingBytes"`
}

// RouteStatus is a network behind a site.
type RouteStatus struct {
	Prefix netip.Prefix `json:"prefix"`        // as it is called on the slice
	Real   netip.Prefix `json:"real,omitzero"` // where it is another: as it is called at the site
	Site   string       `json:"site"`
	Nodes  []string     `json:"nodes"`         // that announce it, or a part of it, now; SITE/NODE
	Via    []string     `json:"via,omitempty"` // of this node: the workloads that lead there
}

// KeyStatus says how old a node's WireGuard key on a slice is.
type KeyStatus struct {
	Generation time.Time `json:"generation"` // the change that the key in use belongs to
	Changing   bool      `json:"changing"`   // there are two, the next or the last one among them
}

// PeerStatus is a tunnel to another node.
type PeerStatus struct {
	Site          string         `json:"site"`
	Node          string         `json:"node"`
	Endpoint      string         `json:"endpoint"`
	PublicKey     string         `json:"publicKey"`
	Prefixes      []netip.Prefix `json:"prefixes"`
	LastHandshake *time.Time     `json:"lastHandshake"` // null: never
	RxBytes       uint64         `json:"rxBytes"`
	TxBytes       uint64         `json:"txBytes"`
	Link          *LinkStatus    `json:"link,omitempty"` // absent: not watched
}

// LinkStatus is the state of a watched link to a peer.
type LinkStatus struct {
	Up      bool    `json:"up"`
	RTTMs   float64 `json:"rttMs"`
	Loss    float64 `json:"loss"`    // share of probes without an answer
	Changes int     `json:"changes"` // how often it went up or down
	Leaving bool    `json:"leaving"` // the peer asks other gateways to carry its load
}

// ServiceStatus is a service that can be reached on the slice.
type ServiceStatus struct {
	Name       string            `json:"name"`
	Namespace  string            `json:"namespace"`
	Type       string            `json:"type"`    // Headless or ClusterSetIP
	Virtual    netip.Addr        `json:"virtual"` // of a ClusterSetIP
	Virtual6   netip.Addr        `json:"virtual6"`
	DNSNames   []string          `json:"dnsNames"`
	Ports      []PortStatus      `json:"ports"`
	Endpoints  []EndpointStatus  `json:"endpoints"`
	Conditions []ConditionStatus `json:"conditions"`
}

// ConditionStatus says that an export gave way to an older one.
type ConditionStatus struct {
	Site    string `json:"site"`
	Node    string `json:"node"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// PortStatus is one port of a service.
type PortStatus struct {
	Name     string           `json:"name"`
	Port     uint16           `json:"port"`
	Protocol overlay.Protocol `json:"protocol"`
}

// EndpointStatus is one backend of a service and the node that publishes it.
type EndpointStatus struct {
	Name     string     `json:"name"`
	Site     string     `json:"site"`
	Node     string     `json:"node"`
	Address  netip.Addr `json:"address"`
	Address6 netip.Addr `json:"address6"`
	Lost     bool       `json:"lost"` // not reached, and not in answers
	Rank     uint8      `json:"rank"` // how near: answers hold the lowest first
}

// PublishStatus is a backend that this node publishes.
type PublishStatus struct {
	Service   string `json:"service"` // namespace/name
	Backend   string `json:"backend"`
	Address   string `json:"address"`
	Listening bool   `json:"listening"`
	Active    int    `json:"active"`
	Error     string `json:"error,omitempty"`
}

// ForwardStatus is a local port that leads to a destination on the slice.
type ForwardStatus struct {
	Listen string `json:"listen"`
	To     string `json:"to"`
	Active int    `json:"active"`
}

// CounterStatus counts whole inner packets; outside means from and to tunnels.
type CounterStatus struct {
	OutsideRxPackets uint64 `json:"outsideRxPackets"`
	OutsideRxBytes   uint64 `json:"outsideRxBytes"`
	OutsideTxPackets uint64 `json:"outsideTxPackets"`
	OutsideTxBytes   uint64 `json:"outsideTxBytes"`
	ICMPErrors       uint64 `json:"icmpErrors"`      // that this node sent
	ICMPLimited      uint64 `json:"icmpLimited"`     // that it did not send: too many
	Cut              uint64 `json:"cut"`             // packets that were cut into fragments
	Fragments        uint64 `json:"fragments"`       // what they were cut into
	InsideRxPackets  uint64 `json:"insideRxPackets"` // from workloads, those that have ended too
	InsideTxPackets  uint64 `json:"insideTxPackets"` // to workloads
	LocalRxPackets   uint64 `json:"localRxPackets"`  // from the node's own stack
	LocalTxPackets   uint64 `json:"localTxPackets"`  // to it
	Copies           uint64 `json:"copies"`          // packets made of those to groups, besides the one that came
	EdgeDrops        uint64 `json:"edgeDrops"`       // of all drops, those of the workloads' devices and of the node's stack: before Rx, after Tx
}

// CaptureRequest asks for a capture. The answer is pcapng.
type CaptureRequest struct {
	Slice  string   `json:"slice"`  // empty: all
	Points []string `json:"points"` // port, tunnel, shaper, underlay, drop; none: port
	Filter string   `json:"filter"`
	Snap   int      `json:"snap"`  // bytes of each packet; 0: some
	Count  uint64   `json:"count"` // 0: until the client leaves
}

// PingRequest asks the daemon to send echo requests on a slice.
type PingRequest struct {
	Slice    string        `json:"slice"`  // empty: the only slice of the node
	Target   string        `json:"target"` // address, DNS name, namespace/service or site/node
	Count    int           `json:"count"`
	Interval time.Duration `json:"interval"`
	Timeout  time.Duration `json:"timeout"`
}

// PingReply is one line of a ping's answer.
type PingReply struct {
	Seq     int        `json:"seq"`
	Slice   string     `json:"slice"`
	Address netip.Addr `json:"address"`
	RTTMs   float64    `json:"rttMs"`
	Error   string     `json:"error,omitempty"` // why there is no RTT
}

// Error is the body of every answer that is not a success.
type Error struct {
	Error string `json:"error"`
}

// WorkloadStatus is a program or a namespace that is on a slice with addresses
// of its own.
type WorkloadStatus struct {
	Name      string     `json:"name"`
	Kind      string     `json:"kind"` // run or attach
	Namespace string     `json:"namespace,omitempty"`
	Address   netip.Addr `json:"address"`
	Address6  netip.Addr `json:"address6"`
	UID       uint32     `json:"uid"`
	PID       int        `json:"pid,omitempty"`     // of a run's client
	Command   string     `json:"command,omitempty"` // of a run: the program's name; of an attached namespace: whose it is
	Netns     string     `json:"netns,omitempty"`   // of an attached namespace
	Device    string     `json:"device"`
	Medium    string     `json:"medium"` // tun or packet
	Since     time.Time  `json:"since"`
	RxPackets uint64     `json:"rxPackets"` // what the workload received
	RxBytes   uint64     `json:"rxBytes"`
	TxPackets uint64     `json:"txPackets"` // what the workload sent
	TxBytes   uint64     `json:"txBytes"`
}

// WorkloadRequest asks for a place on a slice.
type WorkloadRequest struct {
	Kind  string `json:"kind"`           // run or attach
	Slice string `json:"slice"`          // empty: the only slice of the node
	Name  string `json:"name,omitempty"` // of a run; empty: the daemon names it
	// Namespace is the one it is in, for policies; empty: the only one of the slice at this site.
	Namespace string `json:"namespace,omitempty"`
	Command   string `json:"command,omitempty"` // of a run, or whose an attached namespace is, for status
	Netns     string `json:"netns,omitempty"`   // of an attach, for status and detach
	Device    string `json:"device"`
	// Address is the one that an attached namespace had before; it gets it again if
	// the slice has it free. The zero address: any.
	Address netip.Addr `json:"address,omitzero"`
}

// WorkloadOffer is the place that a workload got.
type WorkloadOffer struct {
	Slice    string         `json:"slice"`
	Name     string         `json:"name"`
	Address  netip.Addr     `json:"address"`
	Address6 netip.Addr     `json:"address6"`
	Subnet   netip.Prefix   `json:"subnet"`
	Subnet6  netip.Prefix   `json:"subnet6"`
	Routes   []netip.Prefix `json:"routes,omitempty"` // networks behind the slice's sites
	MTU      int            `json:"mtu"`
	DNS      []netip.Addr   `json:"dns"`
	Search   []string       `json:"search"`
	Proxy    string         `json:"proxy,omitempty"` // the slice's proxy, another way onto it
}

// DetachRequest takes a network namespace off a slice.
type DetachRequest struct {
	Slice  string `json:"slice"` // empty: the only slice of the node
	Netns  string `json:"netns"`
	Device string `json:"device"` // empty: every device of that namespace
}
