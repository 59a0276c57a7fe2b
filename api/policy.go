package api

import (
	"net/netip"

	"slicewire/overlay"
	"slicewire/router"
)

// FlowList is what `slicewire flows` shows of a daemon.
type FlowList struct {
	APIVersion string        `json:"apiVersion"`
	Kind       string        `json:"kind"`
	Flows      []FlowStatus  `json:"flows"`
	Rules      []RuleStatus  `json:"rules"`
	Slices     []PolicyState `json:"slices"`
}

// PolicyState says whether a slice of the node has a policy at all.
type PolicyState struct {
	Slice string `json:"slice"`
	Rules int    `json:"rules"` // 0: everything may pass, and no flow is remembered
}

// FlowStatus is a flow that policy allowed. Source and Destination are those of
// its first packet.
type FlowStatus struct {
	Slice           string     `json:"slice"`
	Protocol        string     `json:"protocol"`
	Source          netip.Addr `json:"source"`
	SourcePort      uint16     `json:"sourcePort"` // of an echo: its identifier
	Destination     netip.Addr `json:"destination"`
	DestinationPort uint16     `json:"destinationPort"`
	SourceHere      bool       `json:"sourceHere"` // the end is on this node
	DestinationHere bool       `json:"destinationHere"`
	Packets         uint64     `json:"packets"`
	Bytes           uint64     `json:"bytes"`
	BackPackets     uint64     `json:"backPackets"`
	BackBytes       uint64     `json:"backBytes"`
	AgeSecs         float64    `json:"ageSeconds"`
	IdleSecs        float64    `json:"idleSeconds"`
	Egress          string     `json:"egress"`  // rule that allowed it; empty: none selects the source
	Ingress         string     `json:"ingress"` // the same of the destination
}

// RuleStatus is a rule of a slice's policy and what it has decided.
type RuleStatus struct {
	Slice   string `json:"slice"`
	Name    string `json:"name"`
	Flows   uint64 `json:"flows"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Denied  uint64 `json:"denied"` // packets
}

// TraceRequest asks what would happen to a packet.
type TraceRequest struct {
	Slice    string `json:"slice"` // empty: the only slice of the node
	From     string `json:"from"`  // address, DNS name, namespace/service, site/node or workload
	To       string `json:"to"`
	Protocol string `json:"protocol"` // tcp, udp, icmp, or a number
	Sport    uint16 `json:"sport"`
	Dport    uint16 `json:"dport"`
	Send     bool   `json:"send"` // send one, too
}

// TraceReply says what would happen to it, stage by stage.
type TraceReply struct {
	APIVersion  string       `json:"apiVersion"`
	Kind        string       `json:"kind"`
	Slice       string       `json:"slice"`
	Source      netip.Addr   `json:"source"`
	Destination netip.Addr   `json:"destination"`
	Protocol    string       `json:"protocol"`
	Stages      []TraceStage `json:"stages"`
	Passes      bool         `json:"passes"`
	Drop        string       `json:"drop,omitempty"` // the reason it would be counted under
	Sent        string       `json:"sent,omitempty"` // what became of the packet that was sent
	Arrived     bool         `json:"arrived"`        // it was sent, and was seen at its destination or answered
	Hops        []TraceHop   `json:"hops,omitempty"` // where it was seen, in the order in which that became known
}

// TraceHop is what one node saw of a packet that was sent.
type TraceHop struct {
	Node   string `json:"node"`  // as its tunnel proves; "a (says b)": as b says of its peer a
	Point  string `json:"point"` // port, router, shaper, tunnel; watch: the node does not look out
	Result string `json:"result"`
	OK     bool   `json:"ok"`
	Last   bool   `json:"last"` // arrived or dropped
}

// TraceStage is one question that a packet meets.
type TraceStage struct {
	Stage  string `json:"stage"` // peer, source, flow, policy, route, output
	Result string `json:"result"`
	OK     bool   `json:"ok"`
}

// PolicyFacts is what a proposal for a slice's policy is judged by.
type PolicyFacts struct {
	Slice   string                    `json:"slice"`
	Node    overlay.NodeID            `json:"node"`
	Nodes   []overlay.Node            `json:"nodes"`
	Known   []overlay.Known           `json:"known"`
	Indexes map[string]map[string]int `json:"indexes"`
	Mesh    string                    `json:"mesh"`
	Flows   []router.FlowInfo         `json:"flows"`
	Open    bool                      `json:"open,omitempty"` // no policy now: no flow is remembered
}
