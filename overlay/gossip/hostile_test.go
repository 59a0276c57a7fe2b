package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"slicewire/overlay"
)

// sound is a record of site-b that everybody accepts.
func sound(version uint64) overlay.Record {
	r := facts(1)[2]
	r.Origin, r.Version, r.NotAfter = allowed(1).ID, overlay.Version{Epoch: 1, Seq: version}, begin.Add(time.Hour)
	return r
}

func TestHostileRecordsInstallNothing(t *testing.T) {
	ca := newAuthority("ca")
	id := ca.issue(t, allowed(1))
	late := allowed(1)
	late.NotAfter = begin.Add(-time.Minute)
	otherMesh := allowed(1)
	otherMesh.Mesh = "other"
	claim := func(change func(*overlay.Record)) []byte {
		r := sound(5)
		change(&r)
		return recordsTest(t, id, sealTest(t, id, r))
	}
	prefixes := func(p ...string) []byte {
		return claim(func(r *overlay.Record) {
			r.Prefix = &overlay.PrefixBody{}
			for _, s := range p {
				r.Prefix.Prefixes = append(r.Prefix.Prefixes, prefix(s))
			}
		})
	}
	broken := sealTest(t, id, sound(5))
	broken[len(broken)-1] ^= 1
	altered := sealTest(t, id, sound(5))
	altered[len(altered)-signatureSize-1] ^= 1
	stranger := newAuthority("stranger").issue(t, allowed(1))
	expired := ca.issue(t, late)
	foreign := ca.issue(t, otherMesh)
	neighbour := ca.issue(t, allowed(2))
	// site-c signs with its own key what claims site-b's certificate.
	borrowed, err := encodeBody(sound(5), chain(id.chain).leaf())
	if err != nil {
		t.Fatal(err)
	}
	borrowed = seal(borrowed, neighbour.Sign(signRecord, borrowed))
	wrongDomain, _ := encodeBody(sound(5), chain(id.chain).leaf())
	wrongDomain = seal(wrongDomain, id.Sign(signMember, wrongDomain))
	tests := []struct {
		name, reason string
		message      []byte
	}{
		{"a broken signature", RefusedSignature, recordsTest(t, id, broken)},
		{"an altered body", string(RefusedSignature), recordsTest(t, id, altered)},
		{"another's signature", RefusedSignature, recordsTest(t, id, borrowed)},
		{"a signature for another purpose", RefusedSignature, recordsTest(t, id, wrongDomain)},
		{"a stranger's authority", RefusedCert, recordsTest(t, stranger, sealTest(t, stranger, sound(5)))},
		{"an expired certificate", RefusedCert, recordsTest(t, expired, sealTest(t, expired, sound(5)))},
		{"another mesh", RefusedCert, recordsTest(t, foreign, sealTest(t, foreign, sound(5)))},
		{"no certificate", RefusedNoCert, recordsTest(t, neighbour, sealTest(t, id, sound(5)))},
		{"an expired record", string(overlay.RefusedExpired), claim(func(r *overlay.Record) { r.NotAfter = begin })},
		{"a record that outlives its certificate", string(overlay.RefusedLifetime), claim(func(r *overlay.Record) { r.NotAfter = begin.Add(2000 * time.Hour) })},
		{"another node's name", string(overlay.RefusedOrigin), claim(func(r *overlay.Record) { r.Origin = allowed(2).ID })},
		{"another node of the site", string(overlay.RefusedOrigin), claim(func(r *overlay.Record) { r.Origin.Node = "gw-2" })},
		{"another site's prefix", string(overlay.RefusedPrefix), prefixes("10.2.0.0/16")},
		{"a wider prefix", string(overlay.RefusedPrefix), prefixes("10.0.0.0/15")},
		{"a default route", string(overlay.RefusedPrefix), prefixes("0.0.0.0/0")},
		{"a default route of IPv6", string(overlay.RefusedPrefix), prefixes("::/0")},
		{"a good prefix and a bad one", string(overlay.RefusedPrefix), prefixes("10.1.0.0/16", "192.0.2.0/24")},
		{"another slice", string(overlay.RefusedSlice), claim(func(r *overlay.Record) { r.Key.Slice = "fire" })},
		{"rubbish", RefusedMalformed, []byte{1, 2, 3}},
		{"nothing", RefusedMalformed, nil},
		{"a message of version 2", RefusedMalformed, append([]byte{2}, recordsTest(t, id, sealTest(t, id, sound(5)))[1:]...)},
		{"a trailing byte", RefusedMalformed, append(recordsTest(t, id, sealTest(t, id, sound(5))), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newTest(t, testConfig(t, ca, 0))
			g.handle(tt.message)
			if n := len(g.Records()); n != 0 {
				t.Errorf("%d records installed", n)
			}
			if got := g.Refused(); len(got) != 1 || got[tt.reason] != 1 {
				t.Errorf("refused %v, want 1 for %q", got, tt.reason)
			}
			select {
			case <-g.Changed():
				t.Error("a change was announced")
			default:
			}
		})
	}
	g := newTest(t, testConfig(t, ca, 0))
	g.handle(recordsTest(t, id, sealTest(t, id, sound(5))))
	if len(g.Records()) != 1 || len(g.Refused()) != 0 {
		t.Fatalf("the sound record: %d installed, refused %v", len(g.Records()), g.Refused())
	}
}

func TestOldRecordsDoNotComeBack(t *testing.T) {
	ca := newAuthority("ca")
	id := ca.issue(t, allowed(1))
	g := newTest(t, testConfig(t, ca, 0))
	older, newer := sealTest(t, id, sound(5)), sealTest(t, id, sound(6))
	gone := sound(7)
	gone.Prefix, gone.Deleted, gone.NotAfter = nil, true, begin.Add(time.Minute)
	g.handle(recordsTest(t, id, newer))
	g.handle(recordsTest(t, id, older))
	if r := g.Records(); len(r) != 1 || r[0].Version.Seq != 6 || g.Refused()[RefusedStale] != 1 {
		t.Fatalf("after a replay: %v, refused %v", r, g.Refused())
	}
	g.handle(recordsTest(t, id, newer))
	if g.Refused()[RefusedStale] != 1 {
		t.Error("what is held already counts as refused")
	}
	g.handle(recordsTest(t, id, sealTest(t, id, gone)))
	g.handle(recordsTest(t, id, newer))
	// Long after the tombstone, and after a restart, the record is still old.
	clock := g.cfg.Now
	g.cfg.Now = func() time.Time { return clock().Add(2 * time.Minute) }
	g.maintain()
	g.handle(recordsTest(t, id, newer))
	again := newTest(t, testConfig(t, ca, 0))
	if _, err := again.Restore(g.Snapshot()); err != nil {
		t.Fatal(err)
	}
	again.handle(recordsTest(t, id, newer))
	if len(g.Records()) != 0 || len(again.Records()) != 0 || g.Refused()[RefusedStale] != 3 || again.Refused()[RefusedStale] != 1 {
		t.Fatalf("after the tombstone: %v and %v, refused %v and %v", g.Records(), again.Records(), g.Refused(), again.Refused())
	}
}

func TestTwoHoldersOfOneKeyAreNoticed(t *testing.T) {
	ca := newAuthority("ca")
	id := ca.issue(t, allowed(1))
	g := newTest(t, testConfig(t, ca, 0))
	other := sound(5)
	other.Prefix = &overlay.PrefixBody{Prefixes: other.Prefix.Prefixes[:1]}
	g.handle(recordsTest(t, id, sealTest(t, id, sound(5))))
	g.handle(recordsTest(t, id, sealTest(t, id, other)))
	if r := g.Records(); len(r) != 1 || len(r[0].Prefix.Prefixes) != 2 || g.Refused()[RefusedClone] != 1 {
		t.Fatalf("%v, refused %v", r, g.Refused())
	}
}

func TestAnOriginCannotFillTheNode(t *testing.T) {
	ca := newAuthority("ca")
	id := ca.issue(t, allowed(1))
	g := newTest(t, testConfig(t, ca, 0))
	for i := range uint64(paceBurst + 500) {
		r := sound(i)
		g.handle(recordsTest(t, id, sealTest(t, id, r)))
	}
	if n := g.Refused()[RefusedRate]; n != 500 {
		t.Errorf("%d refused for the pace, want 500", n)
	}
	big := service(1, "big", 250)
	big.Origin, big.NotAfter = allowed(1).ID, begin.Add(time.Hour)
	g = newTest(t, testConfig(t, ca, 0))
	for i := range uint64(100) {
		big.Key.Name = "default/s-" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		big.Version.Seq = i
		g.handle(recordsTest(t, id, sealTest(t, id, big)))
	}
	if g.Refused()[RefusedFull] == 0 || len(g.Records()) == 0 {
		t.Errorf("%d large records kept, refused %v", len(g.Records()), g.Refused())
	}
}

// One mutation: bits, bytes, lengths, cuts, repetitions.
func mutate(rng *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			return b
		}
		i := rng.IntN(len(b))
		switch rng.IntN(7) {
		case 0:
			b[i] ^= 1 << rng.IntN(8)
		case 1:
			b[i] = byte(rng.Uint32())
		case 2:
			b = b[:i]
		case 3:
			b = append(b, byte(rng.Uint32()))
		case 4:
			b = slices.Insert(b, i, b[i:min(len(b), i+rng.IntN(9))]...)
		case 5:
			b = slices.Delete(b, i, min(len(b), i+rng.IntN(9)))
		case 6:
			b[i] = []byte{0, 0xff, 0x7f, 0x80}[rng.IntN(4)]
		}
	}
	return b
}

func TestMutatedRecordsAreNeverAccepted(t *testing.T) {
	const rounds, seed = 200_000, 7
	ca := newAuthority("ca")
	id := ca.issue(t, allowed(1))
	g := newTest(t, testConfig(t, ca, 0))
	var good [][]byte
	for _, f := range facts(1) {
		f.Origin, f.Version, f.NotAfter = allowed(1).ID, overlay.Version{Epoch: 1, Seq: 1}, begin.Add(time.Hour)
		good = append(good, sealTest(t, id, f))
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	began := time.Now()
	for i := range rounds {
		raw := good[i%len(good)]
		b := mutate(rng, recordsTest(t, id, raw))
		if i%2 == 0 { // the record itself, in a sound message
			m := mutate(rng, raw)
			if bytes.Equal(m, raw) || len(m) < 2 {
				continue
			}
			binary.BigEndian.PutUint16(m, uint16(len(m)-2-signatureSize))
			if bytes.Equal(m, raw) {
				continue
			}
			b = recordsTest(t, id, m)
		}
		if bytes.Equal(b, recordsTest(t, id, raw)) {
			continue
		}
		g.handle(b)
		// Mutations may hit the chain only, so that the untouched record counts.
		g.mu.Lock()
		for _, h := range g.ledger.Of(allowed(1).ID) {
			if !slices.ContainsFunc(good, func(x []byte) bool { return bytes.Equal(x, h.Raw) }) {
				t.Fatalf("seed %d, round %d: accepted %x", seed, i, h.Raw)
			}
		}
		g.ledger = overlay.Ledger{}
		g.mu.Unlock()
	}
	t.Logf("%d mutations, %v each, refused %v", rounds, time.Since(began)/rounds, g.Refused())
}

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
