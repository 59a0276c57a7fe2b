package gateway

import (
	"net/netip"
	"strings"
	"testing"

	"slicewire/overlay"
)

func TestGateAgainstItsRule(t *testing.T) {
	live, down := newKey(t), newKey(t)
	peers := []Peer{peer(live, netip.AddrPort{}, "10.1.2.0/24", "fd00:2::/64"), peer(down, netip.AddrPort{}, "10.1.0.0/16", "fd00:3::/64")}
	isDown := func(p *Peer) bool { return p.PublicKey == PublicKey(down) }
	if newGate(peers[:1], isDown) != nil {
		t.Error("a gate with nobody to bound")
	}
	g := newGate(peers, isDown)
	var drops overlay.Drops
	pass := func(dst string, n int) (passed int) {
		src := "10.1.1.1"
		if strings.Contains(dst, ":") {
			src = "fd00:1::1"
		}
		for range n {
			p := packet(src, dst, 0, 100)
			sizes := []int{len(p)}
			g.admit([][]byte{append(make([]byte, overlay.Headroom), p...)}, sizes, &drops)
			if sizes[0] == len(p) {
				passed++
			}
		}
		return passed
	}
	if n := pass("10.1.2.1", 500); n != 500 {
		t.Errorf("%d of 500 pass to a live peer", n)
	}
	if n := pass("10.1.3.1", 500) + pass("fd00:3::1", 500); n != 2*silentPackets && n != silentPackets {
		t.Errorf("%d pass to a silent peer", n)
	}
	if n := pass("192.0.2.1", 10) + pass("fd00:9::1", 10); n != 0 {
		t.Errorf("%d pass to nobody", n)
	}
	if drops.Get(overlay.DropNoPeer) != 20 || drops.Get(overlay.DropQueueFull) == 0 {
		t.Errorf("counted %v", drops.Snapshot())
	}
	sizes := []int{0}
	g.admit([][]byte{make([]byte, overlay.Headroom)}, sizes, &drops) // no packet at all
	if n := testing.AllocsPerRun(100, func() { pass2(g, &drops) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var gatePacket = func() []byte {
	return append(make([]byte, overlay.Headroom), packet("10.1.1.1", "10.1.2.1", 0, 100)...)
}()

func pass2(g *gate, drops *overlay.Drops) {
	var bufs [1][]byte
	var sizes [1]int
	bufs[0], sizes[0] = gatePacket, 100
	g.admit(bufs[:], sizes[:], drops)
}
