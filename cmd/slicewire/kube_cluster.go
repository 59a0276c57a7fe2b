//go:build !nokube

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"slicewire/api"
	"slicewire/dnsd"
	"slicewire/kube"
	"slicewire/kube/cluster"
	"slicewire/netstack/publish"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/statedir"
)

// namespaceFile is where a pod finds which namespace it is in.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// What a node may ask of its own cluster's API server: it alone speaks for the
// cluster, and a thousand services cost five thousand requests at first.
const (
	clusterRate  = 2000
	clusterBurst = 4000
)

// A kubeCluster is the node's part in the Kubernetes cluster that it runs in.
// Nil, it does nothing. Its methods may be called concurrently.
type kubeCluster struct {
	cluster  *cluster.Cluster
	client   *kube.Client
	tokens   *tokenKeys
	tellsHub bool // by what pods prove who they are
	self     netip.Addr
	log      *slog.Logger
	calls    calls
	routed   bool                               // pods reach addresses of the slice
	names    *dnsd.Server                       // nil: the cluster asks nobody
	lost     map[string]map[overlay.NodeID]bool // by slice, nodes that are not reached; the daemon's loop's
	sockets  []interface{ Close() error }

	told    *cluster.State               // what it was told last; nil: nothing yet; the daemon's loop's
	tunnels map[[2]string]cluster.Tunnel // of which that is; the daemon's loop's
}

// openCluster makes the part that the node file asks for; nil when it does not.
func openCluster(file *manifest.NodeFile, state statedir.Dir, log *slog.Logger) (*kubeCluster, error) {
	want := file.Kubernetes.Cluster
	if want == nil {
		return nil, nil
	}
	k := &kubeCluster{self: want.PodIP, log: log, tellsHub: file.Kubernetes.Hub != nil, routed: want.Routed}
	fail := func(err error) (*kubeCluster, error) {
		k.close()
		return nil, fmt.Errorf("kubernetes.cluster: %w", err)
	}
	if !k.self.IsValid() {
		if ip := os.Getenv("POD_IP"); ip != "" {
			a, err := netip.ParseAddr(ip)
			if err != nil {
				return fail(fmt.Errorf("POD_IP: %w", err))
			}
			k.self = a.Unmap()
		}
	}
	namespace := cmp.Or(want.Namespace, os.Getenv("POD_NAMESPACE"))
	if namespace == "" {
		if b, err := os.ReadFile(namespaceFile); err == nil {
			namespace = strings.TrimSpace(string(b))
		}
	}
	client, err := kube.ConnectRate(want.Kubeconfig, "cluster", clusterRate, clusterBurst)
	if err != nil {
		return fail(err)
	}
	k.client, k.tokens = client, newTokenKeys(client, log)
	before, err := state.ReadSealed(statedir.FileCluster)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("what the cluster last said is lost", "err", err)
	}
	if k.cluster, err = cluster.New(cluster.Config{
		Client: client, Namespace: namespace, Self: k.self, Site: file.Site, Log: log, Linger: want.LingerTime(),
		State: before, Save: func(b []byte) error { return state.WriteSealed(statedir.FileCluster, b) },
	}); err != nil {
		return fail(err)
	}
	if want.DNS != "" {
		p, l, err := listenBoth(ofPod(want.DNS, k.self))
		if err != nil {
			return fail(fmt.Errorf("dns: %w", err))
		}
		k.sockets = append(k.sockets, p, l)
		if k.names, err = dnsd.New(dnsd.Config{
			Packet: []net.PacketConn{p}, Stream: []net.Listener{l}, Log: log, Zones: []string{overlay.Zone, overlay.ClusterSetZone},
			Rate: -1, // all questions come from the cluster's own resolver
		}); err != nil {
			return fail(fmt.Errorf("dns: %w", err))
		}
	}
	return k, nil
}

// ofPod returns where to listen in place of every IPv4 address: a datagram that
// came by one is else answered from another where a pod with the host's network
// has several.
func ofPod(at string, self netip.Addr) string {
	if a, err := netip.ParseAddrPort(at); err == nil && a.Addr() == netip.IPv4Unspecified() && self.Is4() {
		return netip.AddrPortFrom(self, a.Port()).String()
	}
	return at
}

// close ends what was opened, should it not run.
func (k *kubeCluster) close() {
	if k == nil {
		return
	}
	for _, s := range k.sockets {
		_ = s.Close() // it may be closed already
	}
}

func (k *kubeCluster) changed() <-chan struct{} {
	if k == nil {
		return nil
	}
	return k.cluster.Changed()
}

// exports lists what the cluster exports: the services, and every endpoint as if
// the node file published it. It also takes over which names there are.
func (k *kubeCluster) exports() (services []overlay.SliceService, backends []manifest.Publish) {
	if k == nil {
		return nil, nil
	}
	r := k.cluster.Result()
	k.setNames(r.Imports)
	for i := range r.Exports {
		e := &r.Exports[i]
		s := overlay.Service{Name: e.Name, Namespace: e.Namespace, Ports: e.Ports, ExportTerms: e.Terms}
		s.DNSNames = append([]string{overlay.ServiceDNSName(e.Name, e.Namespace)}, e.Aliases...)
		services = append(services, overlay.SliceService{Slice: e.Slice, Service: s})
		for _, b := range e.Backends {
			p := manifest.Publish{Slice: e.Slice, Service: e.Name, Namespace: e.Namespace, Backend: b.Name}
			if e.Proxied {
				p.Proxy = manifest.ProxyV2
			}
			for j, port := range e.Ports {
				p.Ports = append(p.Ports, manifest.PublishPort{Name: port.Name, Target: netip.AddrPortFrom(b.Addr, b.Targets[j]).String()})
			}
			backends = append(backends, p)
		}
	}
	return services, backends
}

// setNames states what pods of the cluster are told: by every name that a service
// has on the slice, addresses of the Services that stand for it here, or those of
// the slice where pods have a way there. Endpoints at nodes that are not reached
// have no names meanwhile; their Services stay.
func (k *kubeCluster) setNames(list []cluster.Import) {
	if k.names == nil {
		return
	}
	v := dnsd.View{StandIns: make(map[string]dnsd.StandIn, len(list))}
	for i := range list {
		m := &list[i]
		v.Services = append(v.Services, without(m.View, k.lost[m.Slice]))
		if k.routed {
			continue
		}
		v.StandIns[m.View.Namespace+"/"+m.View.Name] = dnsd.StandIn{Addrs: m.Addrs, Endpoints: m.Endpoints}
	}
	k.names.Set(v)
}

// without returns a service without its endpoints at lost nodes.
func without(v *overlay.ServiceView, lost map[overlay.NodeID]bool) overlay.ServiceView {
	gone := func(e overlay.EndpointView) bool { return lost[e.Origin] }
	if len(lost) == 0 || !slices.ContainsFunc(v.Endpoints, gone) {
		return *v
	}
	out := *v
	out.Endpoints = slices.DeleteFunc(slices.Clone(v.Endpoints), gone)
	return out
}

// reached takes over which nodes the slices reach.
func (k *kubeCluster) reached(nodes map[string]*sliceNode) {
	if k == nil || k.names == nil {
		return
	}
	lost := make(map[string]map[overlay.NodeID]bool)
	for name, n := range nodes {
		for id, r := range n.naming.set.Reach {
			if !r.Lost {
				continue
			}
			if lost[name] == nil {
				lost[name] = make(map[overlay.NodeID]bool)
			}
			lost[name][id] = true
		}
	}
	if maps.EqualFunc(lost, k.lost, maps.Equal) {
		return
	}
	k.lost = lost
	k.setNames(k.cluster.Result().Imports)
}

// doors lists where pods reach the services of a slice.
func (k *kubeCluster) doors(slice string) (out []publish.Backend) {
	if k == nil {
		return nil
	}
	r := k.cluster.Result()
	for i := range r.Doors {
		d := &r.Doors[i]
		if d.Slice != slice {
			continue
		}
		out = append(out, publish.Backend{Name: d.Namespace + "/" + d.Name + "/" + d.Endpoint, Addrs: r.Self, Ports: []publish.Port{{
			Name: d.Port.Name, Port: d.Listen, Protocol: d.Port.Protocol, Target: net.JoinHostPort(d.Host(), strconv.Itoa(int(d.Port.Port))),
		}}})
	}
	return out
}

func (k *kubeCluster) guard(slice string) doorGuard {
	if k == nil {
		return nil
	}
	return func(ctx context.Context, client netip.Addr) bool {
		k.calls.came()
		return k.cluster.Admit(ctx, slice, client)
	}
}

// tell has the cluster part know what the slices are now.
func (k *kubeCluster) tell(site string, v *siteView, records []overlay.Record) {
	if k == nil {
		return
	}
	state, tunnels := &cluster.State{Site: site, Deaf: hearsNobody(site, v.mesh, records)}, v.tunnels()
	own := v.endpoints()
	for i := range v.mesh.Slices {
		s := &v.mesh.Slices[i]
		if _, member := s.Site(site); !member {
			continue
		}
		x := cluster.Slice{Name: s.Name, Isolated: s.Isolated, Worker: v.worker(s.Name, site, own, tunnels)}
		x.Namespaces, x.Allowed = s.NamespacesAt(site)
		if j := slices.IndexFunc(v.slices, func(v sliceView) bool { return v.attachment.Slice == s.Name }); j >= 0 {
			a := &v.slices[j].attachment
			x.Networked, x.Services = true, v.slices[j].view.Services
			x.Room, x.Room4 = overlay.MaxBackends, overlay.Room(a.Block)-len(a.Workloads)
		}
		state.Slices = append(state.Slices, x)
	}
	k.set(state, tunnels)
}

// hearsNobody reports whether a site has slices with others, and none of these has been
// heard of: what they export is not known.
func hearsNobody(site string, mesh *overlay.Mesh, records []overlay.Record) bool {
	if slices.ContainsFunc(records, func(r overlay.Record) bool { return r.Origin.Site != site }) {
		return false
	}
	return slices.ContainsFunc(mesh.Slices, func(s overlay.Slice) bool {
		_, member := s.Site(site)
		return member && len(s.Sites) > 1
	})
}

// held returns of how many objects of the cluster something is kept, and how often
// they have changed.
func (k *kubeCluster) held() (objects, changes int) {
	if k == nil {
		return 0, 0
	}
	return k.cluster.Held()
}

func (k *kubeCluster) parts() []part {
	if k == nil {
		return nil
	}
	out := []part{{"kubernetes", k.cluster.Run}}
	if k.tellsHub {
		out = append(out, part{"token keys", k.tokens.run})
	}
	if k.names != nil {
		out = append(out, part{"cluster names", k.names.Run})
	}
	return out
}

// status says how the part is doing; nil when there is none.
func (k *kubeCluster) status() *api.ClusterStatus {
	if k == nil {
		return nil
	}
	s := k.cluster.Status()
	out := api.ClusterStatus{
		Synced: s.Synced, Fault: s.Fault, Exports: s.Exports, Doors: s.Doors, Names: s.Names,
		NoAddress: s.NoAddress, IPv6Only: s.IPv6Only, NoPort: s.NoPort, Writes: s.Writes, LostEvents: s.LostEvents,
	}
	if !s.Heard.IsZero() {
		out.Heard = &s.Heard
	}
	return &out
}
