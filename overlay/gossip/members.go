package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"slicewire/overlay"
)

// A member's metadata proves that the holder of a certificate wants to be
// reached at the member's address:
//
//	meta  = u8 version (1), 32 bytes fingerprint of the certificate, 64 bytes signature
//	proof = the signature, in the domain signMember, of str name, addr, u16 port
//
// The chain itself does not fit into the 512 bytes that memberlist gives. While
// it is unknown, a member is let in unproven, for records may come from it; there
// are at most maxUnproven of these.
const (
	signMember  = "slicewire member v1"
	metaSize    = 1 + 32 + signatureSize
	maxUnproven = 256
	maxProofs   = 4096 // remembered, so that what members repeat is not verified again
	maxGone     = 256
	maxMerge    = 4096 // members in one exchange
)

// The states of a Member.
const (
	StateProven   = "proven"   // alive, its name and address signed by its certificate
	StateUnproven = "unproven" // alive, its certificate not known yet
	StateGone     = "gone"     // left or not answering
)

// A Member is a node as membership sees it. It is no statement about any path.
type Member struct {
	Name  string         // "site/node"
	Addr  netip.AddrPort // where it is reached; a leaf: where its session comes from
	State string
	Leaf  bool // it has a session with this node instead of being a member of its own
}

// members is what memberlist's events told. It keeps its own copies, because
// memberlist changes the nodes it hands out.
type members struct {
	mu       sync.Mutex // guards what follows; taken under memberlist's lock
	live     map[string]*live
	order    []*live                // all of them, shuffled by some
	at       map[netip.AddrPort]int // how many of them have that address
	gone     map[string]departed
	unproven map[string]bool
	proofs   map[[32]byte]bool
	twins    map[string]twin
}

// live is a member that is there. The node is not changed any more.
type live struct {
	node  *memberlist.Node
	addr  netip.AddrPort
	place int // in order
}

// departed is where a member was. died is zero if it said that it leaves.
type departed struct {
	addr netip.AddrPort
	died time.Time
}

// lostFor is how long a member that died without a word is looked for.
const lostFor = time.Hour

// twin is what was seen of a live name at a second address.
type twin struct {
	first, last time.Time
	count       int
}

// A node that starts again at another address is at two for as long as it takes
// to find out that the first is dead. Who is at two for longer is two.
const (
	twinAfter  = 25 * time.Second // and three sightings
	twinForget = time.Minute      // between two of them
	maxTwins   = 256
)

// twin takes note that a live name was proven at a second address, and reports
// whether that goes on for so long that two hold its key.
func (m *members) twin(name string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, known := m.twins[name]
	if !known || now.Sub(t.last) > twinForget {
		if !known && len(m.twins) >= maxTwins {
			return false
		}
		t = twin{first: now}
	}
	t.last = now
	t.count++
	m.twins[name] = t
	return t.count >= 3 && now.Sub(t.first) >= twinAfter
}

func (m *members) init() {
	m.live = make(map[string]*live)
	m.at = make(map[netip.AddrPort]int)
	m.gone = make(map[string]departed)
	m.unproven = make(map[string]bool)
	m.proofs = make(map[[32]byte]bool)
	m.twins = make(map[string]twin)
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	a, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(a.Unmap(), n.Port)
}

// set takes note of a live member, whose metadata keep copies.
func (m *members) set(n *memberlist.Node, keep func([]byte) []byte) {
	c := *n
	c.Addr, c.Meta = slices.Clone(n.Addr), keep(n.Meta)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeOutLocked(n.Name)
	l := &live{node: &c, addr: addrOf(n), place: len(m.order)}
	m.live[n.Name] = l
	m.order = append(m.order, l)
	m.at[l.addr]++
	delete(m.gone, n.Name)
}

// takeOutLocked takes out a live member, if there is one of that name.
func (m *members) takeOutLocked(name string) {
	l := m.live[name]
	if l == nil {
		return
	}
	delete(m.live, name)
	m.swapLocked(l.place, len(m.order)-1)
	m.order[len(m.order)-1] = nil
	m.order = m.order[:len(m.order)-1]
	if m.at[l.addr]--; m.at[l.addr] == 0 {
		delete(m.at, l.addr)
	}
}

func (m *members) swapLocked(i, j int) {
	m.order[i], m.order[j] = m.order[j], m.order[i]
	m.order[i].place, m.order[j].place = i, j
}

func (m *members) remove(n *memberlist.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.takeOutLocked(n.Name)
	delete(m.unproven, n.Name)
	if len(m.gone) < maxGone {
		d := departed{addr: addrOf(n)}
		if n.State != memberlist.StateLeft {
			d.died = time.Now()
		}
		m.gone[n.Name] = d
	}
}

// find returns a live member's copy, which is not changed any more, or nil.
func (m *members) find(name string) *memberlist.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.live[name]; l != nil {
		return l.node
	}
	return nil
}

// some returns the names of n live members but self, chosen at random, or of
// all if they are fewer.
func (m *members) some(self string, n int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]string, 0, n)
	for i := 0; i < len(m.order) && len(out) < n; i++ {
		m.swapLocked(i, i+rand.IntN(len(m.order)-i))
		if name := m.order[i].node.Name; name != self {
			out = append(out, name)
		}
	}
	return out
}

// names returns the live members but self, sorted.
func (m *members) names(self string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := slices.Sorted(maps.Keys(m.live))
	return slices.DeleteFunc(out, func(n string) bool { return n == self })
}

// withoutMembers takes the addresses of live members out of a set.
func (m *members) withoutMembers(set map[netip.AddrPort]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for addr := range set {
		if m.at[addr] > 0 {
			delete(set, addr)
		}
	}
}

// lost returns the address of some member that died lately.
func (m *members) lost() (addr netip.AddrPort, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, d := range m.gone { // in random order
		if !d.died.IsZero() && time.Since(d.died) < lostFor {
			return d.addr, true
		}
		if !d.died.IsZero() {
			m.gone[name] = departed{addr: d.addr}
		}
	}
	return addr, false
}

// count returns how many members are live, this node included.
func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(1, len(m.live))
}

// reset forgets the live members when the network goes.
func (m *members) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.live)
	clear(m.at)
	m.order = nil
}

// Members returns the members that are known, this node included, sorted by name:
// to a gateway, all gateways and the leaves that have a session with it; to a
// leaf, the gateways that it has sessions with.
func (g *Gossip) Members() []Member {
	m := &g.members
	m.mu.Lock()
	var out []Member
	metas := make(map[string][]byte)
	for name, l := range m.live {
		out = append(out, Member{Name: name, Addr: l.addr})
		metas[name] = l.node.Meta
	}
	for name, d := range m.gone {
		out = append(out, Member{Name: name, Addr: d.addr, State: StateGone})
	}
	m.mu.Unlock()
	for i := range out {
		if out[i].State == "" {
			out[i].State = StateUnproven
			if g.proves(out[i].Name, out[i].Addr, metas[out[i].Name]) == proven {
				out[i].State = StateProven
			}
		}
	}
	if g.cfg.Leaf {
		out = append(out, Member{Name: g.cfg.Self.String(), State: StateProven, Leaf: true})
	}
	out = g.sessions.members(out)
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// meta returns this node's proof for the address it advertises.
func (g *Gossip) meta(addr netip.AddrPort) []byte {
	_, fp := g.ownChain()
	out := append([]byte{wireVersion}, fp[:]...)
	return append(out, g.cfg.Signer.Sign(signMember, memberClaim(g.cfg.Self.String(), addr))...)
}

func memberClaim(name string, addr netip.AddrPort) []byte {
	var w writer
	w.str(name)
	w.addr(addr.Addr())
	w.u16(int(addr.Port()))
	return w.b
}

type proof int

const (
	disproved proof = iota // not a proof, or a false one
	unknown                // its certificate is not known here
	proven
)

// proves judges a member's metadata. Good proofs are remembered, but the
// certificate's validity is asked each time.
func (g *Gossip) proves(name string, addr netip.AddrPort, meta []byte) proof {
	id := memberID(name)
	if len(meta) != metaSize || meta[0] != wireVersion || !overlay.ValidLabel(id.Site) || !overlay.ValidLabel(id.Node) ||
		!addr.Addr().IsValid() || addr.Addr().IsUnspecified() || addr.Addr().IsMulticast() || addr.Port() == 0 {
		return disproved
	}
	fp := fingerprint(meta[1:33])
	c, own := g.ownChain()
	if fp != own {
		g.mu.Lock()
		c = g.chains[fp]
		g.mu.Unlock()
	}
	if c == nil {
		return unknown
	}
	authority, err := g.cfg.Verifier.Authority(c, g.cfg.Now())
	if err != nil || authority.ID != id || authority.Mesh != g.cfg.Mesh || !authority.Gateway {
		return disproved
	}
	claim := memberClaim(name, addr)
	key := sha256.Sum256(append(claim, meta...))
	m := &g.members
	m.mu.Lock()
	known := m.proofs[key]
	m.mu.Unlock()
	if known {
		return proven
	}
	if !g.cfg.Verifier.Signed(c, signMember, claim, meta[33:]) {
		return disproved
	}
	m.mu.Lock()
	if len(m.proofs) >= maxProofs {
		clear(m.proofs)
	}
	m.proofs[key] = true
	m.mu.Unlock()
	return proven
}

// admit decides whether a member may be one. It is called for every message
// that says somebody is alive.
func (g *Gossip) admit(n *memberlist.Node) error {
	// This node is always a member of its own list, which memberlist relies on,
	// even while its certificate is not valid and nobody else lets it in.
	if n.Name == g.cfg.Self.String() && bytes.Equal(n.Meta, g.meta(addrOf(n))) {
		return nil
	}
	p := g.proves(n.Name, addrOf(n), n.Meta)
	m := &g.members
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case p == proven:
		delete(m.unproven, n.Name)
		return nil
	case p == unknown && (m.unproven[n.Name] || len(m.unproven) < maxUnproven):
		m.unproven[n.Name] = true
		return nil
	}
	g.refused.add(RefusedMember, 1)
	return fmt.Errorf("member %q at %v: no proof of its name and address", n.Name, addrOf(n))
}
