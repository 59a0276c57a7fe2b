package gossip

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"slicewire/overlay"
)

// issuerTest is an issuer that a issued: a limited one, or its root.
func issuerTest(t testing.TB, a *authority, name string, limits overlay.Issuer) (*identity, overlay.Authority) {
	t.Helper()
	allowed := overlay.Authority{
		Mesh: testMesh, ID: overlay.NodeID{Node: name}, NotBefore: begin.Add(-time.Hour), NotAfter: begin.Add(900 * time.Hour), Issuer: &limits,
	}
	return a.issue(t, allowed), allowed
}

func sealTestRevocation(t testing.TB, id *identity, a overlay.Authority, r overlay.Revocation) []byte {
	t.Helper()
	b, err := SealRevocation(id, a.ID, r, a.NotAfter, 0)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// revocableConfig gives every node a verifier of its own.
func revocableConfig(t testing.TB, n int) Config {
	return testConfig(t, newAuthority("ca"), n)
}

func TestARevokedNodeIsCutEverywhere(t *testing.T) {
	leakCheck(t)
	var nodes []*Gossip
	for n := range 3 {
		g := newTest(t, revocableConfig(t, n))
		set(t, g, facts(n))
		if n > 0 {
			g.SetSeeds([]string{nodes[0].Addr().String()})
		}
		start(t, g)
		nodes = append(nodes, g)
	}
	for _, g := range nodes {
		eventually(t, "all know all", func() bool { return len(g.Records()) == 12 })
	}
	victim := allowed(2).ID
	id, limits := issuerTest(t, newAuthority("ca"), "issuer-1", overlay.Issuer{Sites: []string{victim.Site}})
	message := sealTestRevocation(t, id, limits, overlay.Revocation{Node: victim, Until: begin})
	began := time.Now()
	if err := nodes[0].Announce(message); err != nil {
		t.Fatal(err)
	}
	for _, g := range nodes {
		eventually(t, "the victim's records are gone", func() bool { return len(of(g.Records(), victim)) == 0 })
	}
	t.Logf("cut everywhere after %v", time.Since(began))
	if err := nodes[1].Announce(message); err != nil {
		t.Errorf("said once more: %v", err)
	}
	// It cannot speak any more, not even to a newcomer that hears it first.
	late := newTest(t, revocableConfig(t, 3))
	set(t, late, facts(3))
	late.SetSeeds([]string{nodes[1].Addr().String()})
	start(t, late)
	eventually(t, "the newcomer knows the revocation", func() bool { return len(of(late.Records(), limits.ID)) == 1 })
	eventually(t, "and goes by it", func() bool { // when it has taken in the message that has it
		_, err := late.cfg.Verifier.Authority(nodes[2].cfg.Signer.Chain(), late.cfg.Now())
		_, is := void(err)
		return is
	})
	raw := sealTest(t, nodes[2].cfg.Signer.(*identity), func() overlay.Record {
		r := facts(2)[0]
		r.Origin, r.Version, r.NotAfter = victim, overlay.Version{Epoch: 99, Seq: 1}, begin.Add(time.Hour)
		return r
	}())
	for _, g := range []*Gossip{nodes[0], nodes[1], late} {
		g.handle(recordsTest(t, nodes[2].cfg.Signer.(*identity), raw))
		if len(of(g.Records(), victim)) != 0 || g.Refused()[string(overlay.RefusedRevoked)] == 0 {
			t.Errorf("%v believes a revoked node: refused %v", g.cfg.Self, g.Refused())
		}
	}
	if err := nodes[2].Set(facts(2)); !errors.Is(err, overlay.RefusedRevoked) {
		t.Errorf("the revoked node itself: %v", err)
	}
	// A restart forgets nothing: neither the revocation nor what it means.
	again := newTest(t, revocableConfig(t, 1))
	if _, err := again.Restore(nodes[1].Snapshot()); err != nil {
		t.Fatal(err)
	}
	again.handle(recordsTest(t, nodes[2].cfg.Signer.(*identity), raw))
	if len(of(again.Records(), victim)) != 0 || again.Refused()[string(overlay.RefusedRevoked)] != 1 {
		t.Errorf("after a restart: refused %v", again.Refused())
	}
	// With a certificate of a later enrolment the node is let in again, whatever
	// versions the last holder of its name has used.
	next := allowed(2)
	next.Enrolled = begin.Add(time.Second)
	cfg := revocableConfig(t, 2)
	cfg.Signer = newAuthority("ca").issue(t, next)
	second := newTest(t, cfg)
	set(t, second, facts(2))
	if _, err := again.Restore(second.Snapshot()); err != nil || len(of(again.Records(), victim)) != 4 {
		t.Errorf("enrolled again: %v, refused %v", err, again.Refused())
	}
}

func TestRevocationsAreComparedBesideBroadcasts(t *testing.T) {
	leakCheck(t)
	a, b := newTest(t, revocableConfig(t, 0)), newTest(t, revocableConfig(t, 1))
	set(t, a, facts(0))
	set(t, b, facts(1))
	start(t, a)
	b.SetSeeds([]string{a.Addr().String()})
	start(t, b)
	eventually(t, "both know both", func() bool { return len(a.Records()) == 8 && len(b.Records()) == 8 })
	id, limits := issuerTest(t, newAuthority("ca"), "issuer-1", overlay.Issuer{})
	// Each learns one behind the other's back, as in a partition: nothing is told.
	for n, g := range []*Gossip{a, b} {
		m, err := decodeMessage(sealTestRevocation(t, id, limits, overlay.Revocation{Node: allowed(5 + n).ID, Until: begin}))
		if err != nil {
			t.Fatal(err)
		}
		if _, fresh := g.accept(m.records[0], map[fingerprint]chain{m.chains[0].leaf(): m.chains[0]}, true); !fresh {
			t.Fatal("refused", g.Refused())
		}
		g.settle()
	}
	a.queues.wakeMaintainer() // as its ticker does every maintainEvery
	for _, g := range []*Gossip{a, b} {
		eventually(t, "both hold both revocations", func() bool { return len(of(g.Records(), limits.ID)) == 2 })
	}
}

func TestARevokedIssuerRevokesNobody(t *testing.T) {
	g := newTest(t, revocableConfig(t, 0))
	other := newTest(t, revocableConfig(t, 1))
	set(t, other, facts(1))
	set(t, g, facts(0))
	ca := newAuthority("ca")
	thief, limits := issuerTest(t, ca, "issuer-1", overlay.Issuer{Sites: []string{allowed(1).ID.Site}})
	rootID, root := issuerTest(t, ca, "root", overlay.Issuer{Root: true})
	if err := g.Announce(sealTestRevocation(t, thief, limits, overlay.Revocation{Node: allowed(1).ID, Until: begin.Add(999 * time.Hour)})); err != nil {
		t.Fatal(err)
	}
	if err := g.Announce(sealTestRevocation(t, thief, limits, overlay.Revocation{Node: allowed(2).ID, Until: begin})); !errors.Is(err, overlay.RefusedIssuer) {
		t.Errorf("of a site that is not the issuer's: %v", err)
	}
	if err := g.Announce(recordsTest(t, other.cfg.Signer.(*identity), other.ledger.Of(allowed(1).ID)[0].Raw)); err == nil {
		t.Error("another record is taken for a revocation")
	}
	g.Restore(other.Snapshot())
	if len(of(g.Records(), allowed(1).ID)) != 0 {
		t.Fatal("the revocation does not count")
	}
	key := sha256.Sum256(thief.key.Public().(ed25519.PublicKey))
	if err := g.Announce(sealTestRevocation(t, rootID, root, overlay.Revocation{Key: key})); err != nil {
		t.Fatal(err)
	}
	g.Restore(other.Snapshot())
	if len(of(g.Records(), allowed(1).ID)) != 4 || len(of(g.Records(), limits.ID)) != 0 {
		t.Errorf("what the revoked issuer said still counts: %v", g.Records())
	}
}

func TestARevocationHoldsUntilItsEndAndNoLonger(t *testing.T) {
	clock := newClock()
	cfg := revocableConfig(t, 0)
	cfg.Now = clock.Now
	g := newTest(t, cfg)
	id, limits := issuerTest(t, newAuthority("ca"), "issuer-1", overlay.Issuer{})
	if err := g.Announce(sealTestRevocation(t, id, limits, overlay.Revocation{Node: allowed(1).ID, Until: begin})); err != nil {
		t.Fatal(err)
	}
	other := newTest(t, revocableConfig(t, 1))
	set(t, other, facts(1))
	clock.advance(limits.NotAfter.Sub(begin) - time.Second)
	g.maintain()
	if _, err := cfg.Verifier.Authority(other.cfg.Signer.Chain(), begin); !errors.Is(err, overlay.RefusedRevoked) {
		t.Errorf("a second before the end: %v", err)
	}
	clock.advance(time.Second)
	g.maintain()
	if _, err := cfg.Verifier.Authority(other.cfg.Signer.Chain(), begin); err != nil || len(g.Records()) != 0 {
		t.Errorf("at the end: %v", err)
	}
}

// What an earlier version signed is read as it was meant.
func TestGoldenRevocation(t *testing.T) {
	block, _ := pem.Decode(golden(t, "issuer.pem"))
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	message := goldenHex(t, "revocation.hex")
	m, err := decodeMessage(message)
	if err != nil || len(m.records) != 1 || len(m.chains) != 1 || !bytes.Equal(m.chains[0][0], cert.Raw) {
		t.Fatalf("%+v, %v", m, err)
	}
	s := m.records[0]
	want := overlay.Revocation{Node: overlay.NodeID{Site: "worker-1", Node: "gw-a"}, Until: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	if got, ok := overlay.RevocationOf(s.record); !ok || got != want || !s.record.NotAfter.Equal(time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("got %+v, %v, until %v", got, ok, s.record.NotAfter)
	}
	if s.signer != m.chains[0].leaf() || !ed25519.Verify(cert.PublicKey.(ed25519.PublicKey), []byte(signRecord+"\x00"+string(s.body)), s.sig) {
		t.Error("the signature is not good any more")
	}
	rec := want.Record()
	rec.Origin, rec.NotAfter = s.record.Origin, s.record.NotAfter
	if again, err := encodeBody(rec, s.signer); err != nil || !bytes.Equal(again, s.body) {
		t.Errorf("it is written otherwise than before: %x, %v", again, err)
	}
}
