package hub

import (
	"slices"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// A Result is what the objects of the hub and others come to.
type Result struct {
	Mesh     overlay.Mesh
	Problems []manifest.Problem
}

// Facts is what this node knows of its site. Every node of a site says the same.
type Facts struct {
	NodeIPs []string // where others reach the site's gateways, sorted
	Exports []Export
}

// An Export is a service that this site exports on a slice.
type Export struct {
	Slice, Namespace, Name string
	Ports                  []overlay.ServicePort
	Aliases                []string
	Endpoints              []overlay.Endpoint // of this site
}

// ExportsOf picks from the services of a slice what a site exports.
func ExportsOf(site, slice string, services []overlay.ServiceView) []Export {
	var out []Export
	for _, s := range services {
		e := Export{Slice: slice, Namespace: s.Namespace, Name: s.Name}
		for _, x := range s.Endpoints {
			if x.Origin.Site != site {
				continue
			}
			e.Endpoints = append(e.Endpoints, x.Endpoint)
			for _, p := range x.Ports {
				if !slices.Contains(e.Ports, p) {
					e.Ports = append(e.Ports, p)
				}
			}
		}
		if len(e.Endpoints) == 0 {
			continue
		}
		canonical := overlay.ServiceDNSName(s.Name, s.Namespace)
		for _, n := range s.DNSNames {
			if n != canonical {
				e.Aliases = append(e.Aliases, n)
			}
		}
		out = append(out, e)
	}
	return out
}

// Tell says what is so at this site. f is not changed after.
func (h *Hub) Tell(f Facts) {
	h.mu.Lock()
	h.facts = &f
	h.mu.Unlock()
	signal(h.poke)
}
