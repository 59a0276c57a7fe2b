package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"slicewire/dnsd"
	"slicewire/netstack"
	"slicewire/netstack/activate"
	"slicewire/netstack/forward"
	"slicewire/netstack/publish"
	"slicewire/netstack/socks"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/router"
	"slicewire/shaper"
)

// localPort names the port of the node's own stack in the router.
const localPort = "local"

// dnsPort is where names are answered inside a slice.
const dnsPort = 53

// A sliceNode is one slice on this node: its router, its stack and everything
// that is attached to them. It runs from openSlice to stop.
type sliceNode struct {
	name     string
	local    localSlice
	router   *router.Router
	shaper   *shaper.Queue
	outside  *shaper.Policer // the tunnel's side of the router
	shaping  shaping
	rates    atomic.Pointer[overlay.QoS] // what shaping has set, for the status
	stack    *netstack.Stack
	taps     *overlay.Taps
	names    *dnsd.Server
	publish  *publish.Publisher
	virtual  *publish.Publisher // of services with a virtual address
	doors    *publish.Publisher // where pods of the cluster reach services; nil outside of one
	doorWay  atomic.Pointer[doorChoice]
	naming   naming
	upstream []netip.AddrPort
	reach    atomic.Pointer[map[overlay.NodeID]overlay.Reach] // for status
	forwards []*forward.Server
	keys     *sliceKeys
	policy   slicePolicy      // the reconcile loop's
	classes  sliceClasses     // the reconcile loop's
	imports  overlay.Importer // the reconcile loop's
	addrs    atomic.Pointer[[]netip.Addr]
	lossy    atomic.Pointer[[]dropper] // the workloads' ports
	gone     overlay.Drops             // of those that are no more
	unbound  overlay.Drops             // of clients in the cluster that the slice does not bind

	cancel context.CancelFunc
	done   chan error // the fault that ended it, nil after stop
}

// localSlice is what a slice's listeners depend on: its settings in the node file
// and the node's own addresses. A slice for which it changes is opened anew.
type localSlice struct {
	addr, addr6 netip.Addr
	proxy, dns  string
	zones       []string
	upstream    []string
	private     []string
	mtu         int
	resolver    bool // this machine's programs find the slice's names; see splitDNS
	forwards    []manifest.Forward
}

func (l localSlice) equal(m localSlice) bool {
	return l.addr == m.addr && l.addr6 == m.addr6 && l.proxy == m.proxy && l.dns == m.dns && l.mtu == m.mtu && l.resolver == m.resolver &&
		slices.Equal(l.zones, m.zones) && slices.Equal(l.upstream, m.upstream) && slices.Equal(l.private, m.private) &&
		slices.Equal(l.forwards, m.forwards)
}

// localOf gathers what a slice's listeners depend on.
func localOf(file *manifest.NodeFile, a *overlay.Attachment) localSlice {
	s := file.SliceSettings(a.Slice)
	l := localSlice{addr: a.Addr, addr6: a.Addr6, proxy: s.Proxy, dns: s.DNS, mtu: s.MTU, zones: zonesOf(s), upstream: s.Upstream, private: s.PrivateZones, resolver: resolverSlice(file) == a.Slice}
	for _, f := range file.Forward {
		if f.Slice == a.Slice {
			l.forwards = append(l.forwards, f)
		}
	}
	return l
}

// openSlice opens a slice's listeners and starts its parts. When anything
// cannot be opened, nothing of it is left. A part that ends by itself later is
// said on faults, unless a fault is waiting there already.
func openSlice(a *overlay.Attachment, local localSlice, keys *sliceKeys, uplink *shaper.Uplink, taps *overlay.Taps, guard doorGuard, log *slog.Logger, faults chan<- error) (*sliceNode, error) {
	n := &sliceNode{name: a.Slice, local: local, keys: keys, done: make(chan error, 1)}
	log = log.With("slice", a.Slice)
	var err error
	n.shaper = shaper.New(uplink)
	if n.router, err = router.New(router.Config{Slice: a.Slice, MTU: local.mtu, Log: log, Outlet: n.shaper, Taps: taps}); err != nil {
		return nil, errors.Join(err, n.shaper.Close())
	}
	n.taps = taps
	n.shaper.Drops().Watch(taps, a.Slice, "shaper")
	n.outside = shaper.NewPolicer(n.router.Outside(), n.shaper.Drops())
	if n.stack, err = netstack.New(netstack.Config{Slice: a.Slice, MTU: local.mtu, Log: log}); err != nil {
		return nil, errors.Join(err, n.shaper.Close())
	}
	n.stack.Drops().Watch(taps, a.Slice, localPort)
	parts, opened, err := n.attach(a, guard, log)
	if err != nil {
		for _, c := range opened {
			c()
		}
		return nil, errors.Join(fmt.Errorf("slice %s: %w", a.Slice, err), n.stack.Close(), n.shaper.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		err := run(ctx, parts...)
		if ctx.Err() == nil {
			select {
			case faults <- fmt.Errorf("slice %s: %w", n.name, err):
			default:
			}
		}
		n.done <- err
	}()
	return n, nil
}

// attach opens what the slice serves and returns its parts in the order of
// their start, and how to close what was opened should that not happen.
func (n *sliceNode) attach(a *overlay.Attachment, guard doorGuard, log *slog.Logger) (parts []part, opened []func(), err error) {
	if err := n.setAddresses(a, nil); err != nil {
		return nil, nil, err
	}
	closing := func(c interface{ Close() error }) { opened = append(opened, func() { c.Close() }) }
	if n.upstream, err = upstreamsOf(n.local.upstream, resolvPath); err != nil {
		return nil, nil, err
	}
	names := dnsd.Config{Log: log, Zones: n.local.zones, Upstream: n.upstream, Private: n.local.private}
	for _, addr := range []netip.Addr{a.Addr, a.Addr6} {
		at := netip.AddrPortFrom(addr, dnsPort)
		p, err := n.stack.ListenUDP(at)
		if err != nil {
			return nil, opened, fmt.Errorf("names on %v: %w", at, err)
		}
		closing(p)
		names.Packet = append(names.Packet, p)
		l, err := n.stack.ListenTCP(at)
		if err != nil {
			return nil, opened, fmt.Errorf("names on %v: %w", at, err)
		}
		closing(l)
		names.Stream = append(names.Stream, l)
	}
	var split []part
	if n.local.dns != "" {
		p, l, err := listenBoth(n.local.dns)
		if err != nil {
			return nil, opened, fmt.Errorf("dns: %w", err)
		}
		closing(p)
		closing(l)
		names.Packet, names.Stream = append(names.Packet, p), append(names.Stream, l)
		if at, err := netip.ParseAddrPort(l.Addr().String()); err == nil && n.local.resolver {
			split = append(split, part{"resolver", (&splitDNS{at: at, zones: n.local.zones, log: log}).Run})
		}
	}
	if n.names, err = dnsd.New(names); err != nil {
		return nil, opened, err
	}
	if n.publish, err = publish.New(publish.Config{Stack: n.stack, Log: log}); err != nil {
		return nil, opened, err
	}
	in := inSlice{n}
	if n.virtual, err = publish.New(publish.Config{Stack: n.stack, Log: log, Dial: in.dialService}); err != nil {
		return nil, opened, err
	}
	parts = []part{
		{"stack", n.stack.Run}, {"router", n.router.Run}, {"names", n.names.Run}, {"publish", n.publish.Run}, {"virtual", n.virtual.Run},
	}
	if guard != nil {
		sockets, err := activate.New()
		if err != nil {
			return nil, opened, err
		}
		closing(sockets)
		if n.doors, err = publish.New(publish.Config{Stack: sockets, Log: log, Dial: in.dialDoor(guard)}); err != nil {
			return nil, opened, err
		}
		parts = append(parts, part{"sockets of doors", sockets.Run}, part{"doors", n.doors.Run})
	}
	parts = append(parts, split...)
	if n.local.proxy != "" {
		l, err := listenStream(n.local.proxy)
		if err != nil {
			return nil, opened, fmt.Errorf("proxy: %w", err)
		}
		closing(l)
		p, err := socks.New(socks.Config{Listener: l, Dialer: in, Resolver: in, Log: log})
		if err != nil {
			return nil, opened, err
		}
		parts = append(parts, part{"proxy", p.Run})
	}
	for _, want := range n.local.forwards {
		f, l, err := n.openForward(want, log)
		if err != nil {
			return nil, opened, fmt.Errorf("forward %s: %w", want.Listen, err)
		}
		closing(l)
		n.forwards = append(n.forwards, f)
		parts = append(parts, part{"forward " + want.Listen, f.Run})
	}
	return parts, opened, nil
}

func (n *sliceNode) openForward(want manifest.Forward, log *slog.Logger) (*forward.Server, net.Listener, error) {
	host, service, err := net.SplitHostPort(want.To)
	if err != nil {
		return nil, nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, nil, err
	}
	l, err := listenStream(want.Listen)
	if err != nil {
		return nil, nil, err
	}
	in := inSlice{n}
	f, err := forward.New(forward.Config{Listener: l, Host: host, Port: uint16(port), Dialer: in, Resolver: in, Log: log})
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return f, l, nil
}

// setAddresses tells the stack which addresses it answers on.
func (n *sliceNode) setAddresses(a *overlay.Attachment, virtual []netip.Addr) error {
	own := a.Owned()
	n.addrs.Store(&own)
	return n.stack.Set(append(own, virtual...))
}

// set states what the slice should be now: the node's own addresses, the
// prefixes behind its peers, what it passes on between them, what may pass, what
// it publishes and its workloads.
func (n *sliceNode) set(self overlay.NodeID, a *overlay.Attachment, s *overlay.Slice, v overlay.View, backends []publish.Backend, workloads []*workload) error {
	remote := v.Fabric.Remote()
	virtuals, fault := virtualsOf(v.Services)
	virtual := virtualAddrs(virtuals)
	own := append(a.Owned(), virtual...)
	state := router.State{Self4: a.Addr, Self6: a.Addr6, Ports: []router.Port{
		{Name: router.OutsideName, Role: router.Outside, Sources: remote},
		{Name: localPort, Link: n.stack.Link(), Role: router.Local, Sources: hostPrefixes(own)},
	}}
	state.Multicast.Groups = s.Multicast
	for _, m := range overlay.Members(self, s, v.Nodes) {
		state.Multicast.Nodes = append(state.Multicast.Nodes, router.Member(m))
	}
	for _, t := range v.Fabric.Transits() {
		state.Transits = append(state.Transits, router.Transit(t))
	}
	for _, site := range s.Sites {
		for _, p := range append([]netip.Prefix{site.Prefix, site.Prefix6}, site.Routes...) {
			state.Zones = append(state.Zones, router.Zone{Prefix: p, Name: site.Name})
		}
	}
	for _, p := range remote {
		state.Routes = append(state.Routes, router.Route{Prefix: p, Port: router.OutsideName})
	}
	for _, p := range hostPrefixes(own) {
		state.Routes = append(state.Routes, router.Route{Prefix: p, Port: localPort})
	}
	for _, w := range workloads {
		port := w.port()
		for _, r := range a.Routes {
			if r.Via == w.name {
				port.Sources = append(port.Sources, r.Prefix)
				if r.Real != r.Prefix {
					port.Maps = append(port.Maps, router.Map{Real: r.Real, Mapped: r.Prefix})
				}
				state.Routes = append(state.Routes, router.Route{Prefix: r.Prefix, Port: port.Name})
			}
		}
		state.Ports = append(state.Ports, port)
		for _, p := range w.prefixes() {
			state.Routes = append(state.Routes, router.Route{Prefix: p, Port: w.portName()})
		}
	}
	var err error
	var known []overlay.Known // of 50,000 endpoints: only where somebody asks
	if s.Isolated || len(s.Policies) > 0 || s.QoS.PicksMembers() {
		known = overlay.Know(self, a, &v)
	}
	if state.Policy, err = n.policy.renew(overlay.CompileRules(s, v.Nodes, known)); err != nil {
		err = fmt.Errorf("slice %s: policy, nothing passes: %w", n.name, err)
	}
	if e := n.classes.renew(overlay.CompileClasses(s, v.Nodes, known)); e != nil {
		err = errors.Join(err, fmt.Errorf("slice %s: classes, told apart by DSCP alone: %w", n.name, e))
	}
	err = errors.Join(err, fault, n.setAddresses(a, virtual), n.publish.Set(backends), n.virtual.Set(virtuals), n.router.Set(state))
	n.setLossy(workloads)
	return err
}

// A dropper is a port that counts what it loses itself.
type dropper interface{ Drops() *overlay.Drops }

// setLossy remembers whose losses to count, and those of who has gone.
func (n *sliceNode) setLossy(workloads []*workload) {
	var now []dropper
	for _, w := range workloads {
		if d, ok := w.link.(dropper); ok {
			now = append(now, d)
			d.Drops().Watch(n.taps, n.name, w.portName())
		}
	}
	if old := n.lossy.Swap(&now); old != nil {
		for _, d := range *old {
			if !slices.Contains(now, d) {
				for reason := range overlay.NumDrops {
					n.gone.Add(reason, int(d.Drops().Get(reason)))
				}
			}
		}
	}
}

func hostPrefixes(addrs []netip.Addr) []netip.Prefix {
	out := make([]netip.Prefix, len(addrs))
	for i, a := range addrs {
		out[i] = netip.PrefixFrom(a, a.BitLen())
	}
	return out
}

func addDrops(to, from map[string]uint64) {
	for reason, packets := range from {
		to[reason] += packets
	}
}

// stop ends the slice's parts and waits for them.
func (n *sliceNode) stop() error {
	n.cancel()
	return <-n.done
}

// ping sends one echo request and returns the round trip.
func (n *sliceNode) ping(ctx context.Context, dst netip.Addr, timeout time.Duration) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return n.stack.Ping(ctx, dst)
}
