package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// echoClass has what is said to the lab's echo service, and its answers, in a
// class of its own, whatever marks the packets have.
const echoClass = `
---
apiVersion: slicewire.io/v1alpha1
kind: SliceClasses
metadata: {name: lab}
spec:
  slice: lab
  classes:
  - {name: echoes, bandwidthGuaranteedKbps: 100, match: [{to: [{services: [lab/echo]}], ports: [{protocol: UDP, port: 7000}]}]}
  - {name: other, bandwidthGuaranteedKbps: 100, match: [{to: [{services: [lab/echo]}], ports: [{protocol: UDP, port: 7001}]}]}
`

func TestAServiceHasAClassOfItsOwn(t *testing.T) {
	l := layLab(t, newCable(t), nil, labSite{name: "north", gateways: 1, nodes: 1}, labSite{name: "south", gateways: 1, nodes: 1})
	path := filepath.Join(l.dir, "manifests", "lab.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l.start()
	north, south := l.node("north/g1"), l.node("south/g1")
	l.until("the service is known", func() bool { return l.echoAddr(north).IsValid() })
	sent := func(n *labNode) map[string]uint64 {
		out := map[string]uint64{}
		if s, ok := l.status(n); ok {
			for _, c := range s.Shaping.Classes {
				out[c.Name] = c.SentPackets
			}
		}
		return out
	}
	l.overload(north, netip.AddrPortFrom(l.echoAddr(north), 7000))
	l.until("packets flow without classes", func() bool { return sent(north)["rest"] > 1000 })
	l.write("manifests/lab.yaml", strings.TrimRight(string(text), "\n")+echoClass)
	for _, n := range l.order {
		if _, errs, code := program(t, "reload", "--socket", n.socket); code != 0 {
			t.Fatalf("reload: exit %d, %s", code, errs)
		}
	}
	l.until("questions and answers are in the service's class", func() bool { return sent(north)["echoes"] > 1000 && sent(south)["echoes"] > 1000 })
	if n := sent(north)["other"] + sent(south)["other"]; n != 0 {
		t.Errorf("%d packets are in the class of another port", n)
	}
}
