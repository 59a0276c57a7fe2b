//go:build !nokube

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/api"
	"slicewire/gateway"
	"slicewire/kube"
	"slicewire/kube/hub"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/statedir"
)

// A kubeHub is the hub's part in the daemon; nil: the node has none.
type kubeHub struct {
	hub  *hub.Hub
	file *manifest.NodeHub
	site string
}

// openHub opens the hub that the node file names; nothing is asked of it yet.
func openHub(file *manifest.NodeFile, state statedir.Dir, log *slog.Logger) (*kubeHub, error) {
	h := file.Kubernetes.Hub
	if h == nil {
		return nil, nil
	}
	client, err := kube.Connect(h.Kubeconfig, "hub")
	if err != nil {
		return nil, fmt.Errorf("kubernetes.hub: %w", err)
	}
	before, err := state.ReadSealed(statedir.FileHub)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what the hub last said is lost", "err", err)
	}
	x, err := hub.New(hub.Config{
		Client: client, Namespace: h.Namespace, Site: file.Site, Node: file.Node, Controller: h.Controller, HoldFor: h.Hold(),
		CNISubnets: h.CNISubnets, State: before, Save: func(b []byte) error { return state.WriteSealed(statedir.FileHub, b) }, Log: log.With("part", "hub"),
	})
	if err != nil {
		log.Warn("hub", "err", err)
	}
	return &kubeHub{hub: x, file: h, site: file.Site}, nil
}

func (k *kubeHub) parts() []part {
	if k == nil {
		return nil
	}
	return []part{{"hub", k.hub.Run}}
}

// changed is told when build would come to something else.
func (k *kubeHub) changed() <-chan struct{} {
	if k == nil {
		return nil
	}
	return k.hub.Changed()
}

// build works out the desired state from manifests and the hub.
func (k *kubeHub) build(set *manifest.Set, opts manifest.Options) (overlay.Mesh, []manifest.Problem) {
	if k == nil {
		return manifest.Build(set, opts)
	}
	r := k.hub.Merge(set, opts)
	return r.Mesh, r.Problems
}

// silent reports whether nothing is known of the hub, not even from before.
func (k *kubeHub) silent() bool {
	if k == nil {
		return false
	}
	s := k.hub.Status()
	return !s.Synced && len(s.Object) == 0
}

// tell says to the hub what this node knows of its site.
func (k *kubeHub) tell(site string, own []netip.AddrPort, view []sliceView, cluster *kubeCluster, links func(slice string) []gateway.PeerStatus) {
	if k == nil {
		return
	}
	endpoints := slices.Clone(own)
	var f hub.Facts
	speaker := k.speaks(view)
	if speaker {
		f.Links = []hub.Link{}
	}
	for i := range view {
		v := &view[i]
		if speaker {
			f.Links = append(f.Links, linksTo(v, links)...)
		}
		for _, n := range v.view.Nodes {
			if n.ID.Site == site && n.Gateway {
				endpoints = append(endpoints, n.Endpoints...)
			}
		}
		f.Exports = append(f.Exports, hub.ExportsOf(site, v.node.name, v.view.Services)...)
		f.Imports = append(f.Imports, hub.ImportsOf(v.node.name, v.view.Services)...)
	}
	f.PodIPs = podAddrs(cluster, f.Exports)
	f.TokenIssuer, f.TokenKeys = cluster.tokenKeys()
	f.NodeIPs = hub.NodeIPs(endpoints)
	k.hub.Tell(f)
}

// podAddrs finds the addresses in the cluster of the pods that are exported.
func podAddrs(k *kubeCluster, exports []hub.Export) map[string]string {
	if k == nil {
		return nil
	}
	out := make(map[string]string)
	for _, e := range exports {
		for _, x := range e.Endpoints {
			if a := k.cluster.PodAddr(e.Namespace, x.Name); a.IsValid() {
				out[e.Namespace+"/"+x.Name] = a.String()
			}
		}
	}
	return out
}

// speaks reports whether this node is the one of its site's gateways that says how
// the site stands with others: the first by name.
func (k *kubeHub) speaks(view []sliceView) bool {
	for i := range view {
		self := view[i].self
		for _, n := range view[i].view.Nodes {
			if n.ID.Site == self.Site && n.Gateway && n.ID.Node < self.Node {
				return false
			}
		}
	}
	return len(view) > 0
}

// linksTo returns how this node stands with the gateways of other sites on a slice.
func linksTo(v *sliceView, links func(slice string) []gateway.PeerStatus) (out []hub.Link) {
	for _, p := range links(v.node.name) {
		if site, _, _ := strings.Cut(p.Name, "/"); site != v.self.Site && p.Watched {
			out = append(out, hub.Link{Slice: v.node.name, Site: site, Up: p.Up, RTT: p.RTT})
		}
	}
	return out
}

// confirm says that what has vanished was meant to.
func (k *kubeHub) confirm() error {
	if k == nil {
		return errNoHub
	}
	k.hub.Confirm(time.Now())
	return nil
}

// metrics writes KubeSlice's metrics of a worker and of its gateways.
func (k *kubeHub) metrics(w io.Writer, tunnels []gateway.TunnelStatus) error {
	if k == nil {
		return errNoHub
	}
	var all []hub.Tunnel
	for i := range tunnels {
		t := &tunnels[i]
		for _, p := range t.Peers {
			if site, _, _ := strings.Cut(p.Name, "/"); site != k.site && p.Watched && !t.Passive {
				all = append(all, hub.Tunnel{Slice: t.Slice, Site: site, Up: p.Up, RTT: p.RTT, Loss: p.Loss, Rx: p.RxBytes, Tx: p.TxBytes})
			}
		}
	}
	return kube.WriteSamples(w, append(k.hub.Samples(), k.hub.GatewaySamples(time.Now(), all)...))
}

func (k *kubeHub) status() *api.HubStatus {
	if k == nil {
		return nil
	}
	s := k.hub.Status()
	out := &api.HubStatus{
		Namespace: k.file.Namespace, Synced: s.Synced, Fault: s.Err, Objects: s.Object, Held: append([]string{}, s.Held...), Refused: s.Refused,
		Denied: s.Denied, Writes: s.Writes, LostEvents: s.Lost, Conditions: []api.HubCondition{{Type: "HubStale", Status: s.Stale, Since: s.Since}, {Type: "HubHolding", Status: len(s.Held) > 0}},
	}
	if !s.Heard.IsZero() {
		out.Heard = &s.Heard
	}
	return out
}
