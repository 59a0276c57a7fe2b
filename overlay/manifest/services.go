package manifest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"slicewire/overlay"
)

type serviceKey struct{ slice, namespace, name string }

// service is an exported service and where it was exported.
type service struct {
	overlay.Service
	from *Object // nil for a node file
}

// defaultNamespace is where kubectl puts an object that names no namespace.
const defaultNamespace = "default"

func namespaceOf(o *Object) string {
	if o.Namespace == "" {
		return defaultNamespace
	}
	return o.Namespace
}

// buildServices adds the exports to b.services. ServiceExports come first, as
// they are what people write; then ServiceExportConfigs, which KubeSlice derives
// from the ServiceExports of its worker clusters.
func (b *builder) buildServices() {
	aliases := map[[2]string]*Object{} // (slice, lower-case name): who answers to it
	for _, o := range b.byKind["ServiceExport"] {
		slice := o.Body.(*ServiceExport).Spec.Slice
		aliases[[2]string{slice, overlay.ServiceDNSName(o.Name, namespaceOf(o))}] = o
	}
	for _, o := range b.byKind["ServiceExport"] {
		spec := &o.Body.(*ServiceExport).Spec
		namespace := namespaceOf(o)
		s, ok := b.exportedOn(o, "spec.slice", spec.Slice)
		svc := &service{from: o}
		svc.Name, svc.Namespace = o.Name, namespace
		svc.ExportTerms = b.terms(o, &o.Body.(*ServiceExport).Metadata)
		for i, p := range spec.Ports {
			b.addPort(o, svc, fmt.Sprintf("spec.ports[%d]", i), p.Name, "containerPort", p.ContainerPort, p.Protocol)
		}
		b.checkExport(o, svc, spec.Slice, spec.Aliases, aliases)
		if ok && !o.Broken && !bound(s, namespace) {
			b.warn(o, "metadata.namespace", "pending: namespace %q is not bound to slice %s (namespaceIsolationProfile.applicationNamespaces)", namespace, s.Name)
			continue
		}
		if ok && !o.Broken {
			b.services[serviceKey{s.Name, namespace, o.Name}] = svc
		}
	}
	for _, o := range b.byKind["ServiceExportConfig"] {
		b.addExportConfig(o, aliases)
	}
	for _, o := range b.byKind["ServiceImport"] {
		b.exportedOn(o, "spec.slice", o.Body.(*ServiceImport).Spec.Slice)
	}
}

// What the Multi-Cluster Services API says of a service and KubeSlice's objects
// have no field for.
const (
	annotationType     = "slicewire.io/service-type"             // Headless or ClusterSetIP
	annotationAffinity = "slicewire.io/session-affinity-seconds" // 0 to a day
	maxAffinity        = 86400

	// annotationProxy says how the servers of a service are told of their clients.
	annotationProxy = "slicewire.io/proxy-protocol" // v2
)

// ProxyV2 is the only version of the PROXY protocol that is spoken.
const ProxyV2 = "v2"

// Proxied reads from an export's annotations whether its servers are told of
// their clients by the PROXY protocol.
func Proxied(annotations map[string]string) (bool, error) {
	v, there := annotations[annotationProxy]
	if there && v != ProxyV2 {
		return false, fmt.Errorf("%s is %s, not %q", annotationProxy, ProxyV2, v)
	}
	return there, nil
}

// terms reads the terms of an export from its metadata.
func (b *builder) terms(o *Object, m *Metadata) (t overlay.ExportTerms) {
	t, errs := Terms(m.Annotations)
	for _, err := range errs {
		b.fail(o, "metadata.annotations", "%v", err)
	}
	if m.CreationTimestamp.Unix() > 0 {
		t.Created = m.CreationTimestamp.UTC().Truncate(time.Second)
	}
	return t
}

// Terms reads the terms of an export from its annotations, but for its age.
// What is wrong with them is returned and counts as absent.
func Terms(annotations map[string]string) (t overlay.ExportTerms, errs []error) {
	if v, there := annotations[annotationType]; there {
		var ok bool
		if t.Type, ok = overlay.ParseServiceType(v); !ok {
			errs = append(errs, fmt.Errorf("%s is Headless or ClusterSetIP, not %q", annotationType, v))
		}
	}
	if v, there := annotations[annotationAffinity]; there {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n > maxAffinity {
			return t, append(errs, fmt.Errorf("%s is 0 to %d, not %q", annotationAffinity, maxAffinity, v))
		}
		t.AffinitySeconds = uint32(n)
	}
	return t, errs
}

// exportedOn returns the slice of that name. ok is false when there is none
// (reported) or when it was left out for its own errors (reported there).
func (b *builder) exportedOn(o *Object, field, name string) (s *overlay.Slice, ok bool) {
	if s, ok = b.mesh.Slice(name); ok {
		return s, true
	}
	if !b.leftOut[name] && name != "" {
		b.report(b.absence(o), o, field, "there is no slice %q%s", name, didYouMean(name, b.names("SliceConfig")))
	}
	return nil, false
}

// absence is how bad it is when an object names a slice that there is not. For
// that of a file it may still come.
func (b *builder) absence(o *Object) Severity {
	if o.Remote {
		return Error
	}
	return b.worst()
}

func (b *builder) addPort(o *Object, svc *service, at, name, numberKey string, number int32, protocol string) {
	if len(svc.Ports) >= maxListed {
		b.fail(o, at, "is more than the %d ports that a service may have", maxListed)
		return
	}
	if number < 1 || number > 65535 {
		b.fail(o, at+"."+numberKey, "%d is outside 1 to 65535", number)
		return
	}
	switch protocol {
	case "TCP", "UDP":
	case "SCTP":
		b.warn(o, at+".protocol", "SCTP is not supported; the port is left out")
		return
	default:
		b.fail(o, at+".protocol", "%q is none of TCP, UDP%s", protocol, didYouMean(protocol, []string{"TCP", "UDP"}))
		return
	}
	for _, p := range svc.Ports {
		if name != "" && p.Name == name {
			b.fail(o, at+".name", "%q is there twice", name)
		}
		if p.Port == uint16(number) && p.Protocol == overlay.Protocol(protocol) {
			b.fail(o, at+"."+numberKey, "%d/%s is there twice", number, protocol)
		}
	}
	svc.Ports = append(svc.Ports, overlay.ServicePort{Name: name, Port: uint16(number), Protocol: overlay.Protocol(protocol)})
}

// checkExport checks a service's names and gives it its DNS names.
func (b *builder) checkExport(o *Object, svc *service, slice string, list []string, taken map[[2]string]*Object) {
	nameField, namespaceField := "metadata.name", "metadata.namespace"
	if o.Kind != "ServiceExport" {
		nameField, namespaceField = "spec.serviceName", "spec.serviceNamespace"
	}
	if !overlay.ValidLabel(svc.Name) {
		b.fail(o, nameField, "%q is not a DNS label", svc.Name)
	}
	if !overlay.ValidLabel(svc.Namespace) {
		b.fail(o, namespaceField, "%q is not a DNS label", svc.Namespace)
	}
	if len(svc.Ports) == 0 && !o.Broken {
		b.warn(o, "spec.ports", "the service has no ports")
	}
	canonical := overlay.ServiceDNSName(svc.Name, svc.Namespace)
	svc.DNSNames = []string{canonical}
	for i, a := range list {
		field := fmt.Sprintf("spec.aliases[%d]", i)
		name := strings.TrimSuffix(strings.ToLower(a), ".")
		if !overlay.ValidDNSName(name) {
			b.fail(o, field, "%q is not a DNS name", a)
			continue
		}
		key := [2]string{slice, name}
		switch f := taken[key]; {
		case f == nil:
		case f != o:
			b.fail(o, field, "alias %s already exists: %s", a, f.ID())
			continue
		case name == canonical: // true, if not needed
			continue
		default:
			b.fail(o, field, "alias %s is there twice", a)
			continue
		}
		taken[key] = o
		svc.DNSNames = append(svc.DNSNames, name)
	}
}

// addExportConfig adds a service that only a ServiceExportConfig tells of.
func (b *builder) addExportConfig(o *Object, aliases map[[2]string]*Object) {
	spec := &o.Body.(*ServiceExportConfig).Spec
	namespace := spec.ServiceNamespace
	if namespace == "" {
		namespace = defaultNamespace
	}
	s, ok := b.exportedOn(o, "spec.sliceName", spec.SliceName)
	if !ok {
		return
	}
	if key := [2]string{s.Name, overlay.ServiceDNSName(spec.ServiceName, namespace)}; aliases[key] == nil {
		aliases[key] = o
	}
	member := func(field, cluster string) {
		if _, ok := s.Site(cluster); !ok {
			b.fail(o, field, "%q is not one of the clusters of slice %s", cluster, s.Name)
		}
	}
	member("spec.sourceCluster", spec.SourceCluster)
	for i, e := range spec.ServiceDiscoveryEndpoints {
		member(fmt.Sprintf("spec.serviceDiscoveryEndpoints[%d].cluster", i), e.Cluster)
	}
	svc := &service{from: o}
	svc.Name, svc.Namespace = spec.ServiceName, namespace
	svc.ExportTerms = b.terms(o, &o.Body.(*ServiceExportConfig).Metadata)
	for i, p := range spec.ServiceDiscoveryPorts {
		b.addPort(o, svc, fmt.Sprintf("spec.serviceDiscoveryPorts[%d]", i), p.Name, "port", p.Port, p.Protocol)
	}
	key := serviceKey{s.Name, namespace, spec.ServiceName}
	if b.services[key] != nil {
		return // the same service, exported here or by another cluster too
	}
	b.checkExport(o, svc, spec.SliceName, spec.Aliases, aliases)
	if !o.Broken {
		b.services[key] = svc
	}
}

// bound reports whether a namespace is bound to the slice at any site.
func bound(s *overlay.Slice, namespace string) bool {
	return slices.ContainsFunc(s.Namespaces, func(n overlay.NamespaceBinding) bool { return n.Namespace == namespace })
}

// boundAt reports whether a namespace is bound to the slice at one site.
func boundAt(s *overlay.Slice, namespace, site string) bool {
	return slices.ContainsFunc(s.Namespaces, func(n overlay.NamespaceBinding) bool {
		return n.Namespace == namespace && (slices.Contains(n.Sites, everywhere) || slices.Contains(n.Sites, site))
	})
}
