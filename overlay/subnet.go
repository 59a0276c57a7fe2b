package overlay

import (
	"fmt"
	"net/netip"
	"slices"
)

// A SubnetRoute is a prefix outside the slice's own subnets that a node reaches
// by one of its workloads: a network behind its site.
type SubnetRoute struct {
	Slice  string
	Prefix netip.Prefix
	Via    string // the workload's name
}

// AttachRoutes adds to the attachments the routes that a node has now, which it
// then announces. A route needs three yeses: the manifests give the prefix to the
// node's site, the certificate grants it, and the workload is there, which up
// says. A workload that is not there is no fault; the others are said.
func AttachRoutes(mesh *Mesh, self Authority, attachments []Attachment, routes []SubnetRoute, up func(slice, workload string) bool) []error {
	var errs []error
	for i := range attachments {
		a := &attachments[i]
		s, known := mesh.Slice(a.Slice)
		if !known {
			continue
		}
		site, _ := s.Site(self.ID.Site)
		for _, r := range routes {
			if r.Slice != a.Slice {
				continue
			}
			switch {
			case !slices.ContainsFunc(site.Routes, func(p netip.Prefix) bool { return covers(p, r.Prefix) }):
				errs = append(errs, fmt.Errorf("slice %s: route %v: the manifests do not give it to site %s", a.Slice, r.Prefix, site.Name))
			case !self.granted(a.Slice, r.Prefix):
				errs = append(errs, fmt.Errorf("slice %s: route %v: the node certificate does not grant it: have the certificate signed again with these manifests", a.Slice, r.Prefix))
			case up(r.Slice, r.Via):
				a.Routes = append(a.Routes, r)
				a.Announce = append(a.Announce, r.Prefix)
			}
		}
		slices.SortFunc(a.Announce, comparePrefix)
		a.Announce = slices.Compact(a.Announce)
	}
	return errs
}

// RoutesBeside lists the prefixes behind all sites of a slice that a workload of
// that name at the given site does not itself lead to, sorted.
func (s *Slice) RoutesBeside(own []SubnetRoute, workload string) []netip.Prefix {
	var out []netip.Prefix
	for _, site := range s.Sites {
		for _, p := range site.Routes {
			if !slices.ContainsFunc(own, func(r SubnetRoute) bool { return r.Slice == s.Name && r.Via == workload && p.Overlaps(r.Prefix) }) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, comparePrefix)
	return out
}
