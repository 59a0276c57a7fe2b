package overlay

import "net/netip"

// A Tier is one of the questions that a packet has to pass. Every tier has to
// allow it; within a tier rules add up.
type Tier uint8

// The tiers, in the order in which they are asked.
const (
	TierIsolation Tier = iota // namespaceIsolationProfile
	TierPolicy                // SlicePolicy objects
	NumTiers
)

// A Rule is one compiled permission for one direction, over nothing but
// prefixes, protocols and ports. An address that is among the Subject of any
// rule of a tier and direction is selected there: it may then do only what such
// a rule says. One that no rule selects may do everything. A rule without Peers
// selects and permits nothing, which is how "deny" is written.
type Rule struct {
	Name    string // unique: "SlicePolicy shop/web ingress[0]"
	Tier    Tier
	Ingress bool // else egress
	Subject []Block
	Peer    []Block
	Ports   []PortRange // none: every protocol and port
}

// A Block is a prefix less some prefixes inside it.
type Block struct {
	Prefix netip.Prefix
	Except []netip.Prefix
}

// A PortRange is a protocol and, where it has them, destination ports.
type PortRange struct {
	Proto       uint8  // an IP protocol number; ProtoAny: every one; ICMP: also ICMPv6
	First, Last uint16 // both 0: every port, and what has none
}

// IP protocol numbers of rules.
const (
	ProtoAny  = 0
	ProtoICMP = 1
	ProtoTCP  = 6
	ProtoUDP  = 17
	ProtoGRE  = 47
	ProtoSCTP = 132

	protoICMPv6 = 58
)

// Matches reports whether a packet of that protocol, to that port, is meant.
func (r PortRange) Matches(proto uint8, port uint16) bool {
	if r.Proto != ProtoAny && r.Proto != proto && (r.Proto != ProtoICMP || proto != protoICMPv6) {
		return false
	}
	if r.First == 0 && r.Last == 0 {
		return true
	}
	return (proto == ProtoTCP || proto == ProtoUDP) && r.First <= port && port <= r.Last
}

// Contains reports whether an address is in the block.
func (b Block) Contains(a netip.Addr) bool {
	if !b.Prefix.Contains(a) {
		return false
	}
	for _, x := range b.Except {
		if x.Contains(a) {
			return false
		}
	}
	return true
}
