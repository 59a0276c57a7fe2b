package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"reflect"
	"testing"
	"time"

	"slicewire/overlay"
)

// rootTest is an unlimited authority below ca: what the mesh's next one is to
// those who trust the one before.
func rootTest(t testing.TB, ca *authority, mesh string) (*identity, [32]byte) {
	t.Helper()
	allowed := overlay.Authority{
		Mesh: mesh, ID: overlay.NodeID{Node: "probe"}, NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(900 * time.Hour), Issuer: &overlay.Issuer{},
	}
	probe := ca.issue(t, allowed)
	// The name follows from the key, and here the key from the name: the
	// certificate is made again with the name of the key at hand.
	key := sha256.Sum256(probe.key.Public().(ed25519.PublicKey))
	allowed.ID.Node = overlay.IssuerName(key)
	return ca.certify(t, allowed, probe.key), key
}

func TestStatementsOfAuthorities(t *testing.T) {
	leakCheck(t)
	ca := newAuthority("ca")
	a, b := newTest(t, testConfig(t, ca, 0)), newTest(t, testConfig(t, ca, 1))
	start(t, a)
	b.SetSeeds([]string{a.Addr().String()})
	start(t, b)
	root, key := rootTest(t, ca, testMesh)
	say := func(id *identity, key [32]byte, serial uint64, statement []byte) []byte {
		t.Helper()
		m, err := SealRoot(id, key, statement, serial, begin.Add(800*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	holds := func(g *Gossip, text string) bool {
		r := of(g.Records(), overlay.NodeID{Node: overlay.IssuerName(key)})
		return len(r) == 1 && r[0].Root != nil && string(r[0].Root.Statement) == text
	}
	if err := a.Announce(say(root, key, 5, []byte("five"))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both hold the statement", func() bool { return holds(a, "five") && holds(b, "five") })
	if err := b.Announce(say(root, key, 6, bytes.Repeat([]byte{1}, overlay.MaxRootStatement))); err != nil {
		t.Errorf("a later one, as long as may be: %v", err)
	}
	if err := b.Announce(say(root, key, 5, []byte("five"))); err != nil || holds(b, "five") {
		t.Errorf("replayed: %v", err)
	}
	stolen, _ := issuerTest(t, ca, "issuer-1", overlay.Issuer{Sites: []string{"site-a"}})
	stranger, strangerKey := rootTest(t, newAuthority("stranger"), testMesh)
	foreign, foreignKey := rootTest(t, ca, "other")
	claim := func(id *identity, change func(*overlay.Record)) []byte {
		r := overlay.Record{Origin: overlay.NodeID{Node: overlay.IssuerName(key)}, Key: overlay.Key{Kind: overlay.KindRoot}, NotAfter: begin.Add(time.Hour), Root: &overlay.RootBody{Statement: []byte("x")}}
		change(&r)
		m, err := sealForAnnounce(id, r)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, tt := range map[string]struct {
		message []byte
		want    overlay.Refusal
	}{
		"by a stranger":       {say(stranger, strangerKey, 9, []byte("x")), RefusedCert},
		"for another mesh":    {say(foreign, foreignKey, 9, []byte("x")), RefusedCert},
		"by a node":           {claim(ca.issue(t, allowed(1)), func(r *overlay.Record) { r.Origin = allowed(1).ID }), overlay.RefusedIssuer},
		"by a stolen issuer":  {claim(stolen, func(r *overlay.Record) { r.Origin.Node = "issuer-1" }), overlay.RefusedIssuer},
		"of another's key":    {say(root, [32]byte{1}, 9, []byte("x")), overlay.RefusedOrigin},
		"of no key":           {claim(root, func(*overlay.Record) {}), overlay.RefusedName},
		"on a slice":          {claim(root, func(r *overlay.Record) { r.Key.Slice = "water" }), overlay.RefusedName},
		"taken back":          {claim(root, func(r *overlay.Record) { r.Deleted, r.Root = true, nil }), overlay.RefusedBody},
		"that has run out":    {claim(root, func(r *overlay.Record) { r.NotAfter = begin }), overlay.RefusedExpired},
		"that lives too long": {claim(root, func(r *overlay.Record) { r.NotAfter = begin.Add(901 * time.Hour) }), overlay.RefusedLifetime},
	} {
		g := newTest(t, testConfig(t, ca, 2))
		if err := g.Announce(tt.message); !errors.Is(err, tt.want) || len(g.Records()) != 0 {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	for name, statement := range map[string][]byte{"an over-long one": make([]byte, overlay.MaxRootStatement+1), "an empty one": nil} {
		if _, err := SealRoot(root, key, statement, 1, begin.Add(time.Hour)); err == nil {
			t.Errorf("%s is encoded", name)
		}
	}
}

// What an earlier version wrote is read as it was meant.
func TestGoldenStatement(t *testing.T) {
	want := overlay.Record{
		Origin: overlay.NodeID{Node: "issuer-0102030000000000"}, Version: overlay.Version{Epoch: 7},
		Key:      overlay.Key{Kind: overlay.KindRoot, Name: "0102030000000000000000000000000000000000000000000000000000000000"},
		NotAfter: time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC), Root: &overlay.RootBody{Statement: []byte("statement")},
	}
	body, err := encodeBody(want, fingerprint{9})
	if golden := goldenHex(t, "root.hex"); err != nil || !bytes.Equal(body, golden) {
		t.Fatalf("written otherwise than before: %x, %v", body, err)
	}
	if got, signer, err := decodeBody(body); err != nil || signer != (fingerprint{9}) || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}
