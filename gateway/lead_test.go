package gateway

import (
	"testing"

	"go.uber.org/goleak"
)

// lead returns what a slice's bind has of the right to read the socket.
func (n *node) lead(slice string) lead {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.running[tunnelID{slice: slice}].bind
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lead
}

func TestASliceThatReceivesAloneReadsTheSocketItself(t *testing.T) {
	defer goleak.VerifyNone(t)
	a, b := newNode(t, "127.0.0.1:0"), newNode(t, "127.0.0.1:0")
	names := []string{"red", "blue"}
	out, in := make(map[string]*memLink), make(map[string]*memLink)
	var ta, tb []Tunnel
	for _, name := range names {
		ka, kb := newKey(t), newKey(t)
		out[name], in[name] = newMemLink(64), newMemLink(64)
		ta = append(ta, Tunnel{Slice: name, PrivateKey: ka, Inside: out[name], Peers: []Peer{peer(kb, b.addr, "10.1.2.0/24")}})
		tb = append(tb, Tunnel{Slice: name, PrivateKey: kb, Inside: in[name], Peers: []Peer{peer(ka, a.addr, "10.1.1.0/24")}})
	}
	defer b.set(tb...).run().stop()
	defer a.set(ta...).run().stop()
	eventually(t, "handshakes", func() bool { return a.hasSession() && b.hasSession() })

	seq := uint32(0)
	send := func(slice string) {
		t.Helper()
		seq++
		out[slice].send(t, packet("10.1.1.7", "10.1.2.9", seq, 200))
		if got := in[slice].receive(t); sequence(got) != seq {
			t.Fatalf("packet %d of %s: got number %d", seq, slice, sequence(got))
		}
	}
	alone := func(slice string) {
		t.Helper()
		eventually(t, slice+" reads for itself", func() bool {
			send(slice)
			return b.lead(slice) == leadReading
		})
	}
	alone("red")
	send("blue") // what another slice is sent is handed over
	send("red")
	alone("blue")
	if got := b.lead("red"); got != leadNone {
		t.Errorf("red has the lead (%d), and so has blue", got)
	}
	alone("red")
	if lost := b.mux.drops.Snapshot(); len(lost) != 0 {
		t.Errorf("lost: %v", lost)
	}
	b.set(tb[1]) // the slice that reads goes away
	send("blue")
	alone("blue")
}

func TestAHeldSliceKeepsNobodyWaiting(t *testing.T) {
	defer goleak.VerifyNone(t)
	p := newPair(t, "127.0.0.1:0", 64)
	defer p.b.stop()
	defer p.a.stop()
	g := p.b.running[tunnelID{slice: "red"}].inside
	seq := uint32(0)
	eventually(t, "the slice reads for itself", func() bool {
		seq++
		p.la.send(t, packet("10.1.1.7", "10.1.2.9", seq, 200))
		p.lb.receive(t)
		return p.b.lead("red") == leadReading
	})
	g.take(g.c.limit) // as if so many were being decrypted: they never leave
	for range 2 {
		seq++
		p.la.send(t, packet("10.1.1.7", "10.1.2.9", seq, 200))
	}
	eventually(t, "the lead comes back", func() bool { return p.b.lead("red") == leadNone })
	for range 2 { // the governor writes them off, and all goes on
		p.lb.receive(t)
	}
}
