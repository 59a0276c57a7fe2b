package manifest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// checkListener checks where something listens that asks nobody for a password.
func (n *NodeFile) checkListener(field, addr string, unixAllowed bool) []Problem {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok && unixAllowed {
		if path == "" {
			return []Problem{n.problem(Error, field, "unix: needs a path")}
		}
		return nil
	}
	host, err := checkHostPort(addr, 0)
	if err != nil {
		return []Problem{n.problem(Error, field, "%v", err)}
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return []Problem{n.problem(Warning, field, "%s is not a loopback address: whoever reaches it is on the slice, nobody is asked for a password", addr)}
	}
	return nil
}

func (n *NodeFile) checkPorts(at string, p Publish) []Problem {
	var out []Problem
	fail := func(field, format string, args ...any) {
		out = append(out, n.problem(Error, at+field, format, args...))
	}
	switch {
	case p.Target != "" && len(p.Ports) > 0:
		fail("target", "give target or ports, not both")
	case p.Target == "" && len(p.Ports) == 0:
		fail("target", "give target, or ports with a target each")
	case p.Target != "":
		if _, err := checkHostPort(p.Target, 1); err != nil {
			fail("target", "%v", err)
		}
	}
	if len(p.Ports) > maxListed || len(p.Export) > maxListed {
		fail("ports", "more than %d ports", maxListed)
		return out
	}
	seen := map[string]bool{}
	for j, port := range p.Ports {
		if seen[port.Name] {
			fail(fmt.Sprintf("ports[%d].name", j), "%q is there twice", port.Name)
		}
		seen[port.Name] = true
		if port.Target == "" {
			continue // reported as required
		}
		if _, err := checkHostPort(port.Target, 1); err != nil {
			fail(fmt.Sprintf("ports[%d].target", j), "%v", err)
		}
	}
	for j, e := range p.Export {
		for _, before := range p.Export[:j] {
			if e.Port == before.Port && e.Protocol == before.Protocol {
				fail(fmt.Sprintf("export[%d].port", j), "%d/%s is there twice", e.Port, e.Protocol)
			}
			if e.Name != "" && e.Name == before.Name {
				fail(fmt.Sprintf("export[%d].name", j), "%q is there twice", e.Name)
			}
		}
	}
	return out
}

// checkHostPort returns the host of a host:port whose host is an IP address or
// a DNS name and whose port is at least minPort.
func checkHostPort(s string, minPort int) (host string, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is not host:port", s)
	}
	if _, err := netip.ParseAddr(host); err != nil && !overlay.ValidDNSName(strings.ToLower(host)) {
		return "", fmt.Errorf("%q: the host is neither an IP address nor a DNS name", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < minPort || n > 65535 || strings.HasPrefix(port, "+") {
		return "", fmt.Errorf("%q: the port is not a number from %d to 65535", s, minPort)
	}
	return host, nil
}
