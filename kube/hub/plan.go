package hub

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// maxObjectName is how long an object's name may be.
const maxObjectName = 253

// A write is one object to be brought up to date.
type write struct {
	kind   string
	want   *unstructured.Unstructured // nil: it is to go
	live   *unstructured.Unstructured // nil: there is none
	status bool                       // of the status alone
	event  string                     // once it is done; "": none
	failed string                     // when it could not be done; "": none
	slice  string
}

// lister is what a plan sees of the hub.
type lister interface {
	list(kind string) []*unstructured.Unstructured
}

func byName(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	m := make(map[string]*unstructured.Unstructured, len(objects))
	for _, o := range objects {
		m[o.GetName()] = o
	}
	return m
}

// planWorked returns what differs between what the controller would have written
// and what is there. With adopt, objects of others are brought up to it too.
func planWorked(hub lister, all []manifest.Worked, adopt bool) []write {
	var out []write
	for _, kind := range worked {
		live := byName(hub.list(kind))
		wanted := map[string]bool{}
		for _, w := range all {
			if w.Kind != kind || len(w.Name) > maxObjectName {
				continue
			}
			wanted[w.Name] = true
			labels := map[string]any{kube.LabelManagedBy: kube.ManagedBy}
			for k, v := range w.Labels {
				labels[k] = v
			}
			want := &unstructured.Unstructured{Object: map[string]any{
				"apiVersion": w.APIVersion, "kind": w.Kind,
				"metadata": map[string]any{"name": w.Name, "namespace": w.Namespace, "labels": labels},
				"spec":     w.Spec,
			}}
			x := write{kind: kind, want: want, live: live[w.Name], slice: w.Labels[kube.LabelOriginalSlice]}
			x.event, x.failed = workedEvents(kind, live[w.Name] != nil)
			if x.live == nil || (adopt || kube.Ours(x.live)) && kube.Differs(want, x.live, "") {
				out = append(out, x)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(live)) {
			if o := live[name]; !wanted[name] && kube.Ours(o) && o.GetDeletionTimestamp() == nil {
				x := write{kind: kind, live: o, slice: o.GetLabels()[kube.LabelOriginalSlice]}
				if kind != "VpnKeyRotation" {
					x.event, x.failed = kind+"Deleted", kind+"DeletionFailed"
				}
				out = append(out, x)
			}
		}
	}
	return out
}

// workedEvents are KubeSlice's names for what is done.
func workedEvents(kind string, exists bool) (done, failed string) {
	switch {
	case kind == "VpnKeyRotation" && exists:
		return "VPNKeyRotationConfigUpdated", ""
	case kind == "VpnKeyRotation":
		return "VPNKeyRotationConfigCreated", "VPNKeyRotationConfigCreationFailed"
	case kind == "WorkerSliceGateway" && exists:
		return "", "" // KubeSlice does not tell
	case exists:
		return kind + "Updated", kind + "UpdateFailed"
	}
	return kind + "Created", kind + "CreationFailed"
}

// planConditions says of each object that the hub asks by whether it is in force.
// Of what programs write only refusals are told.
func planConditions(hub lister, verdicts map[string]verdict, now time.Time) []write {
	var out []write
	for _, kind := range judged {
		for _, o := range hub.list(kind) {
			v, known := verdicts[idPrefix+kind+"/"+o.GetNamespace()+"/"+o.GetName()]
			quiet := kind == "ServiceExportConfig"
			told := conditionOf(o, conditionAccepted) != nil
			if !known || quiet && v.refused == "" && !told {
				continue
			}
			c := condition{kind: conditionAccepted, ok: true, reason: "Accepted", message: "in force"}
			if v.refused != "" {
				c.ok, c.reason, c.message = false, "Refused", v.refused
				if v.before {
					c.reason, c.message = "RefusedUpdate", "the version before goes on: "+v.refused
				}
			}
			want := bare(o)
			want.Object["status"] = map[string]any{"conditions": []any{c.object(o, now)}}
			if kube.Differs(want, o, "status") {
				x := write{kind: kind, want: want, live: o, status: true, slice: o.GetName()}
				if !c.ok {
					x.event = "HubObjectRefused"
				}
				out = append(out, x)
			}
		}
	}
	return out
}

// bare is an object with nothing but its name.
func bare(o *unstructured.Unstructured) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(),
		"metadata": map[string]any{"name": o.GetName(), "namespace": o.GetNamespace()},
	}}
}

// conditionAccepted says whether an object is in force as it is.
const conditionAccepted = "Accepted"

// maxMessage bounds the message of a condition: far below the server's bound, and
// enough for people.
const maxMessage = 1000

type condition struct {
	kind            string
	ok              bool
	reason, message string
	since           time.Time // zero: now, unless it was so before
}

// object returns the condition for o; it keeps the time of the last change.
func (c condition) object(o *unstructured.Unstructured, now time.Time) map[string]any {
	status := "False"
	if c.ok {
		status = "True"
	}
	message := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(c.message, "?"))
	for len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	since := now
	if !c.since.IsZero() {
		since = c.since
	}
	out := map[string]any{"type": c.kind, "status": status, "reason": c.reason, "message": message,
		"lastTransitionTime": since.UTC().Format(time.RFC3339), "observedGeneration": o.GetGeneration()}
	if before := conditionOf(o, c.kind); before != nil && before["status"] == status {
		out["lastTransitionTime"] = before["lastTransitionTime"]
	}
	return out
}

func conditionOf(o *unstructured.Unstructured, kind string) map[string]any {
	all, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, x := range all {
		if c, ok := x.(map[string]any); ok && c["type"] == kind {
			return c
		}
	}
	return nil
}

// A site is what this node says for its site.
type site struct {
	name       string
	namespace  string
	cniSubnets []string
	facts      *Facts
	mesh       *overlay.Mesh
	set        *manifest.Set
	health     Status
	conditions bool // the hub's Cluster has room for them
}

// planSite returns what this site's node tells the hub: its Cluster's status and
// its exports.
func planSite(hub lister, s site, now time.Time) []write {
	var out []write
	if o := byName(hub.list("Cluster"))[s.name]; o != nil {
		want := bare(o)
		want.Object["status"] = s.status(o, now)
		if kube.Differs(want, o, "status") {
			x := write{kind: "Cluster", want: want, live: o, status: true}
			if was, _, _ := unstructured.NestedString(o.Object, "status", "clusterHealth", "clusterHealthStatus"); was != "Normal" {
				x.event = "ClusterHealthy"
			}
			out = append(out, x)
		}
	}
	live := byName(hub.list("ServiceExportConfig"))
	wanted := map[string]bool{}
	for _, e := range s.facts.Exports {
		want := s.export(&e)
		if name := want.GetName(); len(name) <= maxObjectName && !wanted[name] {
			wanted[name] = true
			if l := live[name]; l == nil || kube.Ours(l) && kube.Differs(want, l, "") {
				out = append(out, write{kind: "ServiceExportConfig", want: want, live: l, slice: e.Slice})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		o := live[name]
		source, _, _ := unstructured.NestedString(o.Object, "spec", "sourceCluster")
		if !wanted[name] && source == s.name && kube.Ours(o) && o.GetDeletionTimestamp() == nil {
			out = append(out, write{kind: "ServiceExportConfig", live: o, slice: o.GetLabels()[kube.LabelOriginalSlice], event: "ServiceExportConfigDeleted", failed: "ServiceExportConfigDeletionFailed"})
		}
	}
	return out
}

// status is the site's Cluster.status.
func (s *site) status(o *unstructured.Unstructured, now time.Time) map[string]any {
	health := map[string]any{"clusterHealthStatus": "Normal", "componentStatuses": []any{map[string]any{"component": "slicewire", "componentHealthStatus": "Normal"}}}
	since := now.UTC().Format(time.RFC3339)
	if was, _, _ := unstructured.NestedString(o.Object, "status", "clusterHealth", "lastUpdated"); was != "" {
		if before, _, _ := unstructured.NestedString(o.Object, "status", "clusterHealth", "clusterHealthStatus"); before == "Normal" {
			since = was // it says when that last changed: a settled mesh writes nothing
		}
	}
	health["lastUpdated"] = since
	out := map[string]any{"registrationStatus": "Registered", "networkPresent": true, "clusterHealth": health, "nodeIPs": anys(s.facts.NodeIPs)}
	if len(s.cniSubnets) > 0 {
		out["cniSubnet"] = anys(s.cniSubnets)
	}
	if ns := s.namespaces(); len(ns) > 0 {
		out["namespaces"] = ns
	}
	if told, there, _ := unstructured.NestedMap(o.Object, "status", "podTokens"); there {
		out["podTokens"] = told // by a node that knows them
	}
	if s.conditions && s.facts.TokenKeys != "" {
		out["podTokens"] = map[string]any{"issuer": s.facts.TokenIssuer, "keys": s.facts.TokenKeys}
	}
	if s.conditions {
		stale := condition{kind: "HubStale", reason: "HubAnswers", message: "the hub is heard", since: s.health.Since}
		holding := condition{kind: "HubHolding", reason: "NothingHeld", message: "all that vanished was meant to"}
		if n := len(s.health.Held); n > 0 {
			holding.ok, holding.reason = true, "MassDeletion"
			holding.message = strings.Join(s.health.Held[:min(n, 5)], ", ") + " vanished with many others and go on to count; annotation " + AnnotationConfirmed + " on this Cluster confirms"
		}
		out["conditions"] = []any{stale.object(o, now), holding.object(o, now)}
	}
	return out
}

// namespaces lists what of this site is bound to slices.
func (s *site) namespaces() []any {
	type bound struct{ namespace, slice string }
	var all []bound
	for _, x := range s.mesh.Slices {
		if _, member := x.Site(s.name); !member {
			continue
		}
		for _, n := range x.Namespaces {
			if slices.Contains(n.Sites, "*") || slices.Contains(n.Sites, s.name) {
				all = append(all, bound{n.Namespace, x.Name})
			}
		}
	}
	slices.SortFunc(all, func(a, b bound) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.slice, b.slice))
	})
	var out []any
	for _, b := range all {
		out = append(out, map[string]any{"name": b.namespace, "sliceName": b.slice})
	}
	return out
}

func (s *site) export(e *Export) *unstructured.Unstructured {
	endpoints, ports := []any{}, []any{}
	for _, x := range e.Endpoints {
		dns := overlay.ServiceDNSName(e.Name, e.Namespace)
		m := map[string]any{"podName": x.Name, "cluster": s.name, "nsmIp": x.Addr.String(), "dnsName": x.Name + "." + s.name + "." + dns}
		if len(e.Ports) > 0 {
			m["port"] = int64(e.Ports[0].Port)
		}
		endpoints = append(endpoints, m)
	}
	for _, p := range e.Ports {
		m := map[string]any{"port": int64(p.Port), "protocol": string(p.Protocol)}
		if p.Name != "" {
			m["name"] = p.Name
		}
		ports = append(ports, m)
	}
	spec := map[string]any{"serviceName": e.Name, "serviceNamespace": e.Namespace, "sourceCluster": s.name, "sliceName": e.Slice,
		"serviceDiscoveryEndpoints": endpoints, "serviceDiscoveryPorts": ports}
	if len(e.Aliases) > 0 {
		spec["aliases"] = anys(e.Aliases)
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": kube.GroupController + "/v1alpha1", "kind": "ServiceExportConfig",
		"metadata": map[string]any{
			"name": manifest.ExportObjectName(e.Name, e.Namespace, s.name), "namespace": s.namespace,
			"labels": map[string]any{kube.LabelManagedBy: kube.ManagedBy, kube.LabelOriginalSlice: e.Slice, kube.LabelWorkerCluster: s.name,
				kube.LabelServiceName: e.Name, kube.LabelServiceNamespace: e.Namespace},
		},
		"spec": spec,
	}}
}

func anys(list []string) []any {
	out := make([]any, len(list))
	for i, s := range list {
		out[i] = s
	}
	return out
}

// NodeIPs returns the addresses of endpoints, each once, sorted.
func NodeIPs(endpoints []netip.AddrPort) []string {
	seen := map[string]bool{}
	for _, e := range endpoints {
		seen[e.Addr().Unmap().String()] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
