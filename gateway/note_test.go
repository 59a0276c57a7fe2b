package gateway

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"slicewire/overlay"
)

// heardNotes collects what a node is told.
type heardNotes struct {
	mu  sync.Mutex
	all []string
}

func (h *heardNotes) told(slice, peer string, body []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, slice+" "+peer+" "+string(body))
}

func (h *heardNotes) list() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.all...)
}

func newNoteNode(t *testing.T, name string) (*probeNode, *heardNotes) {
	h := new(heardNotes)
	cfg := Config{Log: testLog(), Told: h.told}
	n := &probeNode{node: newNodeOf(t, "127.0.0.1:0", cfg), key: newKey(t), link: newWakeLink(), tag: overlay.NodeID{Site: "s", Node: name}.Tag()}
	return n, h
}

func (n *probeNode) named(name string, prefix ...string) Peer {
	p := n.peer(prefix...)
	p.Name = name
	return p
}

// A note reaches the peer it is for, with the name of whose key it is; nobody
// else, and no workload.
func TestANoteIsToldToItsPeer(t *testing.T) {
	a, _ := newNoteNode(t, "a")
	b, heard := newNoteNode(t, "b")
	c, other := newNoteNode(t, "c")
	a.set(a.tunnel(b.named("b", "10.1.1.0/24"), c.named("c", "10.1.2.0/24"))).run()
	b.set(b.tunnel(a.named("a", "10.1.0.0/24"))).run()
	c.set(c.tunnel(a.named("a", "10.1.0.0/24"))).run()
	eventually(t, "all links are up", func() bool { return a.up(b) && a.up(c) && b.up(a) && c.up(a) })
	if err := a.Tell("red", "b", []byte("hello")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is told", func() bool { return len(heard.list()) == 1 })
	if got := heard.list()[0]; got != "red a hello" || len(other.list()) != 0 {
		t.Errorf("b heard %q, c %v", got, other.list())
	}
	// A workload that writes one itself has another address than any key has.
	var forged [noteHeader + 5]byte
	putNote(forged[:], probeAddr(PublicKey(c.key)), probeAddr(PublicKey(b.key)), []byte("false"))
	a.link.send(t, forged[:])
	if err := a.Tell("red", "b", []byte("after")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b is told again", func() bool { return len(heard.list()) >= 2 })
	if got := heard.list(); len(got) != 2 || got[1] != "red a after" {
		t.Errorf("b heard %q", got)
	}
	for _, x := range []struct{ slice, peer, body, want string }{
		{"blue", "b", "x", "no tunnel"}, {"red", "d", "x", "no peer d"}, {"red", "b", "", "0 bytes"}, {"red", "b", strings.Repeat("x", NoteMax+1), "1025 bytes"},
	} {
		if err := a.Tell(x.slice, x.peer, []byte(x.body)); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("to %s on %s: %v, want %q", x.peer, x.slice, err, x.want)
		}
	}
}

// A peer that tells too much is not listened to, and one that cannot be reached
// costs a bounded queue.
func TestNotesAreBounded(t *testing.T) {
	heard := 0
	now := time.Duration(0)
	p := newProber(testLog(), func() time.Duration { return now }, func() {})
	p.notes = func(string, []byte) { heard++ }
	l := p.lane(func() {})
	own, far := newKey(t), newKey(t)
	l.setPeers(&Tunnel{PrivateKey: own, Peers: []Peer{{Name: "far", PublicKey: PublicKey(far), Probe: true}}})
	pkt := make([]byte, noteHeader+4)
	putNote(pkt, probeAddr(PublicKey(far)), probeAddr(PublicKey(own)), []byte("note"))
	for range 1000 {
		if !l.read(pkt) {
			t.Fatal("not taken for a note")
		}
	}
	if heard != noteBurst {
		t.Errorf("%d of 1000 at once were heard, want %v", heard, noteBurst)
	}
	now += time.Second
	for range 1000 {
		l.read(pkt)
	}
	if heard != noteBurst+noteRate {
		t.Errorf("%d were heard after a second, want %v", heard, noteBurst+noteRate)
	}
	for i := range notesPending + 1 {
		if err := l.tell("far", []byte("x")); (err == nil) != (i < notesPending) {
			t.Errorf("note %d that waits: %v", i, err)
		}
	}
	bufs, sizes := make([][]byte, 100), make([]int, 100)
	for i := range bufs {
		bufs[i] = make([]byte, overlay.Headroom+noteHeader+NoteMax)
	}
	if n, _ := l.fill(bufs, sizes); n != notesPending || l.waiting.Load() != 0 {
		t.Errorf("%d were sent of %d, %d wait", n, notesPending, l.waiting.Load())
	}
}

func FuzzParseNote(f *testing.F) {
	good := make([]byte, noteHeader+5)
	putNote(good, [16]byte{0xfe, 0x80, 1}, [16]byte{0xfe, 0x80, 2}, []byte("hello"))
	f.Add(good)
	f.Add(good[:noteHeader])
	f.Fuzz(func(t *testing.T, b []byte) {
		from, to, body, ok := parseNote(b)
		if !ok {
			return
		}
		again := make([]byte, len(b))
		if n := putNote(again, from, to, body); n != len(b) || !bytes.Equal(again, b) {
			t.Errorf("%x is read, and written as %x", b, again[:n])
		}
		if _, probe := parseProbe(b); probe {
			t.Errorf("%x is a note and a probe", b)
		}
	})
}
