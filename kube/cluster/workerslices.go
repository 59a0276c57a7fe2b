package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// A Worker is what KubeSlice's controller would tell this cluster of a slice, and
// how the slice is joined with other sites.
type Worker struct {
	Config   manifest.WorkerSliceConfigSpec
	Gateways []Gateway
}

// A Gateway is this cluster's end of what joins a slice with another site.
type Gateway struct {
	manifest.WorkerSliceGatewaySpec

	NodePorts   []uint16 // at which others reach the gateways of this site; sorted, each once
	RemoteIPs   []string // where this site reaches those of the other; sorted, each once
	RemotePorts []uint16
	Tunnel      Tunnel
}

// A Tunnel says whether a gateway of the other site answers this node, in
// KubeSlice's words.
type Tunnel string

// The states of a tunnel.
const (
	TunnelUnknown Tunnel = "" // nobody has asked yet
	TunnelUp      Tunnel = "UP"
	TunnelDown    Tunnel = "DOWN"
)

// operatorName begins the names of the pods of KubeSlice's operator.
const operatorName = "kubeslice-operator-"

// A telling is what this cluster's Slices and SliceGateways are made of.
type telling struct {
	objects  *Objects
	state    *State
	setting  *setting
	replica  *replicas
	policies []want // of isolation
}

// muted says why there is to be no Slice or SliceGateway; empty: nothing is against
// it. KubeSlice's operator would take them for its own, and deploy gateways and
// routers for them.
func muted(o *Objects) string {
	if !o.exists(overlay.SystemNamespace) {
		return "there is no namespace " + overlay.SystemNamespace
	}
	for _, p := range o.pods[overlay.SystemNamespace] {
		if strings.HasPrefix(p.Name, operatorName) && !p.Pod.Over {
			return "KubeSlice's operator runs, as pod " + p.String()
		}
	}
	return ""
}

// wants returns the Slices and SliceGateways there are to be.
func (t *telling) wants() (out []want) {
	for i := range t.state.Slices {
		s := &t.state.Slices[i]
		if s.Worker == nil {
			continue
		}
		out = append(out, t.slice(s))
		for j := range s.Worker.Gateways {
			out = append(out, t.gateway(s, &s.Worker.Gateways[j]))
		}
	}
	return out
}

func (t *telling) slice(s *Slice) want {
	r := Ref{KindSlice, overlay.SystemNamespace, s.Name}
	k := &t.setting.kinds
	return want{Ref: r, slice: s.Name,
		whole: func() *unstructured.Unstructured {
			u := k[r.Kind].made(r, s.Name, nil)
			u.Object["spec"] = map[string]any{}
			return u
		},
		status: func() *unstructured.Unstructured { return withStatus(k, r, t.sliceStatus(s)) },
	}
}

// sliceStatus is Slice.status as KubeSlice's worker has it. The id is empty there,
// too, and its definition requires it.
func (t *telling) sliceStatus(s *Slice) map[string]any {
	c := &s.Worker.Config
	profile := map[string]any{
		"isolationEnabled":      c.NamespaceIsolationProfile.IsolationEnabled,
		"applicationNamespaces": anys(c.NamespaceIsolationProfile.ApplicationNamespaces),
		"allowedNamespaces":     anys(c.NamespaceIsolationProfile.AllowedNamespaces),
	}
	config := map[string]any{
		"sliceId": "", "sliceDisplayName": c.SliceName, "sliceSubnet": c.SliceSubnet, "sliceType": c.SliceType,
		"sliceIpam":                 map[string]any{"sliceIpamType": c.SliceIpamType, "ipamClusterOctet": int64(c.IpamClusterOctet)},
		"qosProfileDetails":         profileOf(c.QosProfileDetails),
		"namespaceIsolationProfile": profile,
	}
	for key, v := range map[string]string{
		"clusterSubnetCIDR": c.ClusterSubnetCIDR, "sliceOverlayNetworkDeploymentMode": c.OverlayNetworkDeploymentMode,
		"sliceGatewayServiceType": c.SliceGatewayProvider.SliceGatewayServiceType, "sliceGatewayProtocol": c.SliceGatewayProvider.SliceGatewayProtocol,
	} {
		if v != "" {
			config[key] = v
		}
	}
	status := map[string]any{
		"sliceConfig": config, "applicationNamespaces": t.bound(s), "allowedNamespaces": t.allowed(s),
		"networkPoliciesInstalled": t.installed(s), "appPods": t.appPods(s),
	}
	if a := t.dns(); a.IsValid() {
		status["dnsIP"] = a.String()
	}
	return status
}

// profileOf is empty where the slice has none.
func profileOf(p *manifest.QOSProfile) map[string]any {
	if p == nil {
		return map[string]any{}
	}
	return map[string]any{
		"queueType": p.QueueType, "tcType": p.TcType, "priority": int64(p.Priority), "dscpClass": p.DscpClass,
		"bandwidthCeilingKbps": int64(p.BandwidthCeilingKbps), "bandwidthGuaranteedKbps": int64(p.BandwidthGuaranteedKbps),
	}
}

// bound lists the application namespaces that there are.
func (t *telling) bound(s *Slice) []any {
	out := []any{}
	for _, n := range s.Namespaces {
		if t.objects.exists(n) && t.state.sliceOf(n) == s {
			out = append(out, n)
		}
	}
	return out
}

// allowed lists the namespaces there are that the application namespaces may speak
// with: those that isolation labels for it.
func (t *telling) allowed(s *Slice) []any {
	out := []any{}
	list := s.Allowed
	if s.Isolated {
		list = allowedOf(s, t.setting.namespace)
	}
	for _, n := range list {
		if t.objects.exists(n) {
			out = append(out, n)
		}
	}
	return out
}

// installed reports whether a namespace of the slice has its policy.
func (t *telling) installed(s *Slice) bool {
	return slices.ContainsFunc(t.policies, func(w want) bool {
		x := t.objects.Get(w.Ref)
		return w.Kind == KindNetworkPolicy && w.slice == s.Name && x != nil && x.ours
	})
}

// appPods lists the pods of this cluster that have an address on the slice.
func (t *telling) appPods(s *Slice) []any {
	type pod struct {
		object *Object
		addr   netip.Addr
	}
	var all []pod
	for i := range s.Services {
		v := &s.Services[i]
		for j := range v.Endpoints {
			e := &v.Endpoints[j]
			if e.Origin.Site != t.state.Site {
				continue
			}
			if x, a := t.objects.podAt(v.Namespace, e.Name), cmp.Or(e.Addr, e.Addr6); x != nil && a.IsValid() {
				all = append(all, pod{x, a})
			}
		}
	}
	slices.SortFunc(all, func(a, b pod) int {
		return cmp.Or(cmp.Compare(a.object.Namespace, b.object.Namespace), cmp.Compare(a.object.Name, b.object.Name), a.addr.Compare(b.addr))
	})
	all = slices.CompactFunc(all, func(a, b pod) bool { return a == b })
	out := []any{}
	for _, p := range all[:min(len(all), maxListed)] {
		m := map[string]any{"podName": p.object.Name, "podNamespace": p.object.Namespace, "nsmIp": p.addr.String()}
		if ips := p.object.Pod.IPs; len(ips) > 0 {
			m["podIp"] = ips[0].String()
		}
		out = append(out, m)
	}
	return out
}

// dnsPort is where a Service answers for names.
const dnsPort = 53

// dns returns the address that pods' names are asked at: that of the Service which
// leads there to slicewire's pods. It is invalid where there is none.
func (t *telling) dns() netip.Addr {
	own := t.setting.namespace
	for _, x := range t.objects.kinds[KindService] {
		if x.Namespace != own || len(x.Service.ClusterIP) == 0 ||
			!slices.ContainsFunc(x.Service.Ports, func(p Port) bool { return p.Number == dnsPort && p.Protocol == "UDP" }) {
			continue
		}
		for _, part := range t.objects.slicesOf[[2]string{own, x.Name}] {
			if slices.ContainsFunc(part.Slice.Endpoints, func(e SliceEndpoint) bool { return t.replica.has(e.Addr) }) {
				return x.Service.ClusterIP[0]
			}
		}
	}
	return netip.Addr{}
}

func (t *telling) gateway(s *Slice, g *Gateway) want {
	r := Ref{KindSliceGateway, overlay.SystemNamespace, g.LocalGatewayConfig.GatewayName}
	k := &t.setting.kinds
	return want{Ref: r, slice: s.Name,
		whole: func() *unstructured.Unstructured {
			u := k[r.Kind].made(r, s.Name, map[string]string{kube.LabelSlice: s.Name})
			u.Object["spec"] = map[string]any{"sliceName": s.Name, "siteName": t.state.Site}
			return u
		},
		status: func() *unstructured.Unstructured { return withStatus(k, r, t.gatewayStatus(g)) },
	}
}

// gatewayStatus is SliceGateway.status. Left out is what slicewire does not have
// (addresses of a tunnel of its own, that anything is routed by), and numbers that
// are never the same twice: they are metrics.
func (t *telling) gatewayStatus(g *Gateway) map[string]any {
	config := map[string]any{
		"sliceName": g.SliceName, "sliceGatewayId": g.LocalGatewayConfig.GatewayName, "sliceGatewayName": strconv.Itoa(g.GatewayNumber),
		"sliceGatewayType":   "Wireguard", // whatever the slice asks for
		"sliceGatewaySubnet": g.LocalGatewayConfig.GatewaySubnet, "sliceGatewayRemoteSubnet": g.RemoteGatewayConfig.GatewaySubnet,
		"sliceGatewayHostType": g.GatewayHostType, "sliceGatewayConnectivityType": g.GatewayConnectivityType, "sliceGatewayProtocol": g.GatewayProtocol,
		"sliceGatewayRemoteClusterId": g.RemoteGatewayConfig.ClusterName, "sliceGatewayRemoteGatewayId": g.RemoteGatewayConfig.GatewayName,
		"sliceGatewayNodePorts": numbers(g.NodePorts), "sliceGatewayRemoteNodePorts": numbers(g.RemotePorts), "sliceGatewayRemoteNodeIps": anys(g.RemoteIPs),
	}
	status := map[string]any{"config": config}
	if own := ownPod(t.objects, t.setting.namespace, t.setting.self); own != nil && g.Tunnel != TunnelUnknown {
		status["podNames"] = []any{own.Name}
		status["gatewayPodStatus"] = []any{map[string]any{
			"podName": own.Name, "podIP": t.setting.self.String(), "tunnelStatus": map[string]any{"TunnelState": string(g.Tunnel)},
		}}
	}
	return status
}

func numbers(list []uint16) []any {
	out := []any{}
	for _, n := range list {
		out = append(out, int64(n))
	}
	return out
}
