package manifest

import (
	"fmt"
)

// checkPorts checks what a published service leads to.
func (n *NodeFile) checkPorts(at string, p Publish) []Problem {
	var out []Problem
	fail := func(field, format string, args ...any) {
		out = append(out, n.problem(Error, at+field, format, args...))
	}
	out = append(out, n.checkAddresses(at, p)...)
	switch {
	case len(p.Addresses) > 0:
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

// checkAddresses checks those of a host behind the node.
func (n *NodeFile) checkAddresses(at string, p Publish) []Problem {
	if len(p.Addresses) > 0 && (p.Target != "" || len(p.Ports) > 0 || p.Check == "tcp") {
		return []Problem{n.problem(Error, at+"addresses", "are of a host behind this node, which needs no target, ports or check")}
	}
	if len(p.Addresses) > 0 && p.Proxy != "" {
		return []Problem{n.problem(Error, at+"proxyProtocol", "is for targets; a host behind this node sees its clients as they are")}
	}
	for j, a := range p.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || j > 0 && a.Is4() == p.Addresses[0].Is4() || j > 1 {
			return []Problem{n.problem(Error, fmt.Sprintf("%saddresses[%d]", at, j), "want one address of each family at most, not %v", p.Addresses)}
		}
	}
	return nil
}
