//go:build !nokube

package main

import (
	"maps"
	"net/netip"
	"slices"

	"slicewire/kube/cluster"
	"slicewire/kube/hub"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// worked works out what KubeSlice's controller would tell a site of its slices. set is
// of the manifests, mesh what they and the hub come to.
func (k *kubeHub) worked(set *manifest.Set, mesh *overlay.Mesh, site string) map[string]manifest.WorkerSlice {
	if k != nil {
		set = k.hub.Sources(set)
	}
	return manifest.WorkerSlices(set, mesh, site)
}

// tunnels returns by slice and site how this node stands with the sites that it has
// asked.
func (v *siteView) tunnels() map[[2]string]cluster.Tunnel {
	out := make(map[[2]string]cluster.Tunnel)
	for i := range v.slices {
		for _, l := range linksTo(&v.slices[i], v.links) {
			key := [2]string{l.Slice, l.Site}
			switch {
			case l.Up:
				out[key] = cluster.TunnelUp
			case out[key] == cluster.TunnelUnknown:
				out[key] = cluster.TunnelDown
			}
		}
	}
	return out
}

// worker says of a slice what KubeSlice's users look at; nil: no manifest has it.
// own is where this node is reached.
func (v *siteView) worker(slice, site string, own []netip.AddrPort, tunnels map[[2]string]cluster.Tunnel) *cluster.Worker {
	w, known := v.worked[slice]
	if !known {
		return nil
	}
	at := map[string][]netip.AddrPort{}
	if i := slices.IndexFunc(v.slices, func(x sliceView) bool { return x.attachment.Slice == slice }); i >= 0 {
		at[site] = slices.Clone(own)
		for _, n := range v.slices[i].view.Nodes {
			if n.Gateway {
				at[n.ID.Site] = append(at[n.ID.Site], n.Endpoints...)
			}
		}
	}
	out := &cluster.Worker{Config: w.Config}
	for _, g := range w.Gateways {
		remote := g.RemoteGatewayConfig.ClusterName
		out.Gateways = append(out.Gateways, cluster.Gateway{
			WorkerSliceGatewaySpec: g, NodePorts: portsOf(at[site]), RemoteIPs: hub.NodeIPs(at[remote]), RemotePorts: portsOf(at[remote]),
			Tunnel: tunnels[[2]string{slice, remote}],
		})
	}
	return out
}

// portsOf returns the ports of endpoints, each once, sorted.
func portsOf(endpoints []netip.AddrPort) []uint16 {
	seen := map[uint16]bool{}
	for _, e := range endpoints {
		seen[e.Port()] = true
	}
	return slices.Sorted(maps.Keys(seen))
}

// relinked takes over which tunnels have gone up or down since it was told what
// there is.
func (k *kubeCluster) relinked(v *siteView) {
	if k == nil || k.told == nil {
		return
	}
	tunnels := v.tunnels()
	if maps.Equal(tunnels, k.tunnels) {
		return
	}
	state := *k.told
	state.Slices = slices.Clone(state.Slices)
	own := v.endpoints()
	for i := range state.Slices {
		s := &state.Slices[i]
		s.Worker = v.worker(s.Name, state.Site, own, tunnels)
	}
	k.set(&state, tunnels)
}

func (k *kubeCluster) set(state *cluster.State, tunnels map[[2]string]cluster.Tunnel) {
	k.told, k.tunnels = state, tunnels
	k.cluster.Set(state)
}
