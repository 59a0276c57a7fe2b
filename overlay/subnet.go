package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
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

// AttachHosts adds to the attachments the published hosts that their Routes lead
// to, by the addresses that these have on the slice. One whose route is down is
// no fault.
func AttachHosts(mesh *Mesh, attachments []Attachment, publish []Backend) []error {
	var errs []error
	for i := range attachments {
		a := &attachments[i]
		s, known := mesh.Slice(a.Slice)
		if !known {
			continue
		}
		for _, b := range publish {
			if b.Slice != a.Slice || !b.behind() {
				continue
			}
			at := slices.IndexFunc(s.Services, func(x Service) bool { return x.Name == b.Service && x.Namespace == b.Namespace })
			if at < 0 {
				errs = append(errs, fmt.Errorf("slice %s: publish %s: no exported service %s/%s on this slice", s.Name, b.Name, b.Namespace, b.Service))
				continue
			}
			if on := (BackendAddr{a.onSlice(b.Host.Addr), a.onSlice(b.Host.Addr6)}); on != (BackendAddr{}) {
				a.Hosts = append(a.Hosts, AttachedBackend{Backend: b, BackendAddr: on, Service: s.Services[at]})
			}
		}
		slices.SortFunc(a.Hosts, func(x, y AttachedBackend) int { return strings.Compare(x.key(), y.key()) })
	}
	return errs
}

// onSlice returns the address on the slice of a host behind the node, or none if
// no route of now leads there.
func (a *Attachment) onSlice(host netip.Addr) netip.Addr {
	for _, r := range a.Routes {
		if r.Real.Contains(host) {
			return r.On(host)
		}
	}
	return netip.Addr{}
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
