package gateway

import (
	"testing"
	"time"

	"slicewire/overlay"
)

// A node of an older version takes no probe with a demand: only those are told it
// that share a ceiling.
func TestOnlyNodesBesideAreToldTheDemand(t *testing.T) {
	p := newProber(testLog(), func() time.Duration { return 0 }, func() {})
	l := p.lane(func() {})
	keys := [][32]byte{{1}, {2}}
	l.setPeers(&Tunnel{Tag: 9, PrivateKey: newKey(t), Peers: []Peer{
		{PublicKey: keys[0], Tag: 1, Probe: true, Beside: true}, {PublicKey: keys[1], Tag: 2, Probe: true},
	}})
	p.setDemand(51)
	b := make([]byte, probeBytesMax)
	for i, want := range []overlay.Demand{51, 0} {
		l.queue(probeAddr(keys[i]), probeAsk, 1)
		m, ok := parseProbe(b[:l.pending[i].put(b)])
		if !ok || m.demand != want {
			t.Errorf("peer %d is told %d, want %d", i, m.demand, want)
		}
	}
}
