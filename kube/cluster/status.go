package cluster

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/overlay"
)

// statusOf makes what is said of an export: as KubeSlice has it or as the
// Multi-Cluster Services API has it. now is RFC 3339, unix the same in seconds.
func (e *exported) statusOf(state *State, k *[numKinds]kindInfo, now string, unix int64) want {
	var v *overlay.ServiceView
	if e.slice != nil {
		v = viewOf(e.slice, e.object.Namespace, e.object.Name)
	}
	w := want{Ref: e.object.Ref}
	if e.slice != nil {
		w.slice = e.slice.Name
	}
	w.status = func() *unstructured.Unstructured {
		old := e.object.status()
		all := conditions(old, e.object.Generation, now, e.conditions(state.Site, v)...)
		if e.object.Kind == KindMCSExport {
			return withStatus(k, w.Ref, map[string]any{"conditions": all})
		}
		return withStatus(k, w.Ref, e.kubeslice(state, v, all, old, unix))
	}
	if e.object.Kind == KindMCSExport {
		return w
	}
	w.event, w.failed = "SyncServiceExportStatusSuccessfully", "SyncServiceExportStatusFailed"
	switch {
	case e.object.told == "" && e.fault == (fault{}):
		w.event = "ServiceExportInitialStatusUpdated"
	case e.fault != (fault{}):
		w.event = "ServiceExportStatusPending"
	}
	return w
}

// kubeslice makes the status of KubeSlice's export.
func (e *exported) kubeslice(state *State, v *overlay.ServiceView, all []any, old map[string]any, unix int64) map[string]any {
	status := map[string]any{
		"dnsName": overlay.ServiceDNSName(e.object.Name, e.object.Namespace), "exportStatus": e.kubesliceStatus(),
		"availableEndpoints": int64(0), "pods": []any{}, "conditions": all,
	}
	if x := e.export; x != nil {
		status["exposedPorts"] = exposed(x.Ports)
		status["aliases"] = anys(x.Aliases)
		status["availableEndpoints"] = int64(len(x.Backends))
		status["pods"] = e.pods(state, v)
	}
	status["lastSync"] = lastSync(old, status, unix)
	return status
}

func (e *exported) kubesliceStatus() string {
	switch {
	case e.fault == (fault{}):
		return "READY"
	case e.fault.pending:
		return "PENDING"
	}
	return "ERROR"
}

// onlyIPv6 counts the endpoints of this node that the slice knows without an IPv4
// address.
func (e *exported) onlyIPv6(site string, v *overlay.ServiceView) (n int) {
	if e.export == nil || v == nil {
		return 0
	}
	without := make(map[string]bool)
	for i := range v.Endpoints {
		if x := &v.Endpoints[i]; x.Origin.Site == site && !x.Addr.IsValid() {
			without[x.Name] = true
		}
	}
	for _, b := range e.export.Backends {
		if without[b.Name] {
			n++
		}
	}
	return n
}

// pods lists the endpoints; the overlay addresses are those on the slice.
func (e *exported) pods(state *State, v *overlay.ServiceView) []any {
	out := []any{}
	for i, b := range e.export.Backends {
		if i == maxListed {
			break
		}
		p := map[string]any{"name": b.Pod, "podIp": b.Addr.String(), "dnsName": overlay.EndpointDNSName(b.Name, state.Site, e.export.Name, e.export.Namespace)}
		if v != nil {
			k := slices.IndexFunc(v.Endpoints, func(x overlay.EndpointView) bool { return x.Origin.Site == state.Site && x.Name == b.Name })
			if k >= 0 {
				if a := cmp.Or(v.Endpoints[k].Addr, v.Endpoints[k].Addr6); a.IsValid() {
					p["nsmIp"] = a.String()
				}
			}
		}
		out = append(out, p)
	}
	return out
}

// lastSync is when the status last became another: a status that is written for
// its time alone would be written for ever.
func lastSync(old, status map[string]any, unix int64) int64 {
	before := number(old, "lastSync")
	for key, v := range status {
		if key != "conditions" && fmt.Sprint(v) != fmt.Sprint(field(old, key)) {
			return unix
		}
	}
	if before == 0 {
		return unix
	}
	return before
}

func viewOf(s *Slice, namespace, name string) *overlay.ServiceView {
	i := slices.IndexFunc(s.Services, func(v overlay.ServiceView) bool { return v.Namespace == namespace && v.Name == name })
	if i < 0 {
		return nil
	}
	return &s.Services[i]
}

// conditions are those of the Multi-Cluster Services API: Valid, Ready, and
// Conflict, which every export of a service in conflict gets, not only those
// that gave way.
func (e *exported) conditions(site string, v *overlay.ServiceView) []condition {
	valid := condition{"Valid", "True", "Valid", "the export is in order"}
	ready := condition{"Ready", "True", "Exported", "exported on the slice"}
	if e.slice != nil {
		ready.message = fmt.Sprintf("exported on slice %s", e.slice.Name)
	}
	if e.fault != (fault{}) {
		if e.fault.condition == "Valid" {
			valid = condition{"Valid", "False", e.fault.reason, e.fault.message}
			ready = condition{"Ready", "False", "Failed", e.fault.message}
		} else {
			ready = condition{"Ready", "False", e.fault.reason, e.fault.message}
		}
	}
	if n := e.onlyIPv6(site, v); n > 0 {
		ready.message += fmt.Sprintf("; %d endpoints have an IPv6 address only: the node has no more IPv4 addresses on the slice", n)
	}
	if len(e.left) > 0 {
		ready.message += "; left out: " + strings.Join(e.left, "; ")
	}
	conflict := condition{"Conflict", "False", "NoConflicts", "no export of another cluster contradicts"}
	if v != nil && len(v.Conditions) > 0 && e.export != nil {
		var reasons, messages []string
		for _, c := range v.Conditions {
			if !slices.Contains(reasons, c.Reason) {
				reasons = append(reasons, c.Reason)
			}
			if m := c.Origin.Site + ": " + c.Message; !slices.Contains(messages, m) {
				messages = append(messages, m)
			}
		}
		conflict = condition{"Conflict", "True", strings.Join(reasons, ","), strings.Join(messages, "; ")}
	}
	return []condition{valid, ready, conflict}
}
