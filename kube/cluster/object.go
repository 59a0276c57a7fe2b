package cluster

import (
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay"
)

// A Kind is one kind of object that the cluster part reads or writes.
type Kind uint8

// The kinds.
const (
	KindNamespace Kind = iota
	KindPod
	KindService
	KindEndpointSlice
	KindNetworkPolicy
	KindExport    // KubeSlice's ServiceExport
	KindImport    // KubeSlice's ServiceImport
	KindMCSExport // the Multi-Cluster Services API's ServiceExport
	KindMCSImport
	KindSlice        // KubeSlice's Slice
	KindSliceGateway // KubeSlice's SliceGateway
	numKinds
)

// A Ref names an object.
type Ref struct {
	Kind      Kind
	Namespace string
	Name      string
}

func (r Ref) String() string { return strings.TrimPrefix(r.Namespace+"/"+r.Name, "/") }

// An Object is what is kept of an object: what its kind says, and where
// slicewire may have to write it the rest as compressed JSON, which is a twentieth
// of the same in maps. Objects are shared and not to be changed.
type Object struct {
	Ref
	version     string // resourceVersion
	Generation  int64
	Labels      Labels            // of namespaces and pods
	Annotations map[string]string // of namespaces and exports
	Created     time.Time         // zero: not known
	Ending      bool              // its deletion has begun
	told        string            // exportStatus of KubeSlice's export
	ours        bool              // slicewire made it
	packed      packed            // the whole object
	clean       [2]atomic.Uint64  // a hash of what was wanted of it and found so, see writer.part; 0: nothing yet

	Pod     *Pod
	Service *Service
	Slice   *EndpointSlice
	Export  *ServiceExport
}

// A Pod is where an endpoint or a client is.
type Pod struct {
	IPs         []netip.Addr
	Ready       bool // and not about to end
	HostNetwork bool
	Over        bool // it has ended: its address may be another's
}

// first is the address of the cluster's first family; zero: none yet.
func (p *Pod) first() netip.Addr {
	if len(p.IPs) == 0 {
		return netip.Addr{}
	}
	return p.IPs[0]
}

// A Service is a Service that may be exported, or one of ours.
type Service struct {
	External  bool         // ExternalName
	Headless  bool         // clusterIP: None
	ClusterIP []netip.Addr // none yet, or headless
	Ports     []Port
	Affinity  uint32 // seconds; 0: none
}

// A Port is a port as objects have it: not checked.
type Port struct {
	Name     string
	Protocol string
	Number   int64
}

// An EndpointSlice is a part of a Service's endpoints.
type EndpointSlice struct {
	Service   string
	Ports     []Port
	Endpoints []SliceEndpoint
}

// A SliceEndpoint is one endpoint.
type SliceEndpoint struct {
	Addr     netip.Addr
	Ready    bool
	Pod      string // of the same namespace; empty: it is none
	Hostname string
}

// A ServiceExport is an export of either API.
type ServiceExport struct {
	Slice    string // empty: that of the namespace
	Selector map[string]string
	Ports    []Port
	Aliases  []string
	Exported overlay.Exported // labels and annotations that go along
}

// NewObject reads an object.
func NewObject(kind Kind, u *unstructured.Unstructured) *Object {
	o := &Object{Ref: Ref{kind, u.GetNamespace(), u.GetName()}, Generation: u.GetGeneration(), ours: kube.Ours(u)}
	o.version = u.GetResourceVersion()
	o.Created = u.GetCreationTimestamp().UTC()
	o.Ending = u.GetDeletionTimestamp() != nil
	raw, labels := u.Object, u.GetLabels()
	switch kind {
	case KindNamespace, KindExport, KindMCSExport:
		o.Annotations = u.GetAnnotations()
	}
	if kind == KindNamespace || kind == KindPod {
		o.Labels = labelsOf(labels)
	}
	if kind == KindExport {
		o.told = text(raw, "status", "exportStatus")
	}
	if kind == KindNamespace {
		delete(raw, "status")
	}
	if kind == KindNamespace || kind == KindNetworkPolicy || kind == KindExport || kind == KindMCSExport || o.ours {
		keepOwnFields(raw)
		o.packed = pack(kind, raw)
	}
	switch kind {
	case KindPod:
		o.Pod = readPod(raw, o.Ending)
	case KindService:
		o.Service = readService(raw)
	case KindEndpointSlice:
		o.Slice = readSlice(raw, labels[kube.LabelEndpointsOf])
	case KindExport, KindMCSExport:
		o.Export = readExport(raw, labels)
	}
	return o
}

// keepOwnFields drops what other managers own.
func keepOwnFields(raw map[string]any) {
	meta, _ := raw["metadata"].(map[string]any)
	var own []any
	for _, m := range objectsIn(meta, "managedFields") {
		if text(m, "manager") == kube.FieldManager {
			own = append(own, m)
		}
	}
	if meta != nil {
		meta["managedFields"] = own
	}
}

// GetObjectMeta returns what names the object.
func (o *Object) GetObjectMeta() metav1.Object {
	return &metav1.ObjectMeta{Name: o.Name, Namespace: o.Namespace, ResourceVersion: o.version}
}

// whole returns the object as it came, as far as that is kept; nil if it is not.
// It is the caller's.
func (o *Object) whole() *unstructured.Unstructured {
	if o == nil {
		return nil
	}
	return o.packed.unpack()
}

// status returns the status as it came, as far as that is kept.
func (o *Object) status() map[string]any {
	if u := o.whole(); u != nil {
		s, _ := u.Object["status"].(map[string]any)
		return s
	}
	return nil
}

func readPod(raw map[string]any, ending bool) *Pod {
	p := &Pod{HostNetwork: truth(raw, "spec", "hostNetwork")}
	phase := text(raw, "status", "phase")
	p.Over = phase == "Succeeded" || phase == "Failed"
	for _, ip := range objectsIn(raw, "status", "podIPs") {
		if a, err := netip.ParseAddr(text(ip, "ip")); err == nil {
			p.IPs = append(p.IPs, a.Unmap())
		}
	}
	for _, c := range objectsIn(raw, "status", "conditions") {
		if text(c, "type") == "Ready" {
			p.Ready = text(c, "status") == "True" && !ending && !p.Over
		}
	}
	return p
}

// defaultAffinity is how long Kubernetes keeps a client at its endpoint.
const (
	defaultAffinity = 10800
	maxAffinity     = 86400
)

func readService(raw map[string]any) *Service {
	s := &Service{External: text(raw, "spec", "type") == "ExternalName", Headless: text(raw, "spec", "clusterIP") == "None"}
	for _, ip := range texts(raw, "spec", "clusterIPs") {
		if a, err := netip.ParseAddr(ip); err == nil {
			s.ClusterIP = append(s.ClusterIP, a.Unmap())
		}
	}
	for _, p := range objectsIn(raw, "spec", "ports") {
		s.Ports = append(s.Ports, Port{text(p, "name"), protocolOf(p), number(p, "port")})
	}
	if text(raw, "spec", "sessionAffinity") == "ClientIP" {
		s.Affinity = uint32(min(max(number(raw, "spec", "sessionAffinityConfig", "clientIP", "timeoutSeconds"), 0), maxAffinity))
		if s.Affinity == 0 {
			s.Affinity = defaultAffinity
		}
	}
	return s
}

func readSlice(raw map[string]any, service string) *EndpointSlice {
	s := &EndpointSlice{Service: service}
	for _, p := range objectsIn(raw, "ports") {
		s.Ports = append(s.Ports, Port{text(p, "name"), protocolOf(p), number(p, "port")})
	}
	for _, e := range objectsIn(raw, "endpoints") {
		x := SliceEndpoint{Hostname: text(e, "hostname")}
		if addrs := texts(e, "addresses"); len(addrs) > 0 {
			if a, err := netip.ParseAddr(addrs[0]); err == nil {
				x.Addr = a.Unmap()
			}
		}
		ready, said := field(e, "conditions", "ready").(bool)
		x.Ready = ready || !said // as the API has it
		if text(e, "targetRef", "kind") == "Pod" {
			x.Pod = text(e, "targetRef", "name")
		}
		s.Endpoints = append(s.Endpoints, x)
	}
	return s
}

func readExport(raw map[string]any, labels map[string]string) *ServiceExport {
	e := &ServiceExport{Slice: text(raw, "spec", "slice"), Selector: textMap(raw, "spec", "selector", "matchLabels"), Aliases: texts(raw, "spec", "aliases")}
	e.Exported = overlay.Exported{Labels: textMap(raw, "spec", "exportedLabels"), Annotations: textMap(raw, "spec", "exportedAnnotations")}
	if e.Slice == "" {
		e.Slice = labels[kube.LabelSlice]
	}
	for _, p := range objectsIn(raw, "spec", "ports") {
		e.Ports = append(e.Ports, Port{text(p, "name"), protocolOf(p), number(p, "containerPort")})
	}
	return e
}

func protocolOf(p map[string]any) string {
	if s := text(p, "protocol"); s != "" {
		return s
	}
	return "TCP"
}
