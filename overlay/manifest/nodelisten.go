package manifest

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// loopbackHost reports whether only this machine reaches a host.
func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

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
	if !loopbackHost(host) {
		return []Problem{n.problem(Warning, field, "%s is not a loopback address: whoever reaches it is on the slice, nobody is asked for a password", addr)}
	}
	return nil
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
