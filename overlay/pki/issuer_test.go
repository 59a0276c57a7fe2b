package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

func scopeTest() Scope {
	return Scope{Sites: []string{"worker-2", "worker-1"}, Grants: []overlay.Grant{
		{Slice: "water", Prefixes: prefixes("10.9.0.0/20", "fd00:1::/56")}, {Slice: "water", Prefixes: prefixes("10.9.16.0/20", "fd00:1:0:100::/56")},
		{Slice: "earth", Prefixes: prefixes("10.1.16.0/20")},
	}}
}

func newIssuerTest(t *testing.T, ca *CA, s Scope, life time.Duration) *Issuer {
	t.Helper()
	key, _ := NewKey()
	request, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.IssueIssuer(request, s, start, life)
	if err != nil {
		t.Fatal(err)
	}
	i, err := LoadIssuer(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// unlimited signs with the issuer's key whatever is asked: what a thief would do.
func (i *Issuer) unlimited(t *testing.T, s Subject) [][]byte {
	t.Helper()
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	text, err := i.ca.issue(pub, s, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	leaf, _ := decodeChain(text)
	return append(leaf, i.chain...)
}

func TestAnIssuerCertifiesWithinItsScopeOnly(t *testing.T) {
	ca := newCATest(t, "lab")
	v := newVerifierTest(t, ca)
	issuer := newIssuerTest(t, ca, scopeTest(), 100*time.Hour)
	id := overlay.NodeID{Site: "worker-1", Node: "edge"}
	grant := func(slice string, p ...string) []overlay.Grant {
		return []overlay.Grant{{Slice: slice, Prefixes: prefixes(p...)}}
	}
	for _, tt := range []struct {
		name string
		s    Subject
		ok   bool
	}{
		{"all of a site", subject(), true},
		{"a block of it", Subject{ID: id, Grants: grant("water", "10.9.3.0/24", "fd00:1::/64")}, true},
		{"the other site", Subject{ID: overlay.NodeID{Site: "worker-2", Node: "gw"}, Gateway: true, Grants: grant("water", "10.9.16.0/20")}, true},
		{"nothing", Subject{ID: id}, true},
		{"a site that is not its own", Subject{ID: overlay.NodeID{Site: "worker-3", Node: "gw"}, Grants: grant("water", "10.9.3.0/24")}, false},
		{"a slice that is not its own", Subject{ID: id, Grants: grant("fire", "10.9.3.0/24")}, false},
		{"a prefix outside", Subject{ID: id, Grants: grant("water", "10.9.32.0/24")}, false},
		{"more than the prefix", Subject{ID: id, Grants: grant("water", "10.9.0.0/19")}, false},
		{"another slice's prefix", Subject{ID: id, Grants: grant("earth", "10.9.0.0/24")}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key, _ := NewKey()
			request, _ := NewRequest(key)
			text, err := issuer.Issue(request, tt.s, start, time.Hour)
			if (err == nil) != tt.ok {
				t.Fatalf("issued: %v, want ok %v", err, tt.ok)
			}
			if tt.ok {
				id, err := LoadIdentity(key, text)
				if err != nil {
					t.Fatal(err)
				}
				if a, err := v.Authority(id.Chain(), start); err != nil || a.ID != tt.s.ID || a.Issuer != nil {
					t.Fatalf("%+v, %v", a, err)
				}
			}
			// Not the issuer's good will decides, but everybody who verifies.
			if _, err := v.Authority(issuer.unlimited(t, tt.s), start); (err == nil) != tt.ok {
				t.Fatalf("verified: %v, want ok %v", err, tt.ok)
			}
		})
	}
	a, err := v.Authority(issuer.Chain(), start)
	if err != nil || a.Issuer == nil || a.Issuer.Root || !a.Certifies("worker-1") || a.Certifies("worker-3") || a.ID.Site != "" {
		t.Errorf("the issuer itself: %+v, %v", a, err)
	}
	if a, err = v.Authority(ca.Chain(), start); err != nil || a.Issuer == nil || !a.Issuer.Root || !a.Certifies("worker-3") {
		t.Errorf("the root itself: %+v, %v", a, err)
	}
	if _, err := v.Authority(newCATest(t, "lab").Chain(), start); err == nil {
		t.Error("a stranger's root is one")
	}
	if !v.Signed(issuer.Chain(), "d", []byte("m"), issuer.Sign("d", []byte("m"))) || !v.Signed(ca.Chain(), "d", []byte("m"), ca.Sign("d", []byte("m"))) {
		t.Error("issuers cannot sign")
	}
}

func TestAnIssuerMakesNoIssuers(t *testing.T) {
	ca := newCATest(t, "lab")
	v := newVerifierTest(t, ca)
	first := newIssuerTest(t, ca, scopeTest(), 100*time.Hour)
	second := newIssuerTest(t, &first.ca, scopeTest(), 100*time.Hour)
	second.chain = append(second.chain, first.chain...)
	if _, err := v.Authority(second.Chain(), start); err == nil {
		t.Error("an issuer made by an issuer is believed")
	}
	if _, err := v.Authority(second.unlimited(t, subject()), start); err == nil {
		t.Error("what it issues is believed")
	}
	// Its limits forbid it by themselves, whatever length of path it has.
	value, err := encodeScope(scopeTest().sorted().Sites, scopeTest().sorted().Grants)
	if err != nil {
		t.Fatal(err)
	}
	long := *first.ca.cert
	long.MaxPathLen, long.MaxPathLenZero, long.ExtraExtensions = 2, false, []pkix.Extension{{Id: oidScope, Critical: true, Value: value}}
	der, err := x509.CreateCertificate(rand.Reader, &long, ca.cert, first.ca.cert.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	first.ca.cert = mustParse(t, der)
	third := newIssuerTest(t, &first.ca, scopeTest(), 100*time.Hour)
	if _, err := v.Authority(append(third.chain, der), start); err == nil || !strings.Contains(err.Error(), "limited") {
		t.Errorf("an issuer made by one with a longer path: %v", err)
	}
	if _, err := v.Authority(append(append(third.unlimited(t, subject()), der), first.chain[1:]...), start); err == nil {
		t.Error("what it issues is believed")
	}
	key, _ := NewKey()
	request, _ := NewRequest(key)
	if _, err := ca.IssueIssuer(request, Scope{}, start, time.Hour); err == nil {
		t.Error("an issuer without limits")
	}
	if _, err := ca.IssueIssuer(request, scopeTest(), start.Add(2000*time.Hour), time.Hour); err == nil {
		t.Error("an issuer of an authority that is over")
	}
}

func TestARenewalKeepsTheEnrolment(t *testing.T) {
	ca := newCATest(t, "lab")
	s := subject()
	s.Enrolled = start.Add(-50 * time.Hour)
	a, err := newVerifierTest(t, ca).Authority(issueTest(t, ca, s, time.Hour).Chain(), start)
	if err != nil || !a.Enrolled.Equal(s.Enrolled) {
		t.Errorf("enrolled %v, %v", a.Enrolled, err)
	}
}

func TestWhatIsRevokedIsVoidAtOnce(t *testing.T) {
	ca := newCATest(t, "lab")
	v := newVerifierTest(t, ca)
	issuer := newIssuerTest(t, ca, scopeTest(), 100*time.Hour)
	enrolled := func(at time.Time) [][]byte {
		s := subject()
		s.Enrolled = at
		return issuer.unlimited(t, s)
	}
	old, renewed, again := enrolled(start.Add(-time.Hour)), enrolled(start.Add(-time.Hour)), enrolled(start.Add(time.Second))
	direct := issueTest(t, ca, subject(), time.Hour)
	message := []byte("m")
	sig := direct.Sign("d", message)
	judge := func(what string, chain [][]byte, void bool) {
		t.Helper()
		_, err := v.Authority(chain, start)
		if errors.Is(err, overlay.RefusedRevoked) != void || !void && err != nil {
			t.Errorf("%s: %v, want void %v", what, err, void)
		}
	}
	judge("before", old, false)
	v.Revoke([]overlay.Revocation{{Node: subject().ID, Until: start}, {Node: subject().ID, Until: start.Add(-time.Minute)}, {Node: overlay.NodeID{Site: "worker-2", Node: "gw"}, Until: start.Add(time.Hour)}})
	judge("enrolled before", old, true)
	judge("renewed since", renewed, true)
	judge("enrolled at the very time", direct.Chain(), true)
	judge("let in again", again, false)
	judge("the issuer", issuer.Chain(), false)
	if v.Signed(direct.Chain(), "d", message, sig) {
		t.Error("a revoked node's signature counts")
	}
	if got := v.RevokedUntil(subject().ID); !got.Equal(start) {
		t.Errorf("revoked until %v", got)
	}
	v.Revoke([]overlay.Revocation{{Key: issuer.Key()}})
	judge("a revoked issuer", issuer.Chain(), true)
	judge("what it signed", again, true)
	judge("what the root signed", direct.Chain(), false)
	v.Revoke([]overlay.Revocation{{Key: direct.Key()}, {Key: KeySum(ca.cert)}})
	judge("a node's key", direct.Chain(), true)
	judge("under a root that somebody tried to revoke", old, false)
	v.Revoke(nil)
	judge("nothing revoked", direct.Chain(), false)
}

func TestABadTimeOfEnrolmentIsRefused(t *testing.T) {
	cert := mustParse(t, issueTest(t, newCATest(t, "lab"), subject(), time.Hour).Chain()[0])
	for name, value := range map[string][]byte{"no number": {5, 0}, "negative": {2, 1, 0xff}, "trailing": {2, 1, 1, 0}, "far": mustDER(t, int64(maxUnixTime+1))} {
		c := *cert
		for i := range c.Extensions {
			if c.Extensions[i].Id.Equal(oidEnrolled) {
				c.Extensions = append(c.Extensions[:i:i], c.Extensions[i+1:]...)
				break
			}
		}
		x := cert.Extensions[0]
		x.Id, x.Value = oidEnrolled, value
		c.Extensions = append(c.Extensions, x)
		if _, err := enrolled(&c); err == nil {
			t.Errorf("%s: accepted", name)
		}
		c.Extensions = append(c.Extensions, x)
		if _, err := enrolled(&c); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("%s, twice: %v", name, err)
		}
	}
}

func TestAClockThatWentBackIsHeldToTheProof(t *testing.T) {
	wall := start.AddDate(-10, 0, 0)
	c := NewClock(func() time.Time { return wall })
	if !c.Now().Equal(wall) || c.Behind() {
		t.Errorf("without proof it is %v", c.Now())
	}
	ca := newCATest(t, "lab")
	v := newVerifierTest(t, ca)
	v.Follow(c)
	mine := issueTest(t, ca, subject(), 100*time.Hour)
	if _, err := v.Authority(mine.Chain(), c.Now()); !errors.Is(err, ErrNotValid) {
		t.Fatalf("ten years early: %v", err)
	}
	c.Raise(start)
	c.Raise(start.Add(-time.Hour))
	wall = wall.Add(time.Minute)
	if want := start.Add(time.Minute); !c.Now().Equal(want) || !c.Behind() {
		t.Errorf("it is %v, want %v", c.Now(), want)
	}
	if _, err := v.Authority(mine.Chain(), c.Now()); err != nil {
		t.Errorf("own certificate: %v", err)
	}
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	text, err := ca.issue(pub, subject(), start.Add(50*time.Hour), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	later, _ := decodeChain(text)
	a, err := v.Authority(later, c.Now())
	if err != nil || !a.NotBefore.Equal(start.Add(50*time.Hour-backdate)) {
		t.Errorf("a peer's certificate, renewed since: %v, from %v", err, a.NotBefore)
	}
	text, _ = ca.issue(pub, subject(), start.Add(-2*time.Hour), time.Hour)
	earlier, _ := decodeChain(text)
	if _, err := v.Authority(earlier, c.Now()); !errors.Is(err, ErrNotValid) {
		t.Errorf("a peer's certificate that is over: %v", err)
	}
	// A clock that stood still for a while is not known to be behind.
	wall = start
	still := NewClock(func() time.Time { return wall })
	still.Raise(start.Add(-time.Hour))
	v.Follow(still)
	if _, err := v.Authority(later, still.Now()); err != nil || still.Behind() {
		t.Errorf("two days ahead: %v", err)
	}
	wall = start.Add(-maxAhead)
	v.Follow(NewClock(func() time.Time { return wall }))
	if _, err := v.Authority(later, wall); !errors.Is(err, ErrNotValid) {
		t.Errorf("more than a month ahead: %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	key, _ := NewKey()
	request, _ := NewRequest(key)
	f.Add(request)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		pub, err := RequestKey(in)
		if err == nil && len(pub) != ed25519.PublicKeySize {
			t.Fatalf("a key of %d bytes", len(pub))
		}
	})
}
