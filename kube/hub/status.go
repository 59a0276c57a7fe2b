package hub

import (
	"cmp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
)

// maxListed bounds how many pods a status lists.
const maxListed = 250

// A Link is how this site stands with another on a slice.
type Link struct {
	Slice, Site string
	Up          bool
	RTT         time.Duration // 0: not measured
}

// KubeSlice's words for the state of a gateway's tunnel.
const (
	connected    = "Connected"
	notConnected = "NotConnected"
	pending      = "Pending"
)

// planStatus returns what the site says of its part of every slice, and of its ends
// of what joins it with other sites: what KubeSlice's workers say in the same
// places. lacks are kinds whose statuses have no room for it.
func planStatus(hub lister, s site, lacks func(kind string) bool, now time.Time) []write {
	var out []write
	for _, kind := range []string{"WorkerSliceConfig", "WorkerSliceGateway"} {
		if lacks(kind) {
			continue
		}
		for _, o := range hub.list(kind) {
			var status map[string]any
			name, _, _ := unstructured.NestedString(o.Object, "spec", "sliceName")
			slice, known := s.mesh.Slice(name)
			if !known {
				continue // it is about to go, or somebody made it up
			}
			x := write{kind: kind, live: o, status: true, slice: name}
			if kind == "WorkerSliceConfig" {
				if !s.partOf(o, slice) {
					continue
				}
				status = s.sliceStatus(o, name, now)
				if changed(o, status, "sliceHealth", "sliceHealthStatus") {
					x.event, x.failed = "WorkerSliceHealthUpdated", "WorkerSliceHealthUpdateFailed"
				}
			} else {
				remote, ours := s.endOf(o, slice)
				if !ours {
					continue
				}
				status = s.gatewayStatus(o, name, remote, now)
			}
			if x.want = bare(o); status != nil {
				x.want.Object["status"] = status
			}
			if kube.Differs(x.want, o, "status") {
				out = append(out, x)
			}
		}
	}
	return out
}

// changed reports whether a text of a status becomes another.
func changed(o *unstructured.Unstructured, status map[string]any, path ...string) bool {
	was, _, _ := unstructured.NestedString(o.Object, append([]string{"status"}, path...)...)
	is, _, _ := unstructured.NestedString(status, path...)
	return was != is
}

// sliceStatus is WorkerSliceConfig.status.
func (s *site) sliceStatus(o *unstructured.Unstructured, slice string, now time.Time) map[string]any {
	namespaces := []any{}
	for _, n := range s.namespaces() {
		if m := n.(map[string]any); m["sliceName"] == slice {
			namespaces = append(namespaces, map[string]any{"name": m["name"]})
		}
	}
	health, tunnels := "Normal", "Normal"
	for _, l := range s.facts.Links {
		if l.Slice == slice && !l.Up && !s.facts.up(slice, l.Site) {
			health, tunnels = "Warning", "Error"
		}
	}
	components := []any{
		map[string]any{"component": "slicewire", "componentHealthStatus": "Normal"},
		map[string]any{"component": "gateway-tunnel", "componentHealthStatus": tunnels},
	}
	told := map[string]any{"sliceHealthStatus": health, "componentStatuses": components}
	told["lastUpdated"] = sinceOf(o, told, now, "sliceHealth", "sliceHealthStatus")
	return map[string]any{"onboardedAppNamespaces": namespaces, "connectedAppPods": s.pods(slice), "sliceHealth": told}
}

// sinceOf is when a text of a status last changed: a status that is written for
// its time alone would be written for ever.
func sinceOf(o *unstructured.Unstructured, part map[string]any, now time.Time, path ...string) string {
	was, _, _ := unstructured.NestedString(o.Object, append([]string{"status"}, path...)...)
	if at, _, _ := unstructured.NestedString(o.Object, "status", path[0], "lastUpdated"); at != "" && was == part[path[len(path)-1]] {
		return at
	}
	return now.UTC().Format(time.RFC3339)
}

// pods lists what of this site is on a slice, by the addresses there.
func (s *site) pods(slice string) []any {
	type pod struct{ namespace, name, addr string }
	var all []pod
	for _, e := range s.facts.Exports {
		if e.Slice != slice {
			continue
		}
		for _, x := range e.Endpoints {
			all = append(all, pod{e.Namespace, x.Name, x.Addr.String()})
		}
	}
	slices.SortFunc(all, func(a, b pod) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name), cmp.Compare(a.addr, b.addr))
	})
	out := []any{}
	all = slices.Compact(all)
	for _, p := range all[:min(len(all), maxListed)] {
		m := map[string]any{"podName": p.name, "podNamespace": p.namespace, "nsmIp": p.addr}
		if ip := s.facts.PodIPs[p.namespace+"/"+p.name]; ip != "" {
			m["podIp"] = ip
		}
		out = append(out, m)
	}
	return out
}

// gatewayStatus is WorkerSliceGateway.status.
func (s *site) gatewayStatus(o *unstructured.Unstructured, slice, remote string, now time.Time) map[string]any {
	state, reason, message := pending, "NoPeer", "no gateway of "+remote+" is known yet"
	for _, l := range s.facts.Links {
		if l.Slice == slice && l.Site == remote {
			state, reason, message = notConnected, "TunnelDown", "no gateway of "+remote+" answers"
		}
	}
	if s.facts.up(slice, remote) {
		state, reason, message = connected, "TunnelUp", "a gateway of "+remote+" answers"
	}
	status := map[string]any{"connectionState": state, "reason": reason, "message": message, "lastTransitionTime": now.UTC().Format(time.RFC3339)}
	if was, _, _ := unstructured.NestedString(o.Object, "status", "connectionState"); was == state {
		if at, _, _ := unstructured.NestedString(o.Object, "status", "lastTransitionTime"); at != "" {
			status["lastTransitionTime"] = at
		}
	}
	ready := condition{kind: "Connected", ok: state == connected, reason: reason, message: message}
	status["conditions"] = []any{ready.object(o, now)}
	if rtt := s.facts.rtt(slice, remote); rtt > 0 {
		before, _, _ := unstructured.NestedInt64(o.Object, "status", "gatewayMetrics", "avgLatency")
		status["gatewayMetrics"] = map[string]any{"avgLatency": steadyMs(before, rtt)}
	}
	return status
}

// up reports whether some gateway of a site answers on a slice.
func (f *Facts) up(slice, site string) bool {
	return slices.ContainsFunc(f.Links, func(l Link) bool { return l.Slice == slice && l.Site == site && l.Up })
}

// rtt returns the shortest way to a site, 0 when none was measured.
func (f *Facts) rtt(slice, site string) (out time.Duration) {
	for _, l := range f.Links {
		if l.Slice == slice && l.Site == site && l.Up && l.RTT > 0 && (out == 0 || l.RTT < out) {
			out = l.RTT
		}
	}
	return out
}

// steadyMs is a round-trip time in whole milliseconds, at least 1, that stays
// what it was until it is another by half and by 5 ms: it is told, not measured
// there, and a mesh that has settled writes nothing.
func steadyMs(before int64, rtt time.Duration) int64 {
	ms := max(1, int64((rtt+time.Millisecond/2)/time.Millisecond))
	if off := max(ms-before, before-ms); before > 0 && (off < 5 || 2*off < before) {
		return before
	}
	return ms
}

// noRoom is how a server says that a definition lacks a field.
const noRoom = "field not declared in schema"
