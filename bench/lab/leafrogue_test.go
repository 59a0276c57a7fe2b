package lab

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
)

// A rogue has a good certificate and speaks as it likes. It is written from the
// description of the wire format, not with the code under test.
type rogue struct {
	w    *world
	host *Host
	id   *pki.Identity
}

func (w *world) rogue(i, k int) *rogue {
	w.Helper()
	host, err := w.net.Attach(leafAddr(i, k))
	if err != nil {
		w.Fatal(err)
	}
	id, err := w.mesh.Certify(pki.Subject{ID: leafID(i, k), Grants: []overlay.Grant{{Slice: slice, Prefixes: leafPrefixes(i, k)}}})
	if err != nil {
		w.Fatal(err)
	}
	return &rogue{w, host, id}
}

// dial opens a stream with TLS to a gateway and says hello for a mesh.
func (x *rogue) dial(to *Node, mesh string) (net.Conn, error) {
	raw, err := x.host.Dial(x.w.Context(), to.Addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, NextProtos: []string{"slicewire-gossip/1"}})
	if err := conn.HandshakeContext(x.w.Context()); err != nil {
		return nil, err
	}
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial("EXPERIMENTAL slicewire session v1", nil, 32)
	if err != nil {
		return nil, err
	}
	instance := make([]byte, 16)
	claim := append([]byte{1, byte(len(mesh))}, mesh...)
	claim = append(append(claim, instance...), binding...)
	hello := []byte{1, 16, byte(len(x.id.Chain()))}
	for _, der := range x.id.Chain() {
		hello = append(binary.BigEndian.AppendUint16(hello, uint16(len(der))), der...)
	}
	hello = append(append(hello, instance...), x.id.Sign("slicewire session v1", claim)...)
	if _, err := conn.Write(frame(hello)); err != nil {
		return nil, err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil, err
	}
	_, err = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head)))
	return conn, err
}

func frame(b []byte) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...) }

// rogueStory runs f with two gateways, a leaf that does what is right, and a
// rogue; before and after it, news has to come through.
func rogueStory(t *testing.T, f func(w *world, gateways []*Node, x *rogue)) {
	story(t, 0, func(w *world) {
		gateways, leaves := w.addSite(0, 2, 2)
		w.begin(gateways, w.nodes...)
		w.within(5*time.Second, "everything is known to all 4", func() bool { return equal(w.nodes, 8) })
		before := seen(w.nodes)
		x := w.rogue(0, 40)
		defer x.host.Off()
		f(w, gateways, x)
		if !equal(w.nodes, 8) || !same(before, seen(w.nodes)) {
			t.Error("the rogue changed a fact")
		}
		_ = leaves[0].Tell(leafFacts(0, 3, 1))
		w.within(2*time.Second, "a change is known to all", func() bool { return allKnow(w.nodes, leaves[0].ID, 1) })
		if least, _ := sessionsOf(leaves); least < 2 {
			t.Errorf("a leaf lost a session")
		}
	})
}

func TestAMeshDoesNotListenToGarbage(t *testing.T) {
	rogueStory(t, func(w *world, gateways []*Node, x *rogue) {
		for name, garbage := range map[string][]byte{
			"an unknown type":                frame([]byte{1, 99, 0}),
			"a byte":                         frame([]byte{7}),
			"a frame of 4 GiB":               {0xff, 0xff, 0xff, 0xff},
			"a summary that breaks off":      frame([]byte{1, 2, 4, 's'}),
			"a list that only gateways send": frame([]byte{1, 18, 0}),
			"records that break off":         frame([]byte{1, 1, 0, 0, 9, 1, 2}),
		} {
			before := refused(gateways, gossip.RefusedSession)
			conn, err := x.dial(gateways[0], "lab")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, _ = conn.Write(garbage)
			w.within(time.Second, "out for "+name, func() bool { return refused(gateways, gossip.RefusedSession) > before })
			_ = conn.Close()
			// It is not let in again at once; after a while it is.
			if again, err := x.dial(gateways[0], "lab"); err == nil {
				b := make([]byte, 16)
				if n, _ := again.Read(b); n < 7 || b[5] != 19 {
					t.Errorf("%s: let in again with % x", name, b[:n])
				}
				_ = again.Close()
			}
			time.Sleep(11 * time.Second)
		}
	})
}

func TestWhoHasNoCertificateOfTheMeshHasNoSession(t *testing.T) {
	rogueStory(t, func(w *world, gateways []*Node, x *rogue) {
		if conn, err := x.dial(gateways[0], "another"); err == nil {
			t.Error("a hello for another mesh is taken")
			_ = conn.Close()
		}
		strangers, err := NewMesh(w.net, "lab")
		if err != nil {
			t.Fatal(err)
		}
		if x.id, err = strangers.Certify(pki.Subject{ID: leafID(0, 3)}); err != nil {
			t.Fatal(err)
		}
		if conn, err := x.dial(gateways[0], "lab"); err == nil {
			t.Error("a stranger's certificate is taken")
			_ = conn.Close()
		}
		if n := refused(gateways, gossip.RefusedSession); n != 2 {
			t.Errorf("%d sessions refused, want 2", n)
		}
		// Streams that say nothing, or begin like TLS and say nothing more, end.
		for _, first := range [][]byte{nil, {22}, {22, 3, 1, 2, 0}} {
			raw, err := x.host.Dial(w.Context(), gateways[0].Addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = raw.Write(first)
			began := time.Now()
			_ = raw.SetReadDeadline(began.Add(time.Minute))
			_, err = io.Copy(io.Discard, raw)
			if took := time.Since(began); err != nil || took > 6*time.Second {
				t.Errorf("a stream that begins with % x ended after %v: %v", first, took, err)
			}
			_ = raw.Close()
		}
	})
}

func TestAFloodIsHeldBackAndCounted(t *testing.T) {
	rogueStory(t, func(w *world, gateways []*Node, x *rogue) {
		conn, err := x.dial(gateways[0], "lab")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// Questions about everything, ever again, with the answers not read.
		question := frame([]byte{1, 2, 1, 'x', 1, 'y', 0, 0})
		many := make([]byte, 0, 100*len(question))
		for range 100 {
			many = append(many, question...)
		}
		began, sent := time.Now(), 0
		_ = conn.SetWriteDeadline(began.Add(30 * time.Second))
		for time.Since(began) < 30*time.Second {
			if _, err := conn.Write(many); err != nil {
				break
			}
			sent += 100
			time.Sleep(10 * time.Millisecond)
		}
		queue, rate := refused(gateways, gossip.RefusedQueue), refused(gateways, gossip.RefusedRate)
		t.Logf("%d questions in %v, %d not answered, held back %d times", sent, time.Since(began), queue, rate)
		if queue == 0 || rate == 0 {
			t.Error("not held back, or not counted")
		}
	})
}

func TestWhoNeverReadsIsPutOut(t *testing.T) {
	rogueStory(t, func(w *world, gateways []*Node, x *rogue) {
		conn, err := x.dial(gateways[0], "lab")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() { // it lives, as far as one hears
			for {
				if _, err := conn.Write(frame(nil)); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		w.within(time.Second, "it has a session", func() bool { return len(proven(gateways[0])) == 4 })
		// More news than fits on the way.
		for i := 2; i < 60; i++ {
			big := leafFacts(0, 1, 0)
			for k := range 40 {
				big = append(big, bigService(i, k))
			}
			_ = gateways[0].Tell(big)
			time.Sleep(time.Second)
			if len(proven(gateways[0])) == 3 {
				t.Logf("put out after %d rounds, %d messages dropped", i-1, refused(gateways, gossip.RefusedQueue))
				_ = gateways[0].Tell(leafFacts(0, 1, 0))
				w.within(5*time.Second, "all know that the services are gone", func() bool { return equal(w.nodes, 8) })
				return
			}
		}
		t.Error("it is still there")
	})
}

// bigService is a large record of the first gateway of site 0.
func bigService(i, k int) overlay.Record {
	s := &overlay.ServiceBody{Ports: []overlay.ServicePort{{Name: "http", Port: uint16(i), Protocol: overlay.TCP}}}
	addr := leafPrefixes(0, 1)[0].Addr()
	for b := range 200 {
		addr = addr.Next()
		s.Endpoints = append(s.Endpoints, overlay.Endpoint{Name: fmt.Sprintf("a-pod-with-a-rather-long-name-%03d", b), Addr: addr})
	}
	return overlay.Record{Key: overlay.Key{Kind: overlay.KindService, Slice: slice, Name: fmt.Sprintf("default/web-%02d", k)}, Service: s}
}
