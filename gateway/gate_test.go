package gateway

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

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

// A node that answers a handshake has a session from the first packet on that
// comes in it, whatever a look has found just before: what it sends from then on
// is not bounded.
func TestAPeerThatWasHeardGetsABurstAtOnce(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := newNode(t, "127.0.0.1:0"), newNode(t, "127.0.0.1:0")
	path := newSlow(t, a.addr, b.addr, 150*time.Millisecond)
	defer path.stop()
	const burst = 3 * silentPackets // fits the path's sockets, whose buffer is 208 KiB as it comes
	ka, kb, la, lb := newKey(t), newKey(t), newMemLink(1), newMemLink(burst)
	if lesser(PublicKey(kb), PublicKey(ka)) { // it would greet again just as it is answered
		ka, kb = kb, ka
	}
	a.set(Tunnel{Slice: "red", PrivateKey: ka, Inside: la, Peers: []Peer{peer(kb, netip.AddrPort{}, "10.1.2.0/24")}}).run()
	defer a.stop()
	b.set(Tunnel{Slice: "red", PrivateKey: kb, Inside: lb, Peers: []Peer{peer(ka, path.port(path.right), "10.1.1.0/24")}}).run()
	defer b.stop()
	eventually(t, "an answer to the handshake", b.hasSession)
	lb.send(t, packet("10.1.2.9", "10.1.1.1", 0, 100))
	a.each(func(x *tunnel) { x.look(time.Now()) }) // before that packet has arrived
	if a.running[tunnelID{slice: "red"}].inner.gate.Load() == nil {
		t.Error("the gate is open to who was not heard")
	}
	la.receive(t)
	for i := range burst {
		la.send(t, packet("10.1.1.1", "10.1.2.9", uint32(i), 100))
	}
	for range burst {
		lb.receive(t)
	}
	if n := a.running[tunnelID{slice: "red"}].trunk.drops.Snapshot(); len(n) != 0 {
		t.Errorf("lost %v", n)
	}
}

// A look in the moment between an answer's arrival and the device's work on it
// must not shut the gate for a second.
func TestALookRightAfterAHandshakeLeavesTheGateOpen(t *testing.T) {
	defer goleak.VerifyNone(t)
	a := newNode(t, "127.0.0.1:0")
	a.set(Tunnel{Slice: "red", PrivateKey: newKey(t), Inside: newMemLink(1), Peers: []Peer{peer(newKey(t), netip.AddrPort{}, "10.1.2.0/24")}}).run()
	defer a.stop()
	var x *tunnel
	eventually(t, "it runs", func() bool {
		a.each(func(r *tunnel) { x = r })
		return x != nil
	})
	x.look(time.Now())
	if x.inner.gate.Load() == nil {
		t.Fatal("no gate before there is a session")
	}
	x.bind.fresh()
	x.look(time.Now())
	if x.inner.gate.Load() != nil {
		t.Error("shut while the device is opening a session")
	}
	eventually(t, "it is shut when none was opened", func() bool { x.look(time.Now()); return x.inner.gate.Load() != nil })
}
