package publish

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"slicewire/overlay"
)

// A Backend is one endpoint of a service, with overlay addresses of its own.
type Backend struct {
	Name  string
	Addrs []netip.Addr // overlay, IPv4 and IPv6; each has all ports
	Ports []Port
}

// A Port leads from an overlay port to a target on the host's side.
type Port struct {
	Name     string
	Port     uint16
	Protocol overlay.Protocol
	Target   string // "host:port", or "unix:/path" with TCP
	// Proxied has each connection to the target begin with a header of the PROXY
	// protocol, version 2, that names the member and the address it has called. For
	// TCP.
	Proxied bool
}

// key names a socket on the slice.
type key struct {
	addr netip.AddrPort
	udp  bool
}

func (k key) String() string {
	if k.udp {
		return "udp " + k.addr.String()
	}
	return "tcp " + k.addr.String()
}

// A target is where a port leads.
type target struct {
	network, addr string
	proxied       bool
}

// a spec is one socket that should be open.
type spec struct {
	key     key
	backend string
	port    string
	target  target
}

// specs returns what backends ask for, in their order. What is wrong is left
// out and reported, each fault with the backend and port that has it.
func specs(backends []Backend) (out []spec, err error) {
	var faults []error
	seen := make(map[key]string)
	for _, b := range backends {
		for _, p := range b.Ports {
			where := fmt.Sprintf("publish %s port %d/%s", b.Name, p.Port, p.Protocol)
			to, err := parseTarget(p)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", where, err))
				continue
			}
			for _, a := range b.Addrs {
				k := key{netip.AddrPortFrom(a.Unmap(), p.Port), p.Protocol == overlay.UDP}
				if !a.IsValid() || a.IsUnspecified() {
					faults = append(faults, fmt.Errorf("%s: %v is not an address of a backend", where, a))
					continue
				}
				if other, ok := seen[k]; ok {
					faults = append(faults, fmt.Errorf("%s: %v is taken by backend %s", where, k, other))
					continue
				}
				seen[k] = b.Name
				out = append(out, spec{k, b.Name, p.Name, to})
			}
		}
	}
	return out, errors.Join(faults...)
}

func parseTarget(p Port) (target, error) {
	if p.Port == 0 {
		return target{}, errors.New("port is 0")
	}
	if p.Protocol != overlay.TCP && p.Protocol != overlay.UDP {
		return target{}, fmt.Errorf("protocol %q is neither TCP nor UDP", p.Protocol)
	}
	if p.Proxied && p.Protocol != overlay.TCP {
		return target{}, errors.New("the PROXY protocol is for TCP ports")
	}
	if path, ok := strings.CutPrefix(p.Target, "unix:"); ok {
		if p.Protocol != overlay.TCP {
			return target{}, fmt.Errorf("target %q: a unix socket serves TCP ports", p.Target)
		}
		if path == "" {
			return target{}, fmt.Errorf("target %q: no path", p.Target)
		}
		return target{"unix", path, p.Proxied}, nil
	}
	host, port, err := net.SplitHostPort(p.Target)
	if err != nil {
		return target{}, fmt.Errorf("target %q is not host:port: %w", p.Target, err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return target{}, fmt.Errorf("target %q is not host:port", p.Target)
	}
	return target{strings.ToLower(string(p.Protocol)), p.Target, p.Proxied}, nil
}
