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
	Prefix netip.Prefix // as it is called on the slice
	Real   netip.Prefix // as it is called behind the node; of the same length, and mostly the same
	Via    string       // the workload's name
}

// AttachRoutes adds to the attachments the routes that a node has now, which it
// then announces; of routes, Real counts. A route needs three yeses: the manifests
// give the prefix to the node's site, the certificate grants it, and the workload
// is there, which up says. A workload that is not there is no fault; the others are said.
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
			var given bool
			r.Prefix, given = site.Announced(r.Real)
			switch {
			case !given:
				errs = append(errs, fmt.Errorf("slice %s: route %v: the manifests do not give it to site %s", a.Slice, r.Real, site.Name))
			case !self.granted(a.Slice, r.Prefix):
				errs = append(errs, fmt.Errorf("slice %s: route %s: the node certificate does not grant it: have the certificate signed again with these manifests", a.Slice, r))
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

// String returns the route's prefix on the slice, and where that is another one
// the real one.
func (r SubnetRoute) String() string {
	if r.Real == r.Prefix {
		return r.Prefix.String()
	}
	return fmt.Sprintf("%v (mapped from %v)", r.Prefix, r.Real)
}

// RoutesBeside lists the prefixes behind all sites of a slice that a workload of
// that name at the site here does not itself lead to, sorted.
func (s *Slice) RoutesBeside(here string, own []SubnetRoute, workload string) []netip.Prefix {
	var out []netip.Prefix
	for _, site := range s.Sites {
		for _, p := range site.Routes {
			leads := func(r SubnetRoute) bool {
				as, _ := site.Announced(r.Real)
				return site.Name == here && r.Slice == s.Name && r.Via == workload && p.Overlaps(as)
			}
			if !slices.ContainsFunc(own, leads) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, comparePrefix)
	return out
}
