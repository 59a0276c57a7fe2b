package main

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"slicewire/dnsd"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
)

const (
	// namesLook is how often round trips and the youth of links are taken over into
	// answers. A link that goes up or down is at once: one that was idle is judged
	// within 1.5 s, so that what is dead is out of the answers within two.
	namesLook = 200 * time.Millisecond
	// youngFor is how long a link that was never up is not held to be down.
	youngFor = 5 * time.Second
)

// naming is what a slice's names are made of. The daemon's loop owns it.
type naming struct {
	self  overlay.NodeID
	view  overlay.View
	set   dnsd.View // what the server has
	peers map[overlay.NodeID]namedPeer
	lost  []overlay.NodeID // what this gateway tells others that it does not reach
}

// A namedPeer is what is remembered of a peer from one look to the next.
type namedPeer struct {
	since time.Time     // when it was first seen
	rtt   time.Duration // that answers go by
}

// settle returns the round trip that answers are to go by: the old one unless
// the new one is another by half, so that noise does not turn answers over.
func (p namedPeer) settle(rtt time.Duration) time.Duration {
	if p.rtt == 0 || rtt > p.rtt*3/2 || rtt < p.rtt*2/3 {
		return rtt
	}
	return p.rtt
}

// zonesOf lists the zones of a slice on this node.
func zonesOf(s manifest.NodeSlice) []string {
	return append([]string{overlay.Zone, overlay.ClusterSetZone}, s.Zones...)
}

// setNames states which names there are.
func (n *sliceNode) setNames(self overlay.NodeID, a *overlay.Attachment, sites []overlay.SliceSite, v overlay.View, s manifest.NodeSlice, links []overlay.PeerLink) {
	n.naming.self, n.naming.view = self, v
	want := dnsd.View{
		Services: v.Services, Mode: dnsd.Mode(s.Answers), Lenient: s.UnknownNames == "noerror",
		Reverse: reverseOf(a, sites, v.Services),
		Forward: []netip.Addr{a.Addr, a.Addr6},
		Reach:   overlay.Reaches(self, &v, links),
	}
	for _, w := range a.Workloads {
		want.Forward = append(want.Forward, w.Addr, w.Addr6)
	}
	for _, node := range v.Nodes {
		e := dnsd.Entry{Name: overlay.NodeDNSName(node.ID), Addrs: a.AddrsOf(node), Reverse: true}
		if node.ID == self {
			e.Addrs = []netip.Addr{a.Addr, a.Addr6}
		}
		if !want.Reach[node.ID].Lost {
			want.Entries = append(want.Entries, e)
		}
	}
	if reflect.DeepEqual(want, n.naming.set) {
		return // answers go on in turn
	}
	n.naming.set = want
	n.reach.Store(&want.Reach)
	n.names.Set(want)
	n.virtual.Review(n.stillReached)
	if n.doors != nil {
		n.chooseDoors(v.Services, want.Mode)
	}
}

// reverseOf lists the networks whose addresses have names on the slice: its own
// ones, mapped ones whole, and of others behind sites the hosts that are
// published, as the rest is somebody else's to name.
func reverseOf(a *overlay.Attachment, sites []overlay.SliceSite, services []overlay.ServiceView) []netip.Prefix {
	out := []netip.Prefix{a.Subnet, a.Subnet6, overlay.VirtualRange}
	for _, s := range sites {
		for _, m := range s.Mapped {
			out = append(out, m.Mapped)
		}
	}
	whole := out
	for _, s := range services {
		for _, e := range s.Endpoints {
			for _, p := range hostPrefixes([]netip.Addr{e.Addr, e.Addr6}) {
				if p.IsValid() && !slices.ContainsFunc(whole, p.Overlaps) && !slices.Contains(out[len(whole):], p) {
					out = append(out, p)
				}
			}
		}
	}
	return out
}

// linksOf returns the state of the links to a slice's peers.
func (d *daemon) linksOf(n *sliceNode, now time.Time) (out []overlay.PeerLink) {
	peers := make(map[overlay.NodeID]namedPeer)
	for _, p := range d.gateway.Links(n.name) {
		site, node, _ := strings.Cut(p.Name, "/")
		l := overlay.PeerLink{ID: overlay.NodeID{Site: site, Node: node}, Watched: p.Watched, Up: p.Up, Prefixes: p.Prefixes}
		known := n.naming.peers[l.ID]
		if known.since.IsZero() {
			known.since = now
		}
		known.rtt = known.settle(p.RTT)
		peers[l.ID] = known
		l.RTT, l.Young = known.rtt, p.Changes == 0 && now.Sub(known.since) < youngFor
		out = append(out, l)
	}
	n.naming.peers = peers
	return out
}

// relink has the loop take over that links have gone up or down.
func (d *daemon) relink() {
	select {
	case d.relinked <- struct{}{}:
	default: // it is about to
	}
}

// lookNames takes over into every slice's answers what has changed of its links
// since the last look.
func (d *daemon) lookNames() {
	now := time.Now()
	told := false
	for _, n := range d.slices {
		if lost := overlay.LostNodes(n.naming.self, &n.naming.view, d.linksOf(n, now)); !slices.Equal(lost, n.naming.lost) {
			n.naming.lost, told = lost, true
		}
		reach := overlay.Reaches(n.naming.self, &n.naming.view, d.linksOf(n, now))
		if maps.Equal(reach, n.naming.set.Reach) {
			continue
		}
		view := d.view.Load()
		i := slices.IndexFunc(view.slices, func(x sliceView) bool { return x.node == n })
		if i >= 0 {
			n.setNames(n.naming.self, &view.slices[i].attachment, view.slices[i].sites, n.naming.view, d.want.file.SliceSettings(n.name), d.linksOf(n, now))
		}
	}
	d.cluster.reached(d.slices)
	if told {
		if err := d.gossip.Set(slices.Concat(d.facts, d.lostFacts())); err != nil {
			d.log.Error("others are not told which nodes are lost", "err", err)
		}
	}
}

// lostFacts are what this node tells of others that it does not reach.
func (d *daemon) lostFacts() (out []overlay.Record) {
	for name, n := range d.slices {
		if len(n.naming.lost) > 0 {
			out = append(out, overlay.Record{
				Origin: n.naming.self, Key: overlay.Key{Kind: overlay.KindLost, Slice: name}, Lost: &overlay.LostBody{Nodes: n.naming.lost},
			})
		}
	}
	return out
}
