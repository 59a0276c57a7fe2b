package main

import (
	"net/netip"
	"os"
	"testing"
)

// The lab's slice has dscpClass AF11: its packets are marked with it, and so are the
// datagrams between the nodes where outerTOS says so, and only there.
func TestAClassIsSeenOnOuterDatagrams(t *testing.T) {
	const af11 = 10 << 2
	for _, tt := range []struct {
		name, line string
		shown      bool
	}{
		{"with outerTOS all", "outerTOS: all\n", true},
		{"but not without", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wire := newCable(t)
			l := layLab(t, wire, nil, labSite{name: "a", gateways: 1, nodes: 1}, labSite{name: "b", gateways: 1, nodes: 1})
			here, there := l.node("a/g1"), l.node("b/g1")
			for _, n := range []*labNode{here, there} {
				text, err := os.ReadFile(n.config)
				if err == nil {
					err = os.WriteFile(n.config, append(text, tt.line...), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			l.start()
			l.until("the service is known", func() bool { return l.echoAddr(here).IsValid() })
			s := l.stream(here, netip.AddrPortFrom(l.echoAddr(here), 7000))
			l.until("packets come back", func() bool { return s.came.count() >= 50 })
			s.stop()
			for _, way := range [][2]*labNode{{here, there}, {there, here}} {
				seen := wire.classes(way[0], way[1])
				marked, all := seen[af11], 0
				for _, n := range seen {
					all += n
				}
				if all < 50 || tt.shown != (marked >= 50) || !tt.shown && marked > 0 {
					t.Errorf("from %v to %v datagrams had these traffic classes: %v", way[0].id, way[1].id, seen)
				}
			}
		})
	}
}
