package main

import (
	"net/netip"
	"slices"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// subnetRoutes are the networks that the node file puts behind this node.
func subnetRoutes(file *manifest.NodeFile) []overlay.SubnetRoute {
	out := make([]overlay.SubnetRoute, len(file.Routes))
	for i, r := range file.Routes {
		out[i] = overlay.SubnetRoute(r)
	}
	return out
}

// plugged reports whether a workload of that name has a port on the slice.
func (d *daemon) plugged(slice, name string) bool {
	return slices.ContainsFunc(d.on(slice), func(w *workload) bool { return w.name == name })
}

// routesBeside lists the networks behind the slice's sites that a workload
// reaches by the slice.
func (d *daemon) routesBeside(w *workload) []netip.Prefix {
	s, known := d.want.mesh.Slice(w.slice)
	if !known {
		return nil
	}
	return s.RoutesBeside(subnetRoutes(d.want.file), w.name)
}
