package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"go.uber.org/goleak"

	"slicewire/overlay"
)

func TestPacketsCrossInOrderBitExact(t *testing.T) {
	defer goleak.VerifyNone(t)
	for _, tt := range []struct{ name, addr, src, dst string }{
		{"IPv4 over IPv4", "127.0.0.1:0", "10.1.1.7", "10.1.2.9"},
		{"IPv6 over IPv4", "127.0.0.1:0", "fd00:0:0:1::7", "fd00:0:0:2::9"},
		{"IPv4 over IPv6", "[::1]:0", "10.1.1.7", "10.1.2.9"},
		{"IPv6 over IPv6", "[::1]:0", "fd00:0:0:1::7", "fd00:0:0:2::9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, tt.addr, 512)
			defer p.b.stop()
			defer p.a.stop()
			const n = 3000
			size := func(seq uint32) int {
				if seq%100 == 0 { // trains are broken by packets of other sizes
					return 64 + int(seq)%1300
				}
				return 1400
			}
			cross := func(from, to *memLink, src, dst string) {
				window := make(chan struct{}, 200) // less than any queue on the way
				go func() {
					for seq := range uint32(n) {
						window <- struct{}{}
						from.out <- packet(src, dst, seq, size(seq))
					}
				}()
				for seq := range uint32(n) {
					got := to.receive(t)
					if want := packet(src, dst, seq, size(seq)); !bytes.Equal(got, want) {
						t.Fatalf("packet %d: got %d bytes with number %d, want %d bytes", seq, len(got), sequence(got), len(want))
					}
					<-window
				}
			}
			cross(p.la, p.lb, tt.src, tt.dst)
			cross(p.lb, p.la, tt.dst, tt.src)
		})
	}
}

func TestADualStackSocketSpeaksBothFamilies(t *testing.T) {
	defer goleak.VerifyNone(t)
	both := newNode(t, "[::]:0").run()
	defer both.stop()
	ours, link := newKey(t), newMemLink(16)
	self := Tunnel{Slice: "red", PrivateKey: ours, Inside: link}
	for i, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		k, l := newKey(t), newMemLink(16)
		n := newNode(t, addr)
		at := both.addr.Port()
		p := peer(ours, withPort(n.addr.Addr(), at), "10.0.0.0/24")
		n.set(Tunnel{Slice: "red", PrivateKey: k, Inside: l, Peers: []Peer{p}}).run()
		defer n.stop()
		self.Peers = append(self.Peers, peer(k, n.addr, fmt.Sprintf("10.0.%d.0/24", i+1)))
		both.set(self)
		dst := fmt.Sprintf("10.0.%d.1", i+1)
		link.send(t, packet("10.0.0.1", dst, 1, 100))
		if got := l.receive(t); sequence(got) != 1 {
			t.Fatalf("over %s: wrong packet", addr)
		}
		l.send(t, packet(dst, "10.0.0.1", 2, 100))
		if got := link.receive(t); sequence(got) != 2 {
			t.Fatalf("back over %s: wrong packet", addr)
		}
		for _, p := range both.Status()[0].Peers {
			if p.Endpoint.Addr().Is4In6() {
				t.Errorf("endpoint %v is IPv4-mapped", p.Endpoint)
			}
		}
	}
}

func TestSlicesWithTheSameSubnetNeverMix(t *testing.T) {
	defer goleak.VerifyNone(t)
	const n = 10000
	names := []string{"red", "blue"}
	var la, lb [2]*memLink
	var ta, tb []Tunnel
	a, b := newNode(t, "127.0.0.1:0"), newNode(t, "127.0.0.1:0")
	for i, name := range names {
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
	done := make(chan error, len(names))
	for i := range names {
		go func() {
			window := make(chan struct{}, 48)
			go func() {
				for seq := range uint32(n) {
					window <- struct{}{}
					p := packet("10.1.1.7", "10.1.2.9", seq, 200)
					p[24] = byte(i) // which slice it was sent on
					la[i].out <- p
				}
			}()
			for seq := range uint32(n) {
				p := lb[i].receive(t)
				if p[24] != byte(i) || sequence(p) != seq {
					done <- fmt.Errorf("slice %s got packet %d of slice %s, wants %d", names[i], sequence(p), names[p[24]], seq)
					return
				}
				<-window
			}
			done <- nil
		}()
	}
	for range names {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for i := range names {
		if k := len(lb[i].in); k != 0 {
			t.Errorf("slice %s: %d packets too many", names[i], k)
		}
	}
}

func TestAForeignSourceIsRefused(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	defer p.a.stop()
	p.la.send(t, packet("10.1.9.9", "10.1.2.9", 1, 100))           // not a's
	p.la.send(t, packet("10.1.2.9", "10.1.2.9", 2, 100))           // b's own
	p.la.send(t, packet("fd00:0:0:9::1", "fd00:0:0:2::9", 3, 100)) // not a's
	p.la.send(t, packet("10.1.1.1", "10.1.2.9", 4, 100))
	if got := p.lb.receive(t); sequence(got) != 4 {
		t.Fatalf("packet %d came through", sequence(got))
	}
}

func TestSetIsIdempotentAndRemoves(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	before := p.a.Status()[0].Peers[0].LastHandshake
	old := p.a.running[tunnelID{slice: "red"}]
	for range 5 {
		p.a.set(p.confA)
	}
	p.la.send(t, packet("10.1.1.1", "10.1.2.9", 1, 100))
	p.lb.receive(t)
	if p.a.running[tunnelID{slice: "red"}] != old || !p.a.Status()[0].Peers[0].LastHandshake.Equal(before) {
		t.Error("setting the same again made something new")
	}

	// Everything changes but the peer's session: MTU, keepalive, prefixes.
	conf := p.confA
	conf.MTU = 1300
	conf.Peers = []Peer{peer(p.kb, p.b.addr, "10.1.2.0/25", "10.77.0.0/16")}
	conf.Peers[0].Keepalive = 25e9
	p.a.set(conf)
	s := p.a.Status()[0].Peers[0]
	if fmt.Sprint(s.Prefixes) != "[10.1.2.0/25 10.77.0.0/16]" || !s.LastHandshake.Equal(before) {
		t.Errorf("after the change: %v %v", s.Prefixes, s.LastHandshake)
	}

	// Peer gone: its packets are refused. Slice gone: its Link is closed.
	conf.Peers = nil
	p.a.set(conf)
	p.lb.send(t, packet("10.1.2.9", "10.1.1.1", 2, 100))
	if p.a.set(); !p.la.isClosed() {
		t.Error("the link of a removed slice is open")
	}
	if len(p.la.in) != 0 {
		t.Error("a removed peer's packet came through")
	}
	if n := p.a.mux.index.len(); n != 0 {
		t.Errorf("%d indices of a removed slice are left", n)
	}
	// The slice comes back with another Link and key.
	conf.PrivateKey, conf.Inside = newKey(t), newMemLink(1)
	p.a.set(conf)
	p.a.stop()
	if !conf.Inside.(*memLink).isClosed() {
		t.Error("a link is open after Run")
	}
	if err := p.a.Set(nil); !errors.Is(err, ErrEnded) {
		t.Errorf("set after the end: %v", err)
	}
}

func TestAKeyIsChangedInPlace(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	defer p.a.stop()
	p.confA.PrivateKey = newKey(t)
	p.confB.Peers = []Peer{peer(p.confA.PrivateKey, p.a.addr, "10.1.1.0/24")}
	p.a.set(p.confA)
	p.b.set(p.confB)
	p.lb.send(t, packet("10.1.2.9", "10.1.1.1", 1, 100))
	if sequence(p.la.receive(t)) != 1 {
		t.Error("wrong packet")
	}
}

func TestRunEndsWhenItsSocketBreaks(t *testing.T) {
	defer goleak.VerifyNone(t)
	n := newNode(t, "127.0.0.1:0")
	link := newMemLink(1)
	n.set(Tunnel{Slice: "red", PrivateKey: newKey(t), Inside: link})
	ended := make(chan error, 1)
	go func() { ended <- n.Run(t.Context()) }()
	eventually(t, "running", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.running) == 1 })
	if err := n.cfg.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("the socket went away and Run reports nothing")
	}
	if !link.isClosed() {
		t.Error("the link is open")
	}
}

func TestSetRefusesWhatCannotBe(t *testing.T) {
	n := newNode(t, "127.0.0.1:0")
	defer n.cfg.Conn.Close()
	k, k2, l := newKey(t), newKey(t), newMemLink(1)
	good := peer(k2, n.addr, "10.0.0.0/24")
	two := good
	two.PublicKey = PublicKey(newKey(t))
	noKey, self, unmasked, badEnd := good, good, good, good
	noKey.PublicKey = [32]byte{}
	self.PublicKey = PublicKey(k)
	unmasked.Prefixes = prefixes("10.0.0.1/24")
	badEnd.Endpoints = append(badEnd.Endpoints[:0:0], withPort(n.addr.Addr(), 0))
	for _, tt := range []struct {
		name string
		set  []Tunnel
	}{
		{"no name", []Tunnel{{PrivateKey: k, Inside: l}}},
		{"no key", []Tunnel{{Slice: "a", Inside: l}}},
		{"no link", []Tunnel{{Slice: "a", PrivateKey: k}}},
		{"a huge mtu", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, MTU: 65535}}},
		{"one slice twice", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l}, {Slice: "a", PrivateKey: k2, Inside: l}}},
		{"one key twice", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l}, {Slice: "b", PrivateKey: k, Inside: l}}},
		{"a peer without key", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{noKey}}}},
		{"itself for a peer", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{self}}}},
		{"a peer twice", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{good, good}}}},
		{"a prefix twice", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{good, two}}}},
		{"an unmasked prefix", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{unmasked}}}},
		{"port 0", []Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{badEnd}}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n.Set(tt.set) == nil {
				t.Error("accepted")
			}
		})
	}
	if n.Set([]Tunnel{{Slice: "a", PrivateKey: k, Inside: l, Peers: []Peer{good}}}) != nil {
		t.Error("the good one is refused")
	}
	if n.Set(nil) != nil || !l.isClosed() {
		t.Error("a link that was never run is not closed")
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a gateway without socket")
	}
}

func TestAPacketTooLongForADatagramIsCounted(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	defer p.a.stop()
	p.la.send(t, packet("10.1.1.1", "10.1.2.9", 1, innerMax+1))
	p.la.send(t, packet("10.1.1.1", "10.1.2.9", 2, innerMax))
	if got := p.lb.receive(t); sequence(got) != 2 || len(got) != innerMax {
		t.Errorf("got packet %d of %d bytes", sequence(got), len(got))
	}
	if n := p.a.running[tunnelID{slice: "red"}].trunk.drops.Get(overlay.DropTooBig); n != 1 {
		t.Errorf("%d counted", n)
	}
}
