package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"slicewire/api"
	"slicewire/gateway"
	"slicewire/netstack/publish"
	"slicewire/overlay"
)

func equalGiven(a, b given) bool { return reflect.DeepEqual(a, b) }

// Status gathers what `slicewire status` shows.
func (d *daemon) Status(context.Context) api.Status {
	a := d.id.authority()
	s := api.Status{
		APIVersion: api.Version, Kind: "Status", Version: versionString(),
		Mesh: a.Mesh, Site: a.ID.Site, Node: a.ID.Node, Gateway: a.Gateway, Cordoned: d.cordoned.Load(),
		Started: d.started, UptimeSecs: time.Since(d.started).Seconds(), PID: os.Getpid(),
		Listen: d.listen.String(), Metrics: d.metricsAddr(), CertExpiry: a.NotAfter,
		Gossip: api.GossipStatus{Listen: addrText(d.gossip.Addr()), Leaf: d.leaf, Members: []api.MemberStatus{}, Records: len(d.gossip.Records()), Refused: d.gossip.Refused()},
		Slices: []api.SliceStatus{}, Warnings: []string{}, Endpoints: []string{}, Cluster: d.cluster.status(),
	}
	for _, m := range d.gossip.Members() {
		s.Gossip.Members = append(s.Gossip.Members, api.MemberStatus{Name: m.Name, Address: addrText(m.Addr), State: m.State, Leaf: m.Leaf})
	}
	s.Warnings = append(s.Warnings, d.trustWarnings()...)
	s.Hub = d.hub.status()
	s.Warnings = append(s.Warnings, hubWarnings(s.Hub)...)
	view := d.view.Load()
	if view == nil {
		return s
	}
	s.Warnings = append(s.Warnings, view.warnings...)
	tunnels := make(map[string]gateway.TunnelStatus)
	for _, t := range d.gateway.Status() {
		if !t.Passive {
			tunnels[t.Slice] = t
		}
	}
	for i := range view.slices {
		v := &view.slices[i]
		s.Slices = append(s.Slices, v.status(tunnels[v.node.name]))
	}
	return s
}

// addrText is an address as the status shows it: what is none is empty.
func addrText(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func (v *sliceView) status(t gateway.TunnelStatus) api.SliceStatus {
	n, a := v.node, &v.attachment
	s := api.SliceStatus{
		Name: n.name, Namespaces: v.bound, Allowed: v.allowed, Subnet: a.Subnet, Subnet6: a.Subnet6, Block: a.Block, Address: a.Addr, Address6: a.Addr6,
		Keys: v.keys, MTU: n.local.mtu, Proxy: n.local.proxy, DNS: n.local.dns, NameServer: n.nameStatus(a),
		Peers: []api.PeerStatus{}, Services: []api.ServiceStatus{}, Publish: []api.PublishStatus{}, Forward: []api.ForwardStatus{},
	}
	for _, p := range v.view.Peers {
		s.Peers = append(s.Peers, peerStatus(p, t))
	}
	for _, x := range v.view.Services {
		s.Services = append(s.Services, serviceStatus(x, n.reach.Load()))
	}
	for _, b := range n.publish.Status() {
		s.Publish = append(s.Publish, publishStatus(b))
	}
	for i, f := range n.local.forwards {
		s.Forward = append(s.Forward, api.ForwardStatus{Listen: f.Listen, To: f.To, Active: int(n.forwards[i].Stats().Active)})
	}
	s.Shaping = n.shapingStatus()
	s.Routes = v.routes()
	s.Workloads = v.counted()
	s.Counters, s.Drops = n.counters()
	for reason, count := range t.Drops {
		s.Drops[reason] += count
	}
	return s
}

func peerStatus(p overlay.Peer, t gateway.TunnelStatus) api.PeerStatus {
	out := api.PeerStatus{Site: p.ID.Site, Node: p.ID.Node, Prefixes: p.Prefixes}
	i := slices.IndexFunc(t.Peers, func(q gateway.PeerStatus) bool { return q.Name == p.ID.String() })
	if i < 0 {
		return out
	}
	q := t.Peers[i]
	out.PublicKey = base64.StdEncoding.EncodeToString(q.PublicKey[:])
	out.RxBytes, out.TxBytes, out.Prefixes = q.RxBytes, q.TxBytes, append([]netip.Prefix{}, q.Prefixes...)
	if q.Watched {
		out.Link = &api.LinkStatus{Up: q.Up, RTTMs: float64(q.RTT.Nanoseconds()) / 1e6, Loss: q.Loss, Changes: q.Changes, Leaving: q.Leaving}
	}
	if q.Endpoint.IsValid() {
		out.Endpoint = q.Endpoint.String()
	}
	if !q.LastHandshake.IsZero() {
		at := q.LastHandshake
		out.LastHandshake = &at
	}
	return out
}

func serviceStatus(x overlay.ServiceView, reach *map[overlay.NodeID]overlay.Reach) api.ServiceStatus {
	out := api.ServiceStatus{
		Name: x.Name, Namespace: x.Namespace, Type: x.Type.String(), Virtual: x.Virtual, Virtual6: x.Virtual6, DNSNames: x.DNSNames,
		Ports: []api.PortStatus{}, Endpoints: []api.EndpointStatus{}, Conditions: []api.ConditionStatus{},
	}
	for _, c := range x.Conditions {
		out.Conditions = append(out.Conditions, api.ConditionStatus{Site: c.Origin.Site, Node: c.Origin.Node, Reason: c.Reason, Message: c.Message})
	}
	for _, p := range x.Ports {
		out.Ports = append(out.Ports, api.PortStatus{Name: p.Name, Port: p.Port, Protocol: p.Protocol})
	}
	for _, e := range x.Endpoints {
		y := api.EndpointStatus{Name: e.Name, Site: e.Origin.Site, Node: e.Origin.Node, Address: e.Addr, Address6: e.Addr6}
		if reach != nil {
			r := (*reach)[e.Origin]
			y.Lost, y.Rank = r.Lost, r.Rank
		}
		out.Endpoints = append(out.Endpoints, y)
	}
	return out
}

func publishStatus(b publish.BackendStatus) api.PublishStatus {
	i := strings.LastIndexByte(b.Name, '/') // namespace/service/backend
	out := api.PublishStatus{Service: b.Name[:max(i, 0)], Backend: b.Name[i+1:], Listening: true, Active: b.Conns, Error: b.LastFault}
	for _, p := range b.Ports {
		if p.Addr.Addr().Is4() {
			out.Address = p.Addr.Addr().String()
		}
		if !p.Listening {
			out.Listening, out.Error = false, p.Fault
		}
	}
	return out
}

// Bounds of what a ping may ask of the daemon.
const (
	maxPingCount   = 1000
	maxPingTimeout = time.Minute
)

// errTarget says that a ping's target is unknown.
var errTarget = errors.New("no such node, service or name on this slice")

// Ping sends echo requests one after another and replies for each.
func (d *daemon) Ping(ctx context.Context, req api.PingRequest, reply func(api.PingReply) error) error {
	if req.Count < 1 || req.Count > maxPingCount || req.Timeout <= 0 || req.Timeout > maxPingTimeout || req.Interval < 0 || req.Interval > maxPingTimeout {
		return fmt.Errorf("ping: count is 1 to %d, timeout and interval at most %v", maxPingCount, maxPingTimeout)
	}
	v, err := d.sliceFor(req.Slice)
	if err != nil {
		return err
	}
	dst, err := v.target(req.Target)
	if err != nil {
		return fmt.Errorf("ping %s on slice %s: %w", req.Target, v.node.name, err)
	}
	for seq := range req.Count {
		if seq > 0 {
			wait := time.NewTimer(req.Interval)
			select {
			case <-ctx.Done():
				wait.Stop()
				return nil
			case <-wait.C:
			}
		}
		p := api.PingReply{Seq: seq, Slice: v.node.name, Address: dst}
		rtt, err := v.node.ping(ctx, dst, req.Timeout)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			p.Error = err.Error()
		default:
			p.RTTMs = float64(rtt.Nanoseconds()) / 1e6
		}
		if err := reply(p); err != nil {
			return nil // the client left
		}
	}
	return nil
}

func (d *daemon) sliceFor(name string) (*sliceView, error) {
	view := d.view.Load()
	if view == nil || len(view.slices) == 0 {
		return nil, fmt.Errorf("slice %q: %w, which has none", name, errNoSlice)
	}
	if name == "" && len(view.slices) == 1 {
		return &view.slices[0], nil
	}
	known := make(map[string]bool)
	for i := range view.slices {
		if view.slices[i].node.name == name {
			return &view.slices[i], nil
		}
		known[view.slices[i].node.name] = true
	}
	have := strings.Join(slices.Sorted(maps.Keys(known)), ", ")
	if name == "" {
		return nil, fmt.Errorf("this node has several slices, %s: %w", have, errWhichSlice)
	}
	return nil, fmt.Errorf("slice %q: %w, which has %s: choose one with --slice", name, errNoSlice, have)
}

// target finds the address that a ping's target stands for: itself, a DNS
// name, namespace/service or site/node.
func (v *sliceView) target(text string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.Unmap(), nil
	}
	if addrs, ok := v.node.names.Lookup(text); ok && len(addrs) > 0 {
		return addrs[0], nil
	}
	first, second, _ := strings.Cut(text, "/")
	if addrs, ok := v.node.names.Lookup(overlay.ServiceDNSName(second, first)); ok && len(addrs) > 0 {
		return addrs[0], nil
	}
	for _, p := range v.view.Nodes {
		if p.ID.Site != first || p.ID.Node != second {
			continue
		}
		// The node's own address is the first of its block.
		for _, x := range p.Prefixes {
			if x.Addr().Is4() {
				return overlay.NodeAddr(x), nil
			}
		}
	}
	return netip.Addr{}, errTarget
}

// Reload has the loop read the configuration again and waits for its word.
func (d *daemon) Reload(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case d.reloads <- reloadRequest{done}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
