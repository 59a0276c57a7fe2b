package lab

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
)

// A thief has the gossip key, and a machine on the network; no certificate.
type thief struct {
	w    *world
	host *Host
	conn net.PacketConn
	seal cipher.AEAD
}

func (w *world) thief(i int) *thief {
	w.Helper()
	host, err := w.net.Attach(addr(i))
	if err != nil {
		w.Fatal(err)
	}
	conn, err := host.ListenPacket(w.Context(), netip.AddrPortFrom(addr(i), Port))
	if err != nil {
		w.Fatal(err)
	}
	block, err := aes.NewCipher(w.mesh.Key())
	if err != nil {
		w.Fatal(err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		w.Fatal(err)
	}
	return &thief{w, host, conn, seal}
}

// The types of memberlist's messages about members.
const (
	msgSuspect = 3
	msgAlive   = 4
	msgDead    = 5
)

// pack is MessagePack of a struct as memberlist reads it.
type pack []byte

func (p *pack) name(s string) { *p = append(append(*p, 0xa0|byte(len(s))), s...) } // below 32 bytes
func (p *pack) number(n uint32) {
	*p = binary.BigEndian.AppendUint32(append(*p, 0xce), n)
}
func (p *pack) raw(b []byte) {
	*p = append(binary.BigEndian.AppendUint16(append(*p, 0xda), uint16(len(b))), b...)
}

// accuse says that a member is suspect or dead.
func accuse(kind byte, incarnation uint32, node, from string) []byte {
	p := pack{kind, 0x83}
	p.name("Incarnation")
	p.number(incarnation)
	p.name("Node")
	p.name(node)
	p.name("From")
	p.name(from)
	return p
}

// claim says that a member is alive elsewhere.
func claim(incarnation uint32, node string, at netip.AddrPort, meta []byte) []byte {
	p := pack{msgAlive, 0x86}
	p.name("Incarnation")
	p.number(incarnation)
	p.name("Node")
	p.name(node)
	p.name("Addr")
	p.raw(at.Addr().AsSlice())
	p.name("Port")
	p.number(uint32(at.Port()))
	p.name("Meta")
	p.raw(meta)
	p.name("Vsn")
	p.raw([]byte{1, 5, 5, 2, 5, 4})
	return p
}

// say sends a message to a member as members do.
func (x *thief) say(to *Node, message []byte) {
	label := x.w.mesh.Name()
	nonce := make([]byte, x.seal.NonceSize())
	_, _ = rand.Read(nonce)
	p := append([]byte{244, byte(len(label))}, label...)
	p = append(append(p, 1), nonce...)
	p = x.seal.Seal(p, nonce, message, []byte(label))
	if _, err := x.conn.WriteTo(p, net.UDPAddrFromAddrPort(to.Addr)); err != nil {
		x.w.Error(err)
	}
}

func refused(nodes []*Node, reasons ...string) (n uint64) {
	for _, node := range nodes {
		for _, reason := range reasons {
			n += node.Gossip().Refused()[reason]
		}
	}
	return n
}

// seen is every version that every node holds: it changes with any record.
func seen(nodes []*Node) map[overlay.NodeID]map[overlay.Key]overlay.Version {
	out := make(map[overlay.NodeID]map[overlay.Key]overlay.Version)
	for _, r := range nodes[0].Gossip().Records() {
		if out[r.Origin] == nil {
			out[r.Origin] = make(map[overlay.Key]overlay.Version)
		}
		out[r.Origin][r.Key] = r.Version
	}
	return out
}

func TestAThiefOfTheGossipKeyChangesNoFact(t *testing.T) {
	rounds := uint32(100)
	if raced {
		rounds = 10
	}
	story(t, 12, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 12", func() bool { return equal(w.nodes, 48) })
		before := seen(w.nodes)
		x := w.thief(200)
		defer x.host.Off()
		began, alarm := time.Now(), time.Duration(0)
		// Twenty seconds of storm: every member is said to be suspect, dead and elsewhere,
		// at ever greater incarnations, to every other.
		for round := range rounds {
			for i, to := range w.nodes {
				victim := w.nodes[(i+1+int(round)%11)%12]
				name := victim.ID.String()
				x.say(to, accuse(msgSuspect, 10+round, name, w.nodes[(i+5)%12].ID.String()))
				x.say(to, accuse(msgDead, 10+round, name, w.nodes[(i+7)%12].ID.String()))
				x.say(to, claim(10+round, name, netip.AddrPortFrom(addr(200), Port), make([]byte, 97)))
				x.say(to, []byte{byte(round), 0x85, 0xff})
			}
			time.Sleep(200 * time.Millisecond)
			if alarm == 0 && refused(w.nodes, gossip.RefusedMember) > 0 {
				alarm = time.Since(began)
			}
		}
		if alarm == 0 || alarm > 5*time.Second {
			t.Errorf("alarm after %v", alarm)
		}
		t.Logf("alarm after %v, %d claims refused", alarm, refused(w.nodes, gossip.RefusedMember))
		if !equal(w.nodes, 48) || !same(before, seen(w.nodes)) {
			t.Fatal("the storm changed a fact")
		}
		// When it is over, news flows as before.
		_ = w.nodes[3].Tell(facts(3, 1))
		w.within(15*time.Second, "a change is known to all 12", func() bool { return numbered(w.nodes, 3, 1) })
	})
}

func same(a, b map[overlay.NodeID]map[overlay.Key]overlay.Version) bool {
	if len(a) != len(b) {
		return false
	}
	for id, keys := range a {
		if len(keys) != len(b[id]) {
			return false
		}
		for k, v := range keys {
			if b[id][k] != v {
				return false
			}
		}
	}
	return true
}

// A whole node of another authority, with the mesh's key, as one of the mesh's
// names: what it says of itself counts nowhere.
func TestAStrangersNodeIsNotBelieved(t *testing.T) {
	story(t, 8, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 8", func() bool { return equal(w.nodes, 32) })
		before := seen(w.nodes)
		strangers, err := NewMesh(w.net, "lab")
		if err != nil {
			t.Fatal(err)
		}
		evil, err := strangers.Add(pki.Subject{
			ID: nodeID(2), Gateway: true, Grants: []overlay.Grant{{Slice: slice, Prefixes: prefixes(2)}},
		}, addr(200))
		if err != nil {
			t.Fatal(err)
		}
		_ = evil.Tell(facts(2, 9))
		if err := evil.Start(w.nodes[0].Addr, w.nodes[5].Addr); err != nil {
			t.Fatal(err)
		}
		defer evil.Kill()
		w.within(5*time.Second, "alarm", func() bool {
			return refused(w.nodes, gossip.RefusedCert, gossip.RefusedNoCert, gossip.RefusedMember) > 0
		})
		time.Sleep(60 * time.Second)
		if !equal(w.nodes, 32) || !same(before, seen(w.nodes)) {
			t.Fatal("the stranger changed a fact")
		}
	})
}

func TestTwoWithOneKeyRaiseAnAlarm(t *testing.T) {
	story(t, 8, func(w *world) {
		w.start(w.nodes...)
		w.within(5*time.Second, "everything is known to all 8", func() bool { return equal(w.nodes, 32) })
		twin := w.nodes[4].Twin(addr(200))
		w.nodes = append(w.nodes, twin)
		w.start(twin) // and says nothing
		w.within(60*time.Second, "alarm because of a quiet twin", func() bool { return refused(w.nodes, gossip.RefusedClone) > 0 })
		before := refused(w.nodes, gossip.RefusedClone)
		_ = twin.Tell(facts(4, 1))
		w.within(5*time.Second, "alarm because of what it says", func() bool { return refused(w.nodes, gossip.RefusedClone) > before })
	})
}
