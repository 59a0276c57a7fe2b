package gateway

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun/tuntest"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

func TestOverloadIsBoundedAndEnds(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := newNode(t, "127.0.0.1:0", 64, 64), newNode(t, "127.0.0.1:0", 64, 64)
	ka, kb := newKey(t), newKey(t)
	la, lb := newMemLink(4096), newMemLink(1)
	lb.sink = true
	// c is a peer that never answers; d's packets have no owner.
	dead := peer(newKey(t), withPort(a.addr.Addr(), 9), "10.1.3.0/24")
	a.set(Tunnel{Slice: "red", PrivateKey: ka, Inside: la, Peers: []Peer{peer(kb, b.addr, "10.1.2.0/24"), dead}}).run()
	b.set(Tunnel{Slice: "red", PrivateKey: kb, Inside: lb, Peers: []Peer{peer(ka, a.addr, "10.1.1.0/24")}}).run()
	defer b.stop()
	defer a.stop()
	eventually(t, "handshake", b.hasSession)
	good := packet("10.1.1.1", "10.1.2.9", 0, 1400)
	const n = 30000
	for i := range n {
		la.send(t, good)
		switch i % 10 {
		case 0:
			la.send(t, packet("10.1.1.1", "10.1.3.1", 0, 1400)) // no session
		case 1:
			la.send(t, packet("10.1.1.1", "10.9.9.9", 0, 1400)) // no peer
		}
	}
	eventually(t, "the queue drains", func() bool { return len(la.out) == 0 })
	s := a.Status()[0]
	if limit := 64 + overlay.BatchSize; s.OutsidePeak > limit {
		t.Errorf("%d packets in flight, allowed are %d", s.OutsidePeak, limit)
	}
	if s.OutsidePeak < 32 {
		t.Errorf("only %d packets were ever in flight: no overload", s.OutsidePeak)
	}
	before := lb.wrote.Load()
	la.send(t, good)
	eventually(t, "traffic goes on", func() bool { return lb.wrote.Load() > before })
	t.Logf("of %d arrived %d, most in flight %d and %d, drops %v and %v %v", n, lb.wrote.Load(), s.OutsidePeak,
		b.Status()[0].InsidePeak, s.Drops, b.Status()[0].Drops, b.Drops())
}

func TestLostCreditsComeBack(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	defer p.a.stop()
	tun := p.a.running[tunnelID{slice: "red"}]
	for range 20 { // as if the device had swallowed them
		tun.outside.take(defaultLimit())
		p.b.running[tunnelID{slice: "red"}].inside.take(defaultLimit())
		p.la.send(t, packet("10.1.1.1", "10.1.2.9", 1, 100))
		p.lb.receive(t)
	}
}

func TestGarbageDoesNoHarm(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) }) // after the other clean-ups
	p := newPair(t, "127.0.0.1:0", 256)
	defer p.b.stop()
	defer p.a.stop()

	// Real messages to replay, seen by a node in between.
	spy := newNAT(t, p.b.addr)
	c := newNode(t, "127.0.0.1:0")
	kc, lc := newKey(t), newMemLink(16)
	captured := capture(t, spy, func() {
		p.confB.Peers = append(p.confB.Peers[:1:1], peer(kc, netip.AddrPort{}, "10.1.3.0/24"))
		p.b.set(p.confB)
		c.set(Tunnel{Slice: "red", PrivateKey: kc, Inside: lc,
			Peers: []Peer{peer(p.kb, spy.inner.LocalAddr().(*net.UDPAddr).AddrPort(), "10.1.2.0/24")}}).run()
		for i := range uint32(10) {
			lc.send(t, packet("10.1.3.1", "10.1.2.9", i, 200))
			p.lb.receive(t)
		}
	})
	defer c.stop()
	if len(captured) < 11 {
		t.Fatalf("%d messages captured", len(captured))
	}

	attacker := listen(t, "127.0.0.1:0")
	defer attacker.Close()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	sizes := []int{0, 1, 3, 4, 31, 32, 33, 48, 64, 92, 116, 148, 149, 1400, 9000, 65507}
	for i := range 20000 {
		var q []byte
		switch i % 4 {
		case 0, 1: // random, mostly with a type
			q = make([]byte, sizes[rnd.IntN(len(sizes))])
			for j := range min(len(q), 200) {
				q[j] = byte(rnd.Uint32())
			}
			if len(q) >= 4 && i%4 == 1 {
				copy(q, []byte{byte(rnd.IntN(6)), 0, 0, 0})
			}
		case 2: // replayed
			q = captured[rnd.IntN(len(captured))]
		case 3: // cut or damaged
			q = bytes.Clone(captured[rnd.IntN(len(captured))])
			if rnd.IntN(2) == 0 {
				q = q[:rnd.IntN(len(q)+1)]
			} else {
				q[rnd.IntN(len(q))] ^= 1 << rnd.IntN(8)
			}
		}
		if _, err := attacker.WriteToUDPAddrPort(q, p.b.addr); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint32(100) { // the real ones go on
		crossUntil(t, p.la, p.lb, packet("10.1.1.1", "10.1.2.9", 1000+i, 100))
		crossUntil(t, p.lb, p.la, packet("10.1.2.9", "10.1.1.1", 1000+i, 100))
	}
	drops := p.b.Drops()
	// Whether initiations came fast enough to be limited is the machine's affair;
	// the limit itself is tested with a clock of its own.
	for _, reason := range []overlay.Drop{overlay.DropMalformed, overlay.DropUnknownSlice} {
		if drops[reason.String()] == 0 {
			t.Errorf("nothing counted as %v", reason)
		}
	}
	t.Logf("drops %v, slice %v", drops, p.b.Status()[0].Drops)
}

// crossUntil sends a packet until it arrives: the kernel's buffer may still be
// full of what an attacker sent.
func crossUntil(t *testing.T, from, to *memLink, p []byte) {
	t.Helper()
	eventually(t, "a packet crosses", func() bool {
		from.send(t, p)
		select {
		case got := <-to.in:
			if sequence(got) < 1000 {
				t.Fatalf("a forged or replayed packet came through: %d", sequence(got))
			}
			return bytes.Equal(got, p)
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
}

// capture returns the datagrams that the node behind a NAT sends during f.
func capture(t *testing.T, n *nat, f func()) [][]byte {
	t.Helper()
	var mu sync.Mutex
	var all [][]byte
	tap := listen(t, "127.0.0.1:0")
	world := *n.world.Load()
	var wg sync.WaitGroup
	var back atomic.Pointer[netip.AddrPort]
	at := tap.LocalAddr().(*net.UDPAddr).AddrPort()
	n.world.Store(&at)
	wg.Go(func() {
		buf := make([]byte, 2048)
		for {
			k, from, err := tap.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if from == world {
				_, _ = tap.WriteToUDPAddrPort(buf[:k], *back.Load())
				continue
			}
			back.Store(&from)
			mu.Lock()
			all = append(all, bytes.Clone(buf[:k]))
			mu.Unlock()
			_, _ = tap.WriteToUDPAddrPort(buf[:k], world)
		}
	})
	t.Cleanup(func() { tap.Close(); wg.Wait(); n.stop() })
	f()
	mu.Lock()
	defer mu.Unlock()
	return all
}

func TestAStockPeerMayJoin(t *testing.T) {
	defer goleak.VerifyNone(t)
	ours, link := newKey(t), newMemLink(64)
	theirs := newKey(t)
	n := newNode(t, "127.0.0.1:0")
	n.set(Tunnel{Slice: "red", PrivateKey: ours, Inside: link,
		Peers: []Peer{peer(theirs, netip.AddrPort{}, "10.1.2.0/24")}}).run()
	defer n.stop()

	tun := tuntest.NewChannelTUN()
	dev := device.NewDevice(tun.TUN(), conn.NewDefaultBind(), &device.Logger{
		Verbosef: device.DiscardLogf, Errorf: device.DiscardLogf})
	defer dev.Close()
	text, _ := changes(nil, []Peer{peer(ours, n.addr, "10.1.1.0/24")}, func(netip.AddrPort) bool { return true })
	if err := dev.IpcSet("private_key=" + hexKey(theirs) + "\n" + text); err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(500) {
		there := packet("10.1.2.9", "10.1.1.1", i, 60+int(i)*2)
		tun.Outbound <- there
		if got := link.receive(t); !bytes.Equal(got, there) {
			t.Fatalf("packet %d from the stock peer differs", i)
		}
		back := packet("10.1.1.1", "10.1.2.9", i, 60+int(i)*2)
		link.send(t, back)
		select {
		case got := <-tun.Inbound:
			if !bytes.Equal(got, back) {
				t.Fatalf("packet %d to the stock peer differs", i)
			}
		case <-time.After(patience):
			t.Fatal("the stock peer gets nothing")
		}
	}
}

func TestASlowSliceDoesNotHoldUpAnother(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := newNode(t, "127.0.0.1:0"), newNode(t, "127.0.0.1:0")
	var la, lb [2]*memLink
	var ta, tb []Tunnel
	for i, name := range []string{"stuck", "live"} {
		ka, kb := newKey(t), newKey(t)
		la[i], lb[i] = newMemLink(64), newMemLink(64)
		ta = append(ta, Tunnel{Slice: name, PrivateKey: ka, Inside: la[i], Peers: []Peer{peer(kb, b.addr, "10.1.2.0/24")}})
		tb = append(tb, Tunnel{Slice: name, PrivateKey: kb, Inside: lb[i], Peers: []Peer{peer(ka, a.addr, "10.1.1.0/24")}})
	}
	a.set(ta...).run()
	b.set(tb...).run()
	defer b.stop()
	defer a.stop()
	eventually(t, "handshakes", func() bool { return a.hasSession() && b.hasSession() })
	// The stuck slice's device takes nothing from its queue: as if it had no
	// processor.
	stuck := b.running[tunnelID{slice: "stuck"}]
	stuck.inside.mu.Lock()
	defer stuck.inside.mu.Unlock()
	for range queuePackets + 1000 {
		la[0].send(t, packet("10.1.1.1", "10.1.2.9", 1, 1400))
		for len(la[1].out) == 0 {
			la[1].send(t, packet("10.1.1.1", "10.1.2.9", 1, 100))
		}
	}
	got := lb[1].wrote.Load()
	la[1].send(t, packet("10.1.1.1", "10.1.2.9", 1, 100))
	eventually(t, "the live slice goes on", func() bool { return lb[1].wrote.Load() > got })
	eventually(t, "the stuck slice drops", func() bool { return stuck.trunk.drops.Get(overlay.DropQueueFull) > 0 })
	w, taps := overlaytest.Watch()
	stuck.trunk.drops.Watch(taps, "stuck", "tunnel")
	eventually(t, "a capture sees a datagram that is dropped", func() bool {
		la[0].send(t, packet("10.1.1.1", "10.1.2.9", 1, 1400))
		sights, pkts := w.Seen()
		return len(sights) > 0 && sights[0].Drop == overlay.DropQueueFull && sights[0].Peer == a.addr && messageType(pkts[0]) == typeData
	})
	stuck.bind.mu.Lock()
	bytes := stuck.bind.queue.bytes
	stuck.bind.mu.Unlock()
	if bytes > queueBytes {
		t.Errorf("the stuck slice holds %d bytes", bytes)
	}
}
