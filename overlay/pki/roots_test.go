package pki

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

// succeedTest makes the authority after ca.
func succeedTest(t testing.TB, ca *CA, now time.Time) (*CA, *Succession) {
	t.Helper()
	next, s, err := ca.Succeed(now, 10000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return next, s
}

func rootsTest(t testing.TB, text []byte, add ...*Succession) *Roots {
	t.Helper()
	r, err := ParseRoots(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range add {
		if r, err = r.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func retireTest(t testing.TB, ca *CA, s *Succession, now, at time.Time) *Succession {
	t.Helper()
	s, err := ca.Retire(s, now, at)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// One story from the first authority to the second, seen by a node that hears of
// it, one that does not, and one that came later.
func TestAnAuthorityIsSucceeded(t *testing.T) {
	first := newCATest(t, "lab")
	old := issueTest(t, first, subject(), 100*time.Hour)
	oldIssuer := newIssuerTest(t, first, scopeTest(), 100*time.Hour)
	second, s := succeedTest(t, first, start)
	young := issueTest(t, second, subject(), 100*time.Hour)
	issuer := newIssuerTest(t, second, scopeTest(), 100*time.Hour)
	below := issuer.unlimited(t, subject())
	shown := append(issuer.Chain(), s.Chain()...)

	hears, deaf := newVerifierTest(t, first), newVerifierTest(t, first)
	good := func(v *Verifier, chain [][]byte, now time.Time) bool {
		_, err := v.Authority(chain, now)
		return err == nil
	}
	for name, chain := range map[string][][]byte{"a node": young.Chain(), "an issuer": issuer.Chain(), "a node below it": below, "the successor itself": second.Chain()} {
		if _, err := hears.Authority(chain, start); !errors.Is(err, ErrUnknownRoot) {
			t.Errorf("%s before the successor is known: %v", name, err)
		}
	}
	hears.SetRoots(rootsTest(t, first.CertPEM(), s))
	// Both are trusted, with the certificate of the one by the other or without.
	for name, chain := range map[string][][]byte{
		"an old node": old.Chain(), "an old issuer": oldIssuer.Chain(), "a young node": young.Chain(), "an issuer": issuer.Chain(), "a node below it": below, "an issuer with its way": shown,
		"a node with its way": append(slices.Clone(below), s.Chain()...), "a node with its root": append(slices.Clone(below), second.Chain()...), "an old node with its root": append(old.Chain(), first.Chain()...),
	} {
		if a, err := hears.Authority(chain, start); err != nil || a.Issuer != nil && a.Issuer.Root {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	for name, chain := range map[string][][]byte{"the old root": first.Chain(), "the new one": second.Chain(), "the new one by the old": s.Chain()} {
		if a, err := hears.Authority(chain, start); err != nil || a.Issuer == nil || !a.Issuer.Root {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if k, err := hears.Root(old.Chain()); err != nil || k != KeySum(first.cert) {
		t.Errorf("the old node hangs on %x, %v", k, err)
	}
	if k, err := hears.Root(shown); err != nil || k != s.Key() {
		t.Errorf("the issuer hangs on %x, %v", k, err)
	}
	// Who knows the old one only follows the certificate by it, and no other.
	if !good(deaf, shown, start) || good(deaf, issuer.Chain(), start) || good(deaf, append(issuer.Chain(), second.Chain()...), start) {
		t.Error("who has heard nothing judges otherwise than by the old authority's certificate")
	}
	if a, err := deaf.Authority(s.Chain(), start); err != nil || a.Issuer.Root || len(a.Issuer.Sites) != 0 {
		t.Errorf("the successor to who has heard nothing: %+v, %v", a, err)
	}

	// The end of the first.
	end := start.Add(50 * time.Hour)
	last := retireTest(t, second, s, start.Add(time.Hour), end)
	hears.SetRoots(rootsTest(t, hears.Roots().Text(), last))
	later := newVerifierTest(t, first)
	later.SetRoots(rootsTest(t, hears.Roots().Text()))
	for name, v := range map[string]*Verifier{"who has heard": hears, "who came later": later} {
		for what, chain := range map[string][][]byte{"an old node": old.Chain(), "an old issuer": oldIssuer.Chain(), "the old root": first.Chain()} {
			if !good(v, chain, end.Add(-time.Second)) {
				t.Errorf("%s refuses %s too early", name, what)
			}
			if _, err := v.Authority(chain, end); !errors.Is(err, overlay.RefusedRetired) {
				t.Errorf("%s, %s at the end: %v", name, what, err)
			}
		}
		for what, chain := range map[string][][]byte{"a node": young.Chain(), "an issuer": issuer.Chain(), "an issuer with its way": shown, "the root": second.Chain(), "the root by the old": s.Chain()} {
			if !good(v, chain, end) {
				t.Errorf("%s refuses %s after the end of the old authority", name, what)
			}
		}
		// A thief of the old key makes a node, an issuer, and a successor of his own.
		thief, forged := succeedTest(t, first, start.Add(2*time.Hour))
		node, middle := issueTest(t, first, subject(), 100*time.Hour), newIssuerTest(t, first, scopeTest(), 100*time.Hour)
		for what, chain := range map[string][][]byte{"a node": node.Chain(), "an issuer": middle.Chain()} {
			if _, err := v.Authority(chain, end); !errors.Is(err, overlay.RefusedRetired) {
				t.Errorf("%s believes a thief's %s: %v", name, what, err)
			}
		}
		for what, chain := range map[string][][]byte{
			"a successor": forged.Chain(), "a node of the successor's": append(issueTest(t, thief, subject(), time.Hour).Chain(), forged.Chain()...),
		} {
			if _, err := v.Authority(chain, start.Add(2*time.Hour)); !errors.Is(err, overlay.RefusedFork) {
				t.Errorf("%s believes a thief's %s: %v", name, what, err)
			}
		}
		if _, err := v.Roots().Add(forged); !errors.Is(err, ErrFork) {
			t.Errorf("%s: a thief's successor: %v", name, err)
		}
	}
	status := hears.Roots().Status(end)
	if len(status) != 2 || status[0].Key != s.Key() || status[0].Retired || !status[0].Retires.IsZero() || !status[1].Retired || !status[1].Retires.Equal(end) {
		t.Errorf("status %+v", status)
	}
	if hears.Roots().Leads(s.Key(), KeySum(first.cert)) || !hears.Roots().Leads(KeySum(first.cert), s.Key()) || !hears.Roots().Leads(s.Key(), s.Key()) || hears.Roots().Leads([32]byte{}, s.Key()) {
		t.Error("the way from one to the other is another")
	}
}

func TestHostileSuccessions(t *testing.T) {
	first := newCATest(t, "lab")
	second, s := succeedTest(t, first, start)
	stolen := newIssuerTest(t, first, scopeTest(), 100*time.Hour)
	other := newCATest(t, "lab")
	foreign := newCATest(t, "other")
	_, stranger := succeedTest(t, other, start)
	_, elsewhere := succeedTest(t, foreign, start)
	_, fork := succeedTest(t, first, start.Add(time.Hour))
	_, ofIssuer, err := stolen.ca.Succeed(start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	mine, _ := succeedTest(t, other, start)
	if _, err := mine.state(s.cross.Raw, 1, time.Time{}); err == nil {
		t.Error("two authorities in one statement")
	}
	self, err := other.state(other.cert.Raw, 1, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	r := rootsTest(t, first.CertPEM(), s)
	for name, tt := range map[string]struct {
		s    *Succession
		want error
	}{
		"by another authority":     {stranger, ErrStranger},
		"of another mesh":          {elsewhere, ErrStranger},
		"by a stolen issuer":       {ofIssuer, ErrStranger},
		"by itself":                {self, ErrStranger},
		"a second one by the same": {fork, ErrFork},
		"the same again":           {s, nil},
	} {
		got, err := r.Add(tt.s)
		if !errors.Is(err, tt.want) || tt.want != nil && err == nil || tt.want == nil && got != r {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Later statements replace earlier ones, whatever the order of arrival.
	end := retireTest(t, second, s, start.Add(time.Hour), start.Add(9*time.Hour))
	r = rootsTest(t, first.CertPEM(), end, s)
	if got := r.Status(start)[1].Retires; !got.Equal(start.Add(9 * time.Hour)) {
		t.Errorf("a replayed statement counts: retires %v", got)
	}
	if _, err := first.Retire(s, start, start); err == nil {
		t.Error("the old authority speaks for the new one")
	}
	// A thief of the old key cannot move the end: it is the successor's to say.
	forged := bytes.Clone(s.raw)
	binary.BigEndian.PutUint64(forged[1:], 1<<40)
	body := forged[:len(forged)-ed25519.SignatureSize]
	copy(forged[len(body):], first.Sign(signSuccession, body))
	if _, err := ParseSuccession(forged); err == nil || !strings.Contains(err.Error(), "not signed") {
		t.Errorf("signed by the old one: %v", err)
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "over-long": make([]byte, overlay.MaxRootStatement+1), "zeros": make([]byte, 1000), "a tail": append(bytes.Clone(s.raw), 0), "cut": s.raw[:len(s.raw)-1],
	} {
		if _, err := ParseSuccession(raw); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "two firsts": append(first.CertPEM(), first.CertPEM()...), "only a statement": encodePEM(blockSuccession, s.raw), "something": []byte("home"),
		"no certificate": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "a gap": append(other.CertPEM(), encodePEM(blockSuccession, s.raw)...),
		"a limited issuer": encodePEM(blockCertificate, stolen.chain[0]), "what another has signed": encodePEM(blockCertificate, s.cross.Raw),
	} {
		if _, err := ParseRoots(text); err == nil {
			t.Errorf("roots of %s are read", name)
		}
	}
}

func TestMutatedSuccessionsAreNeverAccepted(t *testing.T) {
	const seed = 5
	first := newCATest(t, "lab")
	_, s := succeedTest(t, first, start)
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 20_000 {
		raw := bytes.Clone(s.raw)
		for range 1 + rng.IntN(3) {
			raw[rng.IntN(len(raw))] = byte(rng.Uint32())
		}
		if _, err := ParseSuccession(raw); err == nil && !bytes.Equal(raw, s.raw) {
			t.Fatalf("seed %d, round %d: %x is read", seed, i, raw)
		}
	}
}

func TestRootsAreBoundedAndRemembered(t *testing.T) {
	ca := newCATest(t, "lab")
	r := rootsTest(t, ca.CertPEM())
	var keys [][32]byte
	for i := range maxRoots + 3 {
		next, s := succeedTest(t, ca, start.Add(time.Duration(i)*time.Hour))
		r = rootsTest(t, r.Text(), s)
		ca, keys = next, append(keys, s.Key())
	}
	if len(r.all) != maxRoots || r.Newest() != keys[len(keys)-1] || r.all[0].key != keys[len(keys)-maxRoots] || len(r.Successions()) != maxRoots-1 {
		t.Errorf("%d remembered", len(r.all))
	}
	if again := rootsTest(t, r.Text()); !bytes.Equal(again.Text(), r.Text()) || again.Mesh() != "lab" {
		t.Error("the text is read otherwise than it was written")
	}
	if _, _, err := ca.Succeed(start.Add(1e6*time.Hour), time.Hour); err == nil {
		t.Error("an authority whose time is over names a successor")
	}
}

// What an earlier version signed is read as it was meant. The keys are gone.
func TestGoldenRoots(t *testing.T) {
	text := golden(t, "roots.pem")
	r := rootsTest(t, text)
	if !bytes.Equal(r.Text(), text) || r.Mesh() != "golden.example" {
		t.Error("the text is written otherwise than before")
	}
	status := r.Status(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	if len(status) != 2 || !status[1].Retires.Equal(time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)) || !status[1].Retired || status[0].Retired {
		t.Errorf("%+v", status)
	}
	s := r.Last()
	if s.Serial != 1767326645 || hex.EncodeToString(s.root.key[:]) != string(bytes.TrimSpace(golden(t, "roots.key"))) {
		t.Errorf("serial %d, key %x", s.Serial, s.root.key)
	}
	for i := range 8 * len(s.raw) {
		raw := bytes.Clone(s.raw)
		raw[i/8] ^= 1 << (i % 8)
		if _, err := ParseSuccession(raw); err == nil {
			t.Fatalf("with bit %d flipped it is read", i)
		}
	}
}

func FuzzParseSuccession(f *testing.F) {
	ca, err := NewCA("lab", start, 1<<40)
	if err != nil {
		f.Fatal(err)
	}
	_, s := succeedTest(f, ca, start)
	f.Add(s.raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := ParseSuccession(raw); err == nil && !bytes.Equal(got.Bytes(), raw) {
			t.Fatalf("%x is read as %x", raw, got.Bytes())
		}
	})
}
