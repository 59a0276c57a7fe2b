package overlay

import "net/netip"

// IsGroups reports whether a prefix is one of multicast addresses only, or the
// broadcast address 255.255.255.255.
func IsGroups(p netip.Prefix) bool {
	switch a := p.Addr(); {
	case !p.IsValid() || a.Is4In6():
		return false
	case a.Is4() && a.As4()[0] == 255:
		return p == netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), 32)
	case a.Is4():
		return a.IsMulticast() && p.Bits() >= 4
	default:
		return a.IsMulticast() && p.Bits() >= 8
	}
}

// Members lists the other nodes of a slice that copies of what is sent to groups
// go to, with their own addresses: the nodes whose block is known.
func Members(self NodeID, s *Slice, nodes []Node) []Member {
	var out []Member
	for _, n := range nodes {
		if n.ID == self {
			continue
		}
		for _, p := range n.Prefixes {
			if p.Addr().Is4() && s.Subnet.Contains(p.Addr()) {
				out = append(out, Member{Addr: NodeAddr(p), Prefixes: n.Prefixes})
				break
			}
		}
	}
	return out
}

// A Member is a node that gets what is sent to groups.
type Member struct {
	Addr     netip.Addr
	Prefixes []netip.Prefix
}
