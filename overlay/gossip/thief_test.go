package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// A thief holds the gossip key, but no certificate. He speaks memberlist.
func TestAThiefOfTheGossipKeyChangesNothing(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	a, b := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	set(t, a, facts(0))
	set(t, b, facts(1))
	start(t, a)
	b.SetSeeds([]string{a.Addr().String()})
	start(t, b)
	eventually(t, "both know both", func() bool { return len(a.Records()) == 8 && len(b.Records()) == 8 })
	want := a.Records()

	cfg := memberlist.DefaultLocalConfig()
	cfg.Name, cfg.BindAddr, cfg.BindPort, cfg.AdvertisePort = allowed(1).ID.String(), "127.0.0.1", 0, 0
	cfg.Label, cfg.SecretKey, cfg.EnableCompression = testMesh, testKey, true
	cfg.Logger = log.New(io.Discard, "", 0)
	thief, err := memberlist.Create(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Shutdown()
	if _, err := thief.Join([]string{a.Addr().String()}); err != nil {
		t.Logf("the thief's join: %v", err)
	}
	stranger := newAuthority("stranger").issue(t, allowed(1))
	bad := recordsTest(t, stranger, sealTest(t, stranger, sound(99)))
	target := memberlist.Address{Addr: a.Addr().String(), Name: allowed(0).ID.String()}
	node := &memberlist.Node{Name: allowed(0).ID.String(), Addr: a.Addr().Addr().AsSlice(), Port: a.Addr().Port()}
	for range 20 {
		if err := thief.SendToAddress(target, bad); err != nil {
			t.Fatal(err)
		}
		if err := thief.SendReliable(node, bad); err != nil {
			t.Fatal(err)
		}
		if err := thief.SendReliable(node, bytes.Repeat([]byte{1}, maxMessage+1)); err != nil {
			t.Logf("an oversize message: %v", err)
		}
	}
	eventually(t, "the alarm", func() bool {
		r := a.Refused()
		return r[RefusedCert] >= 20 && r[RefusedMalformed] > 0 && r[RefusedMember] > 0
	})
	if got := a.Records(); len(got) != len(want) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
	eventually(t, "b is still a member", func() bool {
		return slices.ContainsFunc(a.Members(), func(m Member) bool {
			return m.Name == allowed(1).ID.String() && m.Addr == b.Addr() && m.State == StateProven
		})
	})
}

// An encrypted frame that holds nothing makes memberlist's own reader index an
// empty slice.
func TestAnEmptyFrameDoesNotEndTheProcess(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 0))
	start(t, g)
	header := append([]byte{labelByte, byte(len(testMesh))}, testMesh...)
	frame := func(plain []byte) []byte {
		block, err := aes.NewCipher(testKey)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		head := binary.BigEndian.AppendUint32([]byte{encryptedByte}, uint32(cipherBytes+len(plain)))
		nonce := make([]byte, 12)
		sealed := gcm.Seal(nil, nonce, plain, append(slices.Clone(head), testMesh...))
		return slices.Concat(header, head, []byte{cipherVersion}, nonce, sealed)
	}
	for name, b := range map[string][]byte{
		"an empty frame":   frame(nil),
		"no label":         frame(nil)[len(header):],
		"a huge frame":     append(slices.Clone(header), encryptedByte, 0xff, 0xff, 0xff, 0xff, 1),
		"nothing":          nil,
		"half a header":    header[:3],
		"an unknown byte":  frame([]byte{200}),
		"a message's head": frame([]byte{8}),
	} {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := c.Write(b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.Copy(io.Discard, c); err != nil && !isReset(err) {
			t.Errorf("%s: the stream stays open: %v", name, err)
		}
		_ = c.Close()
	}
	eventually(t, "all streams are given back", func() bool {
		tr := g.net.Load().transport
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.conns) == 0 && tr.opened == 0 && len(tr.count) == 0
	})
}

func isReset(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return !ok || !ne.Timeout()
}

func TestStreamsAreBoundedPerSource(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 0))
	start(t, g)
	closed := make(chan struct{}, 2*maxStreamsPerSource)
	for range maxStreamsPerSource + 5 {
		c, err := net.Dial("tcp", g.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() {
			_, _ = c.Read(make([]byte, 1))
			closed <- struct{}{}
		}()
	}
	for range 5 { // the silent ones stay for ioTimeout, the surplus goes at once
		select {
		case <-closed:
		case <-time.After(ioTimeout / 2):
			t.Fatal("a stream beyond the bound stays open")
		}
	}
}

func TestTheInboxIsBounded(t *testing.T) {
	ca := newAuthority("ca")
	g := newTest(t, testConfig(t, ca, 0))
	d := delegate{g, &network{transport: &transport{advertise: netip.MustParseAddrPort("127.0.0.1:1")}}}
	big := make([]byte, maxMessage)
	for range 20 {
		d.NotifyMsg(big)
	}
	if n := g.Refused()[RefusedQueue]; n != 20-maxInboxBytes/maxMessage {
		t.Errorf("%d dropped", n)
	}
	d.NotifyMsg(make([]byte, maxMessage+1))
	if g.Refused()[RefusedMalformed] != 1 {
		t.Error("a message beyond the limit is kept")
	}
}
