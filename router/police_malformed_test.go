package router

import (
	"math/rand/v2"
	"testing"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// Whatever comes, every packet is either delivered or counted as dropped, and
// the flow table stays within its bound.
func TestPoliceAccountsForMalformedPackets(t *testing.T) {
	const seed, sent = 31, 40_000
	rng := rand.New(rand.NewPCG(seed, 1))
	g := newRig(t)
	g.maxFlows = 300
	g.police(t, overlay.Rule{Name: "all of a", Subject: just("10.1.0.2/32"), Peer: everyone()},
		overlay.Rule{Name: "names", Ingress: true, Subject: just("10.1.0.3/32", "fd00:1::3/128"), Peer: everyone(), Ports: []overlay.PortRange{{Proto: overlay.ProtoUDP, First: 53, Last: 53}}})
	traffic := newPoliceTraffic(rng)
	every := append(traffic.addrs[0], traffic.addrs[1]...)
	gen := overlaytest.NewGenerator(seed, every, every)
	names := []string{"a", "b", "node", OutsideName}
	delivered := uint64(0)
	for i := range sent {
		p := gen.Malformed()
		if i%2 == 0 {
			p = gen.Valid()
		}
		from := names[rng.IntN(4)]
		if len(p) >= 40 {
			from = g.comesFrom(p, rng, names)
		}
		g.put(from, p)
		for _, got := range g.got() {
			delivered += uint64(len(got))
		}
	}
	dropped := uint64(0)
	for _, n := range g.drops.Snapshot() {
		dropped += n
	}
	if delivered+dropped != sent || delivered < sent/100 || g.drops.Get(overlay.DropPolicy) < sent/50 {
		t.Errorf("%d sent, %d delivered, %d dropped: %v", sent, delivered, dropped, g.drops.Snapshot())
	}
	if f := g.table.Load().flows; f.used > 300 || f.evicted == 0 {
		t.Errorf("%d entries, %d evicted", f.used, f.evicted)
	}
}
