package router

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"slicewire/overlay/overlaytest"
)

// newMappedRig is a rig whose workload b leads to a network that is mapped.
func newMappedRig(t testing.TB) *rig {
	g := newRig(t)
	s := g.state
	s.Ports = slices.Clone(s.Ports)
	s.Routes = slices.Clone(s.Routes)
	s.Self4, s.Self6 = netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("fd00:1::1")
	s.Ports[1].Maps = lanMaps
	s.Ports[1].Sources = slices.Clone(s.Ports[1].Sources)
	for _, m := range lanMaps {
		s.Ports[1].Sources = append(s.Ports[1].Sources, m.Mapped)
		s.Routes = append(s.Routes, Route{m.Mapped, "b"})
	}
	if err := g.Set(s); err != nil {
		t.Fatal(err)
	}
	g.state = s
	return g
}

func (g *rig) from(name string, pkts ...[]byte) {
	in := g.outside
	if name != OutsideName {
		in = g.ports[name]
	}
	g.forward(in, withHeadroom(pkts...), new(batch))
}

func TestAMappedNetworkIsReachedByItsMappedFormOnly(t *testing.T) {
	bothFamilies(func(name string, lan, mapped, far netip.AddrPort) {
		g := newMappedRig(t)
		sent := uint64(0)
		drops := func(reason string, packets int) {
			t.Helper()
			sent += uint64(packets)
			if n := g.Counters().Drops[reason]; n != sent {
				t.Errorf("%s: %d dropped as %s, want %d: %v", name, n, reason, sent, g.Counters().Drops)
			}
		}
		data := []byte("hello")
		g.from(OutsideName, overlaytest.UDP(far, mapped, data))
		got := g.b.take()
		if len(got) != 1 || !sameButTTL(got[0], overlaytest.UDP(far, lan, data)) {
			t.Fatalf("%s: there came %x", name, got)
		}
		near := netip.MustParseAddrPort("10.1.0.2:1")
		if lan.Addr().Is6() {
			near = netip.MustParseAddrPort("[fd00:1::2]:1")
		}
		g.from("b", overlaytest.UDP(lan, near, data))
		if got := g.a.take(); len(got) != 1 || !sameButTTL(got[0], overlaytest.UDP(mapped, near, data)) {
			t.Errorf("%s: from there came %x", name, got)
		}
		// Spoofed: what is mapped already, what another may have, from another port.
		g.from("b", overlaytest.UDP(mapped, far, data))
		drops("source", 1)
		g.from("b", overlaytest.UDP(far, mapped, data))
		drops("source", 1)
		g.from("a", overlaytest.UDP(mapped, far, data), overlaytest.UDP(lan, far, data))
		drops("source", 2)
		g.from(OutsideName, overlaytest.UDP(mapped, netip.AddrPortFrom(lan.Addr(), 5), data), overlaytest.UDP(lan, mapped, data))
		drops("source", 2)
		sent = 0
		g.from(OutsideName, overlaytest.UDP(far, lan, data)) // nobody has the real form
		g.drainSlow()
		drops("no-route", 1)
		if got := append(g.a.take(), g.b.take()...); len(got) != 0 {
			t.Errorf("%s: %x went on", name, got)
		}
	})
}

// sameButTTL compares a packet that was forwarded with one that was not.
func sameButTTL(got, sent []byte) bool {
	sent = slices.Clone(sent)
	return decrementTTL(sent, sent[0]>>4 == 6) && bytes.Equal(got, sent)
}

func TestErrorsReachAMappedNetworkInItsOwnWords(t *testing.T) {
	bothFamilies(func(name string, lan, _, far netip.AddrPort) {
		g := newMappedRig(t)
		p := overlaytest.UDP(lan, far, []byte("data"))
		if lan.Addr().Is4() {
			p[8] = 1
		} else {
			p[7] = 1
		}
		overlaytest.Fix(p)
		g.from("b", p)
		g.drainSlow()
		got := g.b.take()
		if len(got) != 1 || !overlaytest.ChecksumsOK(got[0]) || !bytes.HasSuffix(got[0], p) {
			t.Fatalf("%s: %x, want one that quotes %x", name, got, p)
		}
		if _, dst := addresses(got[0], lan.Addr().Is6()); dst != lan.Addr() {
			t.Errorf("%s: it is for %v", name, dst)
		}
	})
}

func TestInjectTakesAddressesOfTheSlice(t *testing.T) {
	bothFamilies(func(name string, _, mapped, _ netip.AddrPort) {
		g := newMappedRig(t)
		to := netip.MustParseAddrPort("10.1.0.2:1")
		if mapped.Addr().Is6() {
			to = netip.MustParseAddrPort("[fd00:1::2]:1")
		}
		p := overlaytest.UDP(mapped, to, []byte("data"))
		if port, ok := g.PortOf(mapped.Addr()); !ok || port != "b" {
			t.Errorf("%s: it is at %q", name, port)
		}
		if tr, ok := g.Trace("b", p); !ok || tr.Out != "a" {
			t.Errorf("%s: traced %+v", name, tr)
		}
		g.Inject("b", p)
		if got := g.a.take(); len(got) != 1 || !sameButTTL(got[0], p) {
			t.Errorf("%s: %x arrived, %v", name, got, g.Counters().Drops)
		}
	})
}

func TestMapsAreChecked(t *testing.T) {
	p := netip.MustParsePrefix
	for _, c := range []struct {
		name string
		port int
		maps []Map
		says string
	}{
		{"lengths differ", 0, []Map{{p("10.7.0.0/16"), p("10.8.0.0/17")}}, "not of one length"},
		{"families differ", 0, []Map{{p("10.7.0.0/16"), p("fd00::/16")}}, "not of one length"},
		{"mapped into itself", 0, []Map{{p("10.7.0.0/16"), p("10.7.0.0/16")}}, "overlaps"},
		{"two overlap", 0, []Map{{p("10.7.0.0/16"), p("10.8.0.0/16")}, {p("10.9.0.0/24"), p("10.7.3.0/24")}}, "overlaps"},
		{"no prefix", 0, []Map{{}}, "not a prefix"},
		{"the node's own stack", 2, []Map{{p("10.7.0.0/16"), p("10.8.0.0/16")}}, "only a workload's"},
	} {
		g := newRig(t)
		s := g.state
		s.Ports = slices.Clone(s.Ports)
		s.Ports[c.port].Maps = c.maps
		if err := g.Set(s); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
