package manifest

import (
	"fmt"
	"net/netip"

	"slicewire/overlay"
)

// NodeSlice is what a node sets for one slice.
type NodeSlice struct {
	Proxy string `json:"proxy"` // SOCKS5 and HTTP CONNECT: host:port or unix:/path; empty: none
	DNS   string `json:"dns"`   // host:port of a local DNS listener; empty: none
	MTU   int    `json:"mtu"`   // bytes; overlay.DefaultMTU unless set

	Answers      string   `json:"answers" enum:"all,near,one"`          // how many endpoints an answer holds; all unless set
	Zones        []string `json:"zones"`                                // further zones in which services have their names
	UnknownNames string   `json:"unknownNames" enum:"nxdomain,noerror"` // what is said of names that do not exist; nxdomain unless set
	Upstream     []string `json:"upstream"`                             // who is asked for other names on behalf of this node and its runs: "node" or address[:port]; empty: nobody
	PrivateZones []string `json:"privateZones"`                         // whose names may lead to addresses that are not public, when asked upstream
	Resolver     string   `json:"resolver" enum:"auto,off"`             // whether this machine's systemd-resolved is to ask DNS for the slice's names; auto unless set: where it can
}

// ResolverOff has the machine's resolver left alone.
const ResolverOff = "off"

// UpstreamNode stands for the resolvers that the node itself uses.
const UpstreamNode = "node"

// ParseUpstream reads the address of a resolver; its port is 53 unless given.
func ParseUpstream(s string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.ParseAddrPort(s)
}

// maxZoneName leaves room for the names in a zone.
const maxZoneName = 100

// maxZones bounds a slice's zones: each costs every service a name.
const maxZones = 8

func (n *NodeFile) checkSlice(name string) []Problem {
	var out []Problem
	s, at := n.Slices[name], "slices."+name
	if !overlay.ValidLabel(name) {
		out = append(out, n.problem(Error, at, "%q is not a DNS label", name))
	}
	if s.MTU < minMTU || s.MTU > maxMTU {
		out = append(out, n.problem(Error, at+".mtu", "%d is outside %d to %d", s.MTU, minMTU, maxMTU))
	}
	if s.Proxy != "" {
		out = append(out, n.checkListener(at+".proxy", s.Proxy, true)...)
	}
	if s.DNS != "" {
		out = append(out, n.checkListener(at+".dns", s.DNS, false)...)
	}
	if len(s.Zones) > maxZones {
		out = append(out, n.problem(Error, at+".zones", "%d are more than the %d that there may be", len(s.Zones), maxZones))
	}
	for i, z := range s.Zones {
		if !overlay.ValidDNSName(z) || overlay.InZones(z) || len(z) > maxZoneName {
			out = append(out, n.problem(Error, fmt.Sprintf("%s.zones[%d]", at, i), "%q is no name of a further zone (lower case, at most %d characters, outside %s and %s)", z, maxZoneName, overlay.Zone, overlay.ClusterSetZone))
		}
	}
	for i, z := range s.PrivateZones {
		if !overlay.ValidDNSName(z) {
			out = append(out, n.problem(Error, fmt.Sprintf("%s.privateZones[%d]", at, i), "%q is no name of a zone", z))
		}
	}
	for i, u := range s.Upstream {
		if _, err := ParseUpstream(u); u != UpstreamNode && err != nil {
			out = append(out, n.problem(Error, fmt.Sprintf("%s.upstream[%d]", at, i), "%q is neither %q nor an address with or without a port", u, UpstreamNode))
		}
	}
	return out
}
