package main

import (
	"slices"

	"slicewire/netstack/publish"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

// published is what the node publishes, by what it is published as.
type published map[backendID]*manifest.Publish

func index(list []manifest.Publish) published {
	out := make(published, len(list))
	for i := range list {
		p := &list[i]
		out[backendID{p.Slice, p.Namespace, p.Service, p.Backend}] = p
	}
	return out
}

func backendsOf(list []manifest.Publish) []overlay.Backend {
	out := make([]overlay.Backend, len(list))
	for i, p := range list {
		out[i] = overlay.Backend{Slice: p.Slice, Namespace: p.Namespace, Service: p.Service, Name: p.Backend}
		for _, a := range p.Addresses {
			if a.Is4() {
				out[i].Host.Addr = a
			} else {
				out[i].Host.Addr6 = a
			}
		}
	}
	return out
}

// of lists what the node publishes on a slice: the attachment's addresses joined
// with the targets.
func (all published) of(a *overlay.Attachment) []publish.Backend {
	var out []publish.Backend
	for _, b := range a.Backends {
		p := all[idOf(b.Backend)]
		if p == nil {
			continue
		}
		x := publish.Backend{Name: b.Namespace + "/" + b.Backend.Service + "/" + b.Name, Addrs: b.Addrs()}
		for _, port := range b.Service.Ports {
			x.Ports = append(x.Ports, publish.Port{Name: port.Name, Port: port.Port, Protocol: port.Protocol, Target: p.TargetOf(port.Name),
				Proxied: p.Proxy != "" && port.Protocol == overlay.TCP})
		}
		out = append(out, x)
	}
	return out
}

// addExports joins what the configuration publishes with what the cluster
// exports. What the node file publishes itself comes first.
func (d *daemon) addExports() {
	services, backends := d.cluster.exports()
	d.want.mesh, d.want.exports = d.want.base.WithServices(services), services
	d.want.publish = slices.Clone(d.want.file.Publish)
	mine := index(d.want.publish)
	for _, p := range backends {
		if mine[backendID{p.Slice, p.Namespace, p.Service, p.Backend}] == nil {
			d.want.publish = append(d.want.publish, p)
		}
	}
}
