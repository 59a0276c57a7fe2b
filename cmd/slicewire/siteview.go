package main

import (
	"net/netip"

	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// A siteView is what a node knows of how its site's slices are joined with others.
type siteView struct {
	mesh      *overlay.Mesh
	worked    map[string]manifest.WorkerSlice
	slices    []sliceView
	endpoints func() []netip.AddrPort // of this node
	links     func(slice string) []gateway.PeerStatus
}

// siteView returns it for what was last made real. The slices are not to be changed.
func (d *daemon) siteView(slices []sliceView) *siteView {
	return &siteView{mesh: &d.want.mesh, worked: d.want.worked, slices: slices, endpoints: d.endpoints, links: d.gateway.Links}
}

// relinkCluster has the cluster part know which tunnels have gone up or down.
func (d *daemon) relinkCluster(view *daemonView) {
	if view != nil {
		d.cluster.relinked(d.siteView(view.slices))
	}
}
