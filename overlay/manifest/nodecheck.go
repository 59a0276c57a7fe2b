package manifest

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"slicewire/overlay"
)

// worst is how bad it is when the node file names what the objects do not have.
// Objects that come and go by themselves do not stop a node.
func (b *builder) worst() Severity {
	if b.opts.Live {
		return Warning
	}
	return Error
}

// checkNode checks a node file against the mesh and adds what it exports.
func (b *builder) checkNode(n *NodeFile) {
	report := func(sev Severity, field, format string, args ...any) {
		b.problems = append(b.problems, n.problem(sev, field, format, args...))
	}
	if n.Site != "" && len(b.mesh.Slices) > 0 && !slices.ContainsFunc(b.mesh.Slices, func(s overlay.Slice) bool {
		_, ok := s.Site(n.Site)
		return ok
	}) {
		report(Warning, "site", "%q is a cluster of no slice%s", n.Site, didYouMean(n.Site, b.sites()))
	}
	for _, name := range sortedKeys(n.Slices) {
		b.sliceHere(n, "slices."+name, name)
	}
	for i, f := range n.Forward {
		b.sliceHere(n, fmt.Sprintf("forward[%d].slice", i), f.Slice)
	}
	for i, r := range n.Routes {
		at := fmt.Sprintf("routes[%d].", i)
		s := b.sliceHere(n, at+"slice", r.Slice)
		if s == nil {
			continue
		}
		site, _ := s.Site(n.Site)
		given := func(p netip.Prefix) bool { return p.Bits() <= r.Prefix.Bits() && p.Contains(r.Prefix.Addr()) }
		if !slices.ContainsFunc(site.Routes, given) {
			report(b.worst(), at+"prefix", "%v is not given to %s: name it in the annotation %s of SliceConfig %s", r.Prefix, n.Site, AnnotationSiteRoutes, s.Name)
		}
	}
	for i, p := range n.Publish {
		at := fmt.Sprintf("publish[%d].", i)
		s := b.sliceHere(n, at+"slice", p.Slice)
		if s == nil || p.Service == "" || p.Namespace == "" {
			continue
		}
		if !boundAt(s, p.Namespace, n.Site) {
			report(b.worst(), at+"namespace", "namespace %q is not bound to slice %s at %s (namespaceIsolationProfile.applicationNamespaces)", p.Namespace, s.Name, n.Site)
			continue
		}
		svc := b.exportedBy(s, p)
		if svc == nil {
			report(b.worst(), at+"service", "%s/%s is not exported on slice %s: add a ServiceExport, or export here%s",
				p.Namespace, p.Service, s.Name, didYouMean(p.Service, b.serviceNames(s.Name, p.Namespace)))
			continue
		}
		for _, msg := range matchPorts(svc.Ports, p) {
			report(b.worst(), at+msg.field, "%s", msg.text)
		}
		if svc.from != nil && len(p.Export) > 0 {
			report(Warning, at+"export", "is ignored: %s exports the service", svc.from.ID())
		}
	}
}

// exportedBy returns the service that p is a backend of, after adding it when
// p exports it itself; nil when nobody exports it.
func (b *builder) exportedBy(s *overlay.Slice, p Publish) *service {
	key := serviceKey{s.Name, p.Namespace, p.Service}
	svc := b.services[key]
	if len(p.Export) == 0 || svc != nil && svc.from != nil {
		return svc
	}
	if svc == nil {
		svc = &service{}
		svc.Name, svc.Namespace = p.Service, p.Namespace
		svc.DNSNames = []string{overlay.ServiceDNSName(p.Service, p.Namespace)}
		b.services[key] = svc
	}
	if p.Type != "" {
		svc.Type, _ = overlay.ParseServiceType(p.Type)
	}
	for _, e := range p.Export {
		port := overlay.ServicePort{Name: e.Name, Port: e.Port, Protocol: overlay.Protocol(e.Protocol)}
		if !slices.Contains(svc.Ports, port) {
			svc.Ports = append(svc.Ports, port)
		}
	}
	return svc
}

// sliceHere returns the slice of that name if the node can take part in it,
// else nil, after saying why.
func (b *builder) sliceHere(n *NodeFile, field, name string) *overlay.Slice {
	s, ok := b.mesh.Slice(name)
	if !ok {
		if name != "" {
			why := fmt.Sprintf("there is no slice %q%s", name, didYouMean(name, b.names("SliceConfig")))
			if b.leftOut[name] {
				why = fmt.Sprintf("slice %q has errors", name)
			}
			b.problems = append(b.problems, n.problem(b.worst(), field, "%s", why))
		}
		return nil
	}
	if _, ok := s.Site(n.Site); !ok {
		b.problems = append(b.problems, n.problem(b.worst(), field, "site %q is not one of the clusters of slice %s", n.Site, name))
		return nil
	}
	if s.Mode != overlay.SingleNetwork {
		b.problems = append(b.problems, n.problem(b.worst(), field, "slice %s is %s: it has no addresses", name, s.Mode))
		return nil
	}
	return s
}

type fieldText struct{ field, text string }

// matchPorts says how a backend's targets differ from the service's ports.
func matchPorts(ports []overlay.ServicePort, p Publish) []fieldText {
	if p.Target != "" {
		if len(ports) != 1 {
			return []fieldText{{"target", fmt.Sprintf("the service has %d ports: give ports with a target each", len(ports))}}
		}
		return nil
	}
	var out []fieldText
	var names, have []string
	for _, port := range ports {
		names = append(names, port.Name)
	}
	for i, t := range p.Ports {
		have = append(have, t.Name)
		if !slices.Contains(names, t.Name) {
			out = append(out, fieldText{fmt.Sprintf("ports[%d].name", i), fmt.Sprintf("the service has no port %q (it has %s)%s", t.Name, quoted(names), didYouMean(t.Name, names))})
		}
	}
	for _, name := range names {
		if !slices.Contains(have, name) && len(p.Ports) > 0 {
			out = append(out, fieldText{"ports", fmt.Sprintf("port %q of the service has no target", name)})
		}
	}
	return out
}

func quoted(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return `"` + strings.Join(names, `", "`) + `"`
}

func (b *builder) sites() []string {
	var names []string
	for _, s := range b.mesh.Slices {
		for _, site := range s.Sites {
			names = append(names, site.Name)
		}
	}
	return names
}

func (b *builder) serviceNames(slice, namespace string) []string {
	var names []string
	for key := range b.services {
		if key.slice == slice && key.namespace == namespace {
			names = append(names, key.name)
		}
	}
	slices.Sort(names)
	return names
}

// checkAdvertised refuses what no other node could send to.
func checkAdvertised(a netip.AddrPort) error {
	if !a.IsValid() || a.Port() == 0 || a.Addr().IsUnspecified() || a.Addr().IsMulticast() {
		return fmt.Errorf("%v cannot be reached: want the address and port that other nodes send to", a)
	}
	return nil
}
