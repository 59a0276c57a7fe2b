package hub

import (
	"encoding/json"
	"fmt"
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
	Imports []Import // of all sites, for the metrics

	// Links is how the site stands with others, by every gateway of theirs; nil: another
	// node of the site says it.
	Links []Link

	// PodIPs are addresses in the cluster of pods behind Exports, by namespace/name; a
	// pod need not have one.
	PodIPs map[string]string

	// By what pods of the site's cluster prove who they are; empty: not known, or the
	// site is no cluster.
	TokenIssuer, TokenKeys string
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

// PodTokens returns by what a site's pods prove who they are, as the site told the
// hub: the issuer of their tokens and its keys, a JSON Web Key Set. Both are as
// they are on the hub: for the caller to check. The hub need not answer now.
func (h *Hub) PodTokens(site string) (issuer, keys string, err error) {
	h.mu.Lock()
	d := h.guard.known[fmt.Sprintf("%sCluster/%s/%s", idPrefix, h.cfg.Namespace, site)]
	h.mu.Unlock()
	if d == nil {
		return "", "", fmt.Errorf("the hub has no Cluster %s/%s", h.cfg.Namespace, site)
	}
	var o struct {
		Status struct {
			PodTokens *manifest.PodTokens `json:"podTokens"`
		} `json:"status"`
	}
	if err := json.Unmarshal(d.Body, &o); err != nil {
		return "", "", fmt.Errorf("status.podTokens of Cluster %s/%s: %w", h.cfg.Namespace, site, err)
	}
	if o.Status.PodTokens == nil {
		return "", "", fmt.Errorf("the Cluster %s/%s has no status.podTokens: its nodes tell them when they have kubernetes.cluster in their node files", h.cfg.Namespace, site)
	}
	return o.Status.PodTokens.Issuer, o.Status.PodTokens.Keys, nil
}

// Tell says what is so at this site. f is not changed after.
func (h *Hub) Tell(f Facts) {
	h.mu.Lock()
	h.facts = &f
	h.mu.Unlock()
	signal(h.poke)
}
