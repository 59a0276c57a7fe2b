package gossip

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

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
		{"a prefix that overlaps another site's", string(overlay.RefusedPrefix), prefixes("10.1.0.0/16", "10.0.0.0/14")},
		{"a part of another site's prefix", string(overlay.RefusedPrefix), prefixes("10.2.7.0/24")},
		{"one address of another site", string(overlay.RefusedPrefix), prefixes("10.2.1.1/32")},
		{"half of everything", string(overlay.RefusedPrefix), prefixes("0.0.0.0/1")},
		{"half of everything of IPv6", string(overlay.RefusedPrefix), prefixes("8000::/1")},
		{"a cluster's services", string(overlay.RefusedPrefix), prefixes("10.96.0.0/12")},
		{"an underlay address of its own", string(overlay.RefusedPrefix), prefixes("192.0.2.2/32")},
		{"an underlay address of another node", string(overlay.RefusedPrefix), prefixes("192.0.2.3/32")},
		{"loopback", string(overlay.RefusedPrefix), prefixes("127.0.0.0/8")},
		{"link-local addresses", string(overlay.RefusedPrefix), prefixes("169.254.0.0/16")},
		{"multicast", string(overlay.RefusedPrefix), prefixes("224.0.0.0/4")},
		{"its own prefix as IPv6", string(overlay.RefusedPrefix), prefixes("::ffff:10.1.0.0/112")},
		{"a service at another site", string(overlay.RefusedAddress), claim(func(r *overlay.Record) {
			r.Key, r.Prefix, r.Service = overlay.Key{Kind: overlay.KindService, Slice: "water", Name: "default/web"}, nil, service(2, "web", 1).Service
		})},
		{"a key on another slice", string(overlay.RefusedSlice), claim(func(r *overlay.Record) {
			r.Key, r.Prefix, r.WGKey = overlay.Key{Kind: overlay.KindKey, Slice: "fire"}, nil, &overlay.KeyBody{PublicKey: [32]byte{9}}
		})},
		{"another site's name with its own node's", string(overlay.RefusedOrigin), claim(func(r *overlay.Record) { r.Origin.Site = allowed(2).ID.Site })},
		{"a site that nobody is of", string(overlay.RefusedOrigin), claim(func(r *overlay.Record) { r.Origin.Site = "site-z" })},
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
	for i := range uint64(300) {
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
	const seed = 7
	rounds := 1_000_000
	if raced {
		rounds = 100_000
	}
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
	t.Logf("%d mutations, %v each, refused %v", rounds, time.Since(began)/time.Duration(rounds), g.Refused())
}
