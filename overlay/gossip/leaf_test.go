package gossip

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"slicewire/overlay"
)

// renewable is a Signer whose certificate changes.
type renewable struct{ now atomic.Pointer[identity] }

func (r *renewable) Chain() [][]byte { return r.now.Load().Chain() }
func (r *renewable) Sign(domain string, message []byte) []byte {
	return r.now.Load().Sign(domain, message)
}

// A leaf whose certificate was renewed shows it to its gateways, and is never
// without one meanwhile.
func TestALeafMakesItsSessionsAnewWithANewCertificate(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	var gateways []*Gossip
	for n := range 2 {
		g := newTest(t, testConfig(t, ca, n))
		beginTest(t, g, n, gateways...)
		gateways = append(gateways, g)
	}
	cfg := leafConfig(t, ca, 2)
	r := &renewable{}
	r.now.Store(cfg.Signer.(*identity))
	cfg.Signer = r
	leaf := newTest(t, cfg)
	beginTest(t, leaf, 2, gateways...)
	eventually(t, "two sessions", func() bool { return len(leaf.sessions.all()) == 2 })
	a := allowed(2)
	a.Gateway, a.NotAfter = false, a.NotAfter.Add(time.Hour)
	r.now.Store(ca.issue(t, a))
	want := chain(r.Chain()).leaf()
	name := a.ID.String()
	shown := func(g *Gossip) bool {
		return slices.ContainsFunc(g.sessions.all(), func(s *session) bool { return s.peer == a.ID && s.chain.leaf() == want })
	}
	eventually(t, "both gateways are shown the new certificate", func() bool {
		if !alive(gateways[0], name) && !alive(gateways[1], name) {
			t.Fatal("it has no session")
		}
		return shown(gateways[0]) && shown(gateways[1])
	})
	for _, g := range gateways {
		if n := g.Refused()[RefusedClone]; n != 0 {
			t.Errorf("%d alarms", n)
		}
	}
}

// A gateway that ends says so, and its leaves go elsewhere at once.
func TestLeavesOfAGatewayThatEndsGoElsewhere(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	var gateways []*Gossip
	var stops []func()
	for n := range 3 {
		g := newTest(t, testConfig(t, ca, n))
		set(t, g, facts(n))
		var at []string
		for _, s := range gateways {
			at = append(at, s.Addr().String())
		}
		g.SetSeeds(at)
		stops = append(stops, start(t, g))
		gateways = append(gateways, g)
	}
	leaf := newTest(t, leafConfig(t, ca, 3))
	beginTest(t, leaf, 3, gateways...)
	eventually(t, "two sessions", func() bool { return len(leaf.sessions.all()) == 2 && len(leaf.Records()) == 16 })
	ends := leaf.sessions.all()[0].peer
	for n := range gateways {
		if allowed(n).ID == ends {
			stops[n]()
		}
	}
	eventually(t, "two sessions with the others", func() bool {
		all := leaf.sessions.all()
		return len(all) == 2 && !slices.ContainsFunc(all, func(s *session) bool { return s.peer == ends })
	})
	if len(of(leaf.Records(), ends)) != 4 {
		t.Error("what the gateway said is forgotten")
	}
}

// What a gateway tells of others counts only with their own proof.
func TestALeafIsToldOfGatewaysByTheirOwnProof(t *testing.T) {
	ca := newAuthority("ca")
	honest, leaf := newTest(t, testConfig(t, ca, 1)), newTest(t, leafConfig(t, ca, 3))
	plain := testConfig(t, ca, 2)
	a := allowed(2)
	a.Gateway = false
	plain.Signer = ca.issue(t, a)
	noGateway := newTest(t, plain)
	for n, g := range map[int]*Gossip{1: honest, 2: noGateway} {
		set(t, g, facts(n))
		if _, err := leaf.Restore(g.Snapshot()); err != nil {
			t.Fatal(err)
		}
	}
	at, elsewhere := netip.MustParseAddrPort("192.0.2.1:7946"), netip.MustParseAddrPort("192.0.2.66:7946")
	good := gatewayEntry{allowed(1).ID.String(), at, honest.meta(at)}
	moved := good
	moved.addr = elsewhere
	renamed := good
	renamed.name = allowed(0).ID.String()
	s := &session{g: leaf, dialed: true, peer: overlay.NodeID{Site: "x", Node: "y"}, told: []gatewayEntry{
		moved, renamed, {allowed(2).ID.String(), at, noGateway.meta(at)}, {allowed(3).ID.String(), at, leaf.meta(at)},
	}}
	leaf.sessions.live["x/y"] = s
	if known := leaf.gatewaysKnown(); len(known) != 0 {
		t.Errorf("believes %+v", known)
	}
	s.told = append(s.told, good)
	if known := leaf.gatewaysKnown(); len(known) != 1 || known[0].addr != at {
		t.Errorf("knows %+v", known)
	}
	// It knows it in its next life, too.
	next := newTest(t, leafConfig(t, ca, 3))
	if _, err := next.Restore(leaf.Snapshot()); err != nil {
		t.Fatal(err)
	}
	if known := next.gatewaysKnown(); len(known) != 1 || known[0].addr != at {
		t.Errorf("knows %+v in its next life", known)
	}
}
