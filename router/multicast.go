package router

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// Stages of a packet to a group, which the slice has by name and which else is
// dropped as multicast:
//
//  1. It comes from a workload, whose address its source must be.
//  2. The node is the link of its workloads: all others on it get a copy as it
//     came. What is for a link only, by its group or by a TTL of one, ends here.
//  3. Each other node gets one copy, with one from the TTL, whole in a packet from
//     this node's address to that one's (RFC 2003, RFC 2473): tunnels know where
//     that goes. Nobody on the way looks into it.
//  4. There, the source must be an address of the node that sent it; each workload
//     gets a copy. It goes no further: copies are made twice at most.
//
// Policy, if there is one, is asked for each receiver that is on this node, and
// about the group for all that are not. A group has no flows: nothing is an answer.

// Bounds of the copies that a slice's router makes on a node: as many a second as
// cost a small part of one processor, and a burst of a packet for each node and
// workload of a large slice. What exceeds them is dropped as rate-limited.
const (
	copyRate  = 50_000
	copyBurst = 5_000
)

// Multicast says which groups a slice has, and which nodes it is on.
type Multicast struct {
	Groups []netip.Prefix // of multicast addresses, or 255.255.255.255/32
	Nodes  []Member       // all others
}

// A Member is another node of the slice.
type Member struct {
	Addr     netip.Addr     // its own, IPv4
	Prefixes []netip.Prefix // of its workloads
}

func (m Multicast) validate() error {
	for _, p := range m.Groups {
		if !overlay.IsGroups(p) {
			return fmt.Errorf("router: group %v: neither multicast nor 255.255.255.255", p)
		}
	}
	for _, n := range m.Nodes {
		if !n.Addr.Is4() {
			return fmt.Errorf("router: node at %v: groups need its IPv4 address", n.Addr)
		}
	}
	return nil
}

// groups is a table's part of it.
type groups struct {
	set   sources
	local []receiver
	nodes []netip.Addr
	owned map[netip.Addr]*sources // by node
}

// A receiver is a workload's port and its addresses, for the policy.
type receiver struct {
	port  *port
	addr4 netip.Addr
	addr6 netip.Addr
}

// setGroups is called when ports are known.
func (t *table) setGroups(s State, ports map[string]*port) {
	if len(s.Multicast.Groups) == 0 || !t.self4.IsValid() {
		return
	}
	g := &groups{owned: make(map[netip.Addr]*sources)}
	for _, p := range s.Multicast.Groups {
		g.set.Insert(p.Masked(), struct{}{})
	}
	for _, want := range s.Ports {
		if want.Role != Inside {
			continue
		}
		r := receiver{port: ports[want.Name]}
		for _, p := range want.Sources {
			switch {
			case !p.IsSingleIP():
			case p.Addr().Is4() && !r.addr4.IsValid():
				r.addr4 = p.Addr()
			case p.Addr().Is6() && !r.addr6.IsValid():
				r.addr6 = p.Addr()
			}
		}
		g.local = append(g.local, r)
	}
	for _, n := range s.Multicast.Nodes {
		set := new(sources)
		for _, p := range n.Prefixes {
			set.Insert(p.Masked(), struct{}{})
		}
		g.nodes, g.owned[n.Addr] = append(g.nodes, n.Addr), set
	}
	t.groups = g
}

// A copier makes the copies of a slice, one packet after another.
type copier struct {
	made atomic.Uint64 // packets that there are more than came in

	mu   sync.Mutex
	full int64 // when the bucket is full again; see limiter
	buf  []byte
}

// allow takes n tokens. c.mu is held.
func (c *copier) allow(n int, now int64) bool {
	const every = int64(time.Second) / copyRate
	at := max(c.full, now)
	if at-now > every*int64(max(copyBurst, n)-n) {
		return false
	}
	c.full = at + every*int64(n)
	return true
}

// replicate takes a packet that route refused for a reason which a slice with
// groups may not have. done says that it has gone its ways; else drop is why not.
func (r *Router) replicate(t *table, from *sources, in *port, taps []overlay.Tap, buf []byte, meta overlay.Meta, why overlay.Drop) (drop overlay.Drop, done bool) {
	pkt := buf[overlay.Headroom:]
	switch {
	case why == overlay.DropMulticast && in.role == Inside && meta.Piece == 0:
		return r.toGroup(t, from, in, taps, pkt)
	case (why == overlay.DropProtocol || why == overlay.DropPolicy) && in.role == Outside:
		var p info
		if _, ok := p.check(pkt); !ok || p.v6 || p.fragment || p.proto != protoIPv4 && p.proto != protoIPv6 {
			return why, false
		}
		src, dst := addresses(pkt, false)
		owned := t.groups.owned[src]
		if dst != t.self4 || owned == nil || !from.Contains(src) {
			return why, false
		}
		return r.fromNode(t, owned, in, taps, pkt[ipv4Header:p.length])
	}
	return why, false
}

// checked is the part of stages 1 and 4 that they have in common.
func (t *table) checked(p *info, from *sources, pkt []byte) (overlay.Drop, bool) {
	p.group = true
	if len(pkt) == 0 {
		return overlay.DropMalformed, false
	}
	if drop, ok := p.check(pkt); !ok {
		return drop, false
	}
	src, dst := addresses(pkt, p.v6)
	switch {
	case !t.groups.set.Contains(dst) || scopeOf(dst) == ofNode:
		return overlay.DropMulticast, false
	case from == nil || !from.Contains(src):
		return overlay.DropSource, false
	case t.policy != nil && p.later:
		return overlay.DropFragment, false // who may have it is not known without the first
	}
	return 0, true
}

// toGroup is stages 1 to 3.
func (r *Router) toGroup(t *table, from *sources, in *port, taps []overlay.Tap, pkt []byte) (overlay.Drop, bool) {
	var p info
	if drop, ok := t.checked(&p, from, pkt); !ok {
		if drop == overlay.DropProtocol {
			drop = overlay.DropMulticast // a link's own control: this one needs none
		}
		return drop, false
	}
	pkt = pkt[:p.length]
	if len(pkt) > r.mtu {
		return overlay.DropTooBig, false
	}
	_, dst := addresses(pkt, p.v6)
	nodes := t.groups.nodes
	switch {
	case scopeOf(dst) == ofLink || lastHop(pkt, p.v6):
		nodes = nil
	case t.policy != nil && !t.mayReach(pkt, &p, dst, true, false):
		nodes = nil
	case len(pkt)+ipv4Header > r.mtu:
		return overlay.DropTooBig, false
	}
	c := &r.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.allow(len(t.groups.local)+len(nodes), int64(r.clock())) {
		return overlay.DropRateLimited, false
	}
	n := r.deliverLocked(t, in, taps, pkt, &p, true)
	if len(nodes) > 0 {
		c.buf = appendOuter(append(c.buf[:0], make([]byte, overlay.Headroom)...), t.self4, pkt, p.v6)
		decrementTTL(c.buf[overlay.Headroom+ipv4Header:], p.v6)
	}
	for _, node := range nodes {
		putDestination(c.buf[overlay.Headroom:], node)
		r.send(taps, r.outside, [][]byte{c.buf}, 1)
		n++
	}
	return r.copiedLocked(n, t)
}

// fromNode is stage 4.
func (r *Router) fromNode(t *table, owned *sources, in *port, taps []overlay.Tap, pkt []byte) (overlay.Drop, bool) {
	var p info
	if drop, ok := t.checked(&p, owned, pkt); !ok {
		return drop, false
	}
	pkt = pkt[:p.length]
	if _, dst := addresses(pkt, p.v6); scopeOf(dst) == ofLink {
		return overlay.DropMulticast, false
	}
	c := &r.copies
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.allow(len(t.groups.local), int64(r.clock())) {
		return overlay.DropRateLimited, false
	}
	return r.copiedLocked(r.deliverLocked(t, in, taps, pkt, &p, false), t)
}

// copiedLocked accounts for n copies of one packet.
func (r *Router) copiedLocked(n int, t *table) (overlay.Drop, bool) {
	switch {
	case n > 0:
		r.copies.made.Add(uint64(n - 1))
		return 0, true
	case t.policy != nil:
		return overlay.DropPolicy, false
	}
	return overlay.DropMulticast, false // nobody is there
}

// deliverLocked hands a copy to each workload of this node but the one at in.
func (r *Router) deliverLocked(t *table, in *port, taps []overlay.Tap, pkt []byte, p *info, srcHere bool) (n int) {
	c := &r.copies
	for i := range t.groups.local {
		to := &t.groups.local[i]
		addr := to.addr4
		if p.v6 {
			addr = to.addr6
		}
		if to.port == in || t.policy != nil && (!addr.IsValid() || !t.mayReach(pkt, p, addr, srcHere, true)) {
			continue
		}
		c.buf = append(append(c.buf[:0], make([]byte, overlay.Headroom)...), pkt...) // whoever gets it may change it
		r.send(taps, to.port, [][]byte{c.buf}, 1)
		n++
	}
	return n
}

// mayReach asks the policy about a packet as if it were for dst.
func (t *table) mayReach(pkt []byte, p *info, dst netip.Addr, egress, ingress bool) bool {
	src, _ := addresses(pkt, p.v6)
	k := keyOf(pkt, p)
	return t.policy.decide(src, dst, k.proto(), uint16(k.last), egress, ingress).allowed
}

// scope is how far a group may reach.
type scope uint8

const (
	ofNode scope = iota // no further than the machine that sends (RFC 4291 2.7)
	ofLink              // never past a router (RFC 5771 4, RFC 4291, RFC 919)
	ofSite              // as far as its TTL
)

func scopeOf(group netip.Addr) scope {
	if group.Is4() {
		if a := group.As4(); a[0] == 224 && a[1] == 0 && a[2] == 0 || a[0] == 255 {
			return ofLink
		}
		return ofSite
	}
	switch a := group.As16(); a[1] & 15 {
	case 0, 1:
		return ofNode
	case 2:
		return ofLink
	}
	return ofSite
}

// appendOuter appends pkt in a packet from src whose destination is to be put.
func appendOuter(b []byte, src netip.Addr, pkt []byte, v6 bool) []byte {
	proto, class := uint8(protoIPv4), pkt[1]
	if v6 {
		proto, class = protoIPv6, pkt[0]<<4|pkt[1]>>4
	}
	b = append(b, 0x45, class&0xfc) // ECN is the tunnel's
	b = binary.BigEndian.AppendUint16(b, uint16(ipv4Header+len(pkt)))
	b = append(b, 0, 0, 0x40, 0, errorTTL, proto, 0, 0)
	s := src.As4()
	b = append(append(b, s[:]...), 0, 0, 0, 0)
	return append(b, pkt...)
}

func putDestination(h []byte, dst netip.Addr) {
	d := dst.As4()
	copy(h[16:], d[:])
	h[10], h[11] = 0, 0
	binary.BigEndian.PutUint16(h[10:], ^sum(h[:ipv4Header], 0))
}
