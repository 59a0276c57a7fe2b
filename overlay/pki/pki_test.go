package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func prefixes(text ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range text {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func subject() Subject {
	return Subject{
		ID: overlay.NodeID{Site: "worker-1", Node: "gw-a"}, Gateway: true, Index: 3,
		Grants: []overlay.Grant{
			{Slice: "water", Prefixes: prefixes("fd00:1::/56", "10.9.0.0/20")},
			{Slice: "earth", Prefixes: prefixes("10.1.16.0/20")},
		},
	}
}

func newCATest(t *testing.T, mesh string) *CA {
	t.Helper()
	ca, err := NewCA(mesh, start, 1000*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// issueTest makes a key on "the node", has it certified and joins both.
func issueTest(t *testing.T, ca *CA, s Subject, life time.Duration) *Identity {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(request, s, start, life)
	if err != nil {
		t.Fatal(err)
	}
	id, err := LoadIdentity(key, cert)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newVerifierTest(t *testing.T, ca *CA) *Verifier {
	t.Helper()
	v, err := NewVerifier(ca.Mesh(), ca.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestACertificateSaysWhatTheAuthorityDecided(t *testing.T) {
	ca := newCATest(t, "lab.example")
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if ca, err = LoadCA(ca.CertPEM(), key); err != nil {
		t.Fatal(err)
	}
	id := issueTest(t, ca, subject(), time.Hour)
	got, err := newVerifierTest(t, ca).Authority(id.Chain(), start.Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	want := overlay.Authority{
		Mesh: "lab.example", ID: overlay.NodeID{Site: "worker-1", Node: "gw-a"}, Gateway: true, Index: 3,
		NotBefore: start.Add(-backdate), NotAfter: start.Add(time.Hour), Enrolled: start,
		Grants: []overlay.Grant{
			{Slice: "earth", Prefixes: prefixes("10.1.16.0/20")},
			{Slice: "water", Prefixes: prefixes("10.9.0.0/20", "fd00:1::/56")},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %+v\nwant %+v", got, want)
	}
	if n := len(id.Chain()[0]); n > 700 {
		t.Errorf("a certificate with two slices takes %d bytes: a record beside it no longer fits a packet", n)
	}
}

func TestNothingOfTheRequestButItsKeyCounts(t *testing.T) {
	ca := newCATest(t, "lab")
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	greedy := &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"*"},
		URIs: []*url.URL{nodeURI("lab", overlay.NodeID{Site: "other", Node: "other"})},
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, greedy, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Issue(encodePEM(blockRequest, der), subject(), start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	chain, _ := decodeChain(cert)
	got, err := newVerifierTest(t, ca).Authority(chain, start)
	if err != nil || got.ID != subject().ID {
		t.Fatalf("got %v, %v", got.ID, err)
	}
	der[len(der)-1] ^= 1
	if _, err := ca.Issue(encodePEM(blockRequest, der), subject(), start, time.Hour); err == nil {
		t.Error("a request with a broken proof of possession was certified")
	}
	weak, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, _ = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, weak)
	if _, err := ca.Issue(encodePEM(blockRequest, der), subject(), start, time.Hour); err == nil {
		t.Error("an ECDSA key was certified")
	}
}

func TestSubjectsThatAreNeverCertified(t *testing.T) {
	ca := newCATest(t, "lab")
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	for name, change := range map[string]func(*Subject){
		"a site with a slash":        func(s *Subject) { s.ID.Site = "a/b" },
		"no node name":               func(s *Subject) { s.ID.Node = "" },
		"a negative index":           func(s *Subject) { s.Index = -1 },
		"an index beyond the bound":  func(s *Subject) { s.Index = 1 << 16 },
		"a default route":            func(s *Subject) { s.Grants[0].Prefixes = prefixes("0.0.0.0/0") },
		"a default route of IPv6":    func(s *Subject) { s.Grants[0].Prefixes = prefixes("::/0") },
		"a prefix with host bits":    func(s *Subject) { s.Grants[0].Prefixes = prefixes("10.0.0.1/8") },
		"an IPv4-mapped prefix":      func(s *Subject) { s.Grants[0].Prefixes = prefixes("::ffff:10.0.0.0/112") },
		"a slice twice":              func(s *Subject) { s.Grants[1].Slice = s.Grants[0].Slice },
		"a slice name with newlines": func(s *Subject) { s.Grants[0].Slice = "a\nb" },
		"too many slices":            func(s *Subject) { s.Grants = make([]overlay.Grant, maxGrants+1) },
	} {
		t.Run(name, func(t *testing.T) {
			s := subject()
			change(&s)
			if _, err := ca.issue(pub, s, start, time.Hour); err == nil {
				t.Fatal("certified")
			}
		})
	}
	if _, err := ca.issue(pub, subject(), start, 0); err == nil {
		t.Error("certified for no time")
	}
	if _, err := ca.issue(pub, subject(), start.Add(2000*time.Hour), time.Hour); err == nil {
		t.Error("certified beyond the authority's own life")
	}
}

func TestChainsThatAreRefused(t *testing.T) {
	ca := newCATest(t, "lab")
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	value, err := encodeAuthority(true, 1, sortGrants(subject().Grants))
	if err != nil {
		t.Fatal(err)
	}
	good := func() *x509.Certificate {
		return &x509.Certificate{
			NotBefore: start, NotAfter: start.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
			URIs:            []*url.URL{nodeURI("lab", subject().ID)},
			ExtraExtensions: []pkix.Extension{{Id: oidAuthority, Value: value}},
		}
	}
	ext := func(v []byte) []pkix.Extension { return []pkix.Extension{{Id: oidAuthority, Value: v}} }
	altered := func(f func(*derAuthority)) []byte { return derTest(t, f) }
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		ok     bool
	}{
		{"nothing wrong", func(*x509.Certificate) {}, true},
		{"another mesh", func(c *x509.Certificate) { c.URIs = []*url.URL{nodeURI("other", subject().ID)} }, false},
		{"two URIs", func(c *x509.Certificate) {
			c.URIs = append(c.URIs, nodeURI("lab", overlay.NodeID{Site: "x", Node: "y"}))
		}, false},
		{"a DNS name beside", func(c *x509.Certificate) { c.DNSNames = []string{"x"} }, false},
		{"an address beside", func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} }, false},
		{"a subject beside", func(c *x509.Certificate) { c.Subject.CommonName = "root" }, false},
		{"three path elements", func(c *x509.Certificate) { c.URIs[0].Path = "/a/b/c" }, false},
		{"a query", func(c *x509.Certificate) { c.URIs[0].RawQuery = "x=1" }, false},
		{"a user", func(c *x509.Certificate) { c.URIs[0].User = url.User("x") }, false},
		{"another scheme", func(c *x509.Certificate) { c.URIs[0].Scheme = "spiffe" }, false},
		{"upper case", func(c *x509.Certificate) { c.URIs[0].Path = "/A/b" }, false},
		{"a leaf that is an authority", func(c *x509.Certificate) { c.IsCA = true; c.KeyUsage |= x509.KeyUsageCertSign }, false},
		{"no key usage", func(c *x509.Certificate) { c.KeyUsage = 0 }, false},
		{"no authority", func(c *x509.Certificate) { c.ExtraExtensions = nil }, false},
		{"trailing bytes in the authority", func(c *x509.Certificate) { c.ExtraExtensions = ext(append(bytes.Clone(value), 5, 0)) }, false},
		{"an unknown version", func(c *x509.Certificate) { c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Version = 2 })) }, false},
		{"unsorted slices", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Grants[0], d.Grants[1] = d.Grants[1], d.Grants[0] }))
		}, false},
		{"unsorted prefixes", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { p := d.Grants[1].Prefixes; p[0], p[1] = p[1], p[0] }))
		}, false},
		{"a default route", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Grants[0].Prefixes = [][]byte{{0, 0, 0, 0, 0}} }))
		}, false},
		{"host bits", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Grants[0].Prefixes = [][]byte{{8, 10, 0, 0, 1}} }))
		}, false},
		{"33 bits of IPv4", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Grants[0].Prefixes = [][]byte{{33, 10, 0, 0, 1}} }))
		}, false},
		{"a prefix of 3 bytes", func(c *x509.Certificate) {
			c.ExtraExtensions = ext(altered(func(d *derAuthority) { d.Grants[0].Prefixes = [][]byte{{8, 10, 0}} }))
		}, false},
		{"an unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{2, 25, 7}, Critical: true, Value: []byte{5, 0}})
		}, false},
	}
	v := newVerifierTest(t, ca)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := good()
			tt.change(c)
			der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, pub, ca.key)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Authority([][]byte{der}, start.Add(time.Minute)); (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %v", err, tt.ok)
			}
			sig := ed25519.Sign(key, separated("d", []byte("m")))
			if v.Signed([][]byte{der}, "d", []byte("m"), sig) != tt.ok {
				t.Fatal("a signature under a refused chain counts")
			}
		})
	}
	t.Run("a key that is not Ed25519", func(t *testing.T) {
		weak, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		der, err := x509.CreateCertificate(rand.Reader, good(), ca.cert, &weak.PublicKey, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Authority([][]byte{der}, start); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("a stranger's authority of the same name", func(t *testing.T) {
		id := issueTest(t, newCATest(t, "lab"), subject(), time.Hour)
		if _, err := v.Authority(id.Chain(), start); err == nil {
			t.Fatal("accepted")
		}
	})
	t.Run("an alternative name that crypto/x509 does not report", func(t *testing.T) {
		c := good()
		c.URIs = nil
		// SEQUENCE { [6] uri, [2]-free registeredID 1.2.3 }
		uri := nodeURI("lab", subject().ID).String()
		san := append([]byte{0x30, byte(len(uri) + 2 + 4), 0x86, byte(len(uri))}, uri...)
		san = append(san, 0x88, 2, 0x2a, 3)
		c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: oidAltName, Critical: true, Value: san})
		der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, pub, ca.key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v.Authority([][]byte{der}, start); err == nil || !strings.Contains(err.Error(), "names beside") {
			t.Fatalf("error %v", err)
		}
	})
	for name, chain := range map[string][][]byte{"no certificate": nil, "five certificates": make([][]byte, 5), "a huge one": {make([]byte, MaxCertificate+1)}, "rubbish": {{1, 2, 3}}} {
		if _, err := v.Authority(chain, start); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func derTest(t *testing.T, change func(*derAuthority)) []byte {
	t.Helper()
	d := derAuthority{Version: 1, Gateway: true, Index: 1, Grants: []derGrant{
		{Slice: "earth", Prefixes: [][]byte{{20, 10, 1, 16, 0}}},
		{Slice: "water", Prefixes: [][]byte{{20, 10, 9, 0, 0}, {24, 10, 10, 0, 0}}},
	}}
	change(&d)
	return mustDER(t, d)
}

func TestValidityIsJudgedAtEachUse(t *testing.T) {
	ca := newCATest(t, "lab")
	id := issueTest(t, ca, subject(), time.Hour)
	v := newVerifierTest(t, ca)
	for _, tt := range []struct {
		name string
		at   time.Duration
		ok   bool
	}{
		{"too early", -time.Hour, false},
		{"backdated", -backdate, true},
		{"in time", 59 * time.Minute, true},
		{"the very end", time.Hour, false},
		{"in time again", time.Minute, true},
	} {
		_, err := v.Authority(id.Chain(), start.Add(tt.at))
		if (err == nil) != tt.ok || !tt.ok && !errors.Is(err, ErrNotValid) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestAnIntermediateCanSign(t *testing.T) {
	ca := newCATest(t, "lab")
	chainOf := func(depth int, life time.Duration) [][]byte {
		issuer, key := ca.cert, ca.key
		var chain [][]byte
		for i := range depth {
			pub, k, _ := ed25519.GenerateKey(rand.Reader)
			der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
				Subject: pkix.Name{CommonName: "intermediate", SerialNumber: big.NewInt(int64(i)).String()}, NotBefore: start, NotAfter: start.Add(life),
				KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLen: -1, URIs: []*url.URL{authorityURI("lab")},
			}, issuer, pub, key)
			if err != nil {
				t.Fatal(err)
			}
			issuer, _ = x509.ParseCertificate(der)
			key = k
			chain = append([][]byte{der}, chain...)
		}
		sub := &CA{mesh: "lab", cert: issuer, key: key}
		leaf := issueTest(t, sub, subject(), 500*time.Hour).Chain()
		return append(leaf, chain...)
	}
	v := newVerifierTest(t, ca)
	a, err := v.Authority(chainOf(1, time.Hour), start)
	if err != nil {
		t.Fatal(err)
	}
	if !a.NotAfter.Equal(start.Add(time.Hour)) {
		t.Errorf("the leaf outlives its intermediate: until %v", a.NotAfter)
	}
	if _, err := v.Authority(chainOf(2, time.Hour), start); err != nil {
		t.Errorf("two intermediates: %v", err)
	}
	if _, err := v.Authority(chainOf(3, time.Hour), start); err == nil {
		t.Error("three intermediates under an authority that allows two")
	}
	node := issueTest(t, ca, subject(), time.Hour)
	rogue := issueTest(t, &CA{mesh: "lab", cert: mustParse(t, node.chain[0]), key: node.key}, subject(), time.Hour)
	if _, err := v.Authority(append(rogue.Chain(), node.Chain()...), start); err == nil {
		t.Error("a node's certificate issued another")
	}
}

func mustParse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestASignatureIsGoodForOneDomainOnly(t *testing.T) {
	ca := newCATest(t, "lab")
	id := issueTest(t, ca, subject(), time.Hour)
	v := newVerifierTest(t, ca)
	sig := id.Sign("record", []byte("hello"))
	if !v.Signed(id.Chain(), "record", []byte("hello"), sig) {
		t.Fatal("own signature refused")
	}
	if v.Signed(id.Chain(), "member", []byte("hello"), sig) || v.Signed(id.Chain(), "record", []byte("hellO"), sig) || v.Signed(id.Chain(), "record", []byte("hello"), sig[:63]) {
		t.Fatal("signature counts elsewhere")
	}
}

func TestTheVerifierForgetsTheOldest(t *testing.T) {
	ca := newCATest(t, "lab")
	v := newVerifierTest(t, ca)
	pub, _, _ := ed25519.GenerateKey(rand.Reader)
	for range maxVerified + 10 {
		text, err := ca.issue(pub, subject(), start, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		chain, _ := decodeChain(text)
		if _, err := v.Authority(chain, start); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.verified) != maxVerified || len(v.order) != maxVerified {
		t.Fatalf("%d chains remembered in order of %d, want %d", len(v.verified), len(v.order), maxVerified)
	}
}

func TestFilesThatAreRefused(t *testing.T) {
	ca := newCATest(t, "lab")
	caKey, _ := ca.KeyPEM()
	other := newCATest(t, "lab")
	key, _ := NewKey()
	if _, err := LoadCA(other.CertPEM(), caKey); err == nil {
		t.Error("an authority with another's key")
	}
	if _, err := LoadIdentity(key, ca.CertPEM()); err == nil {
		t.Error("an identity with another's key")
	}
	if _, err := LoadIdentity(append(key, key...), ca.CertPEM()); err == nil {
		t.Error("two keys in one file")
	}
	if _, err := NewVerifier("lab", nil); err == nil {
		t.Error("a verifier that trusts nobody")
	}
	if _, err := NewVerifier("other", ca.CertPEM()); err == nil {
		t.Error("a verifier with another mesh's authority")
	}
	if _, err := NewVerifier("lab", append(ca.CertPEM(), "x"...)); err == nil {
		t.Error("trailing text")
	}
	if _, err := NewCA("Not A Name", start, time.Hour); err == nil {
		t.Error("a mesh name that is no DNS name")
	}
	if block, _ := pem.Decode(caKey); block.Type != "PRIVATE KEY" {
		t.Errorf("key block %q", block.Type)
	}
}

func BenchmarkSignedByKnownChain(b *testing.B) {
	ca, _ := NewCA("lab", start, time.Hour)
	key, _ := NewKey()
	request, _ := NewRequest(key)
	cert, err := ca.Issue(request, subject(), start, time.Hour)
	if err != nil {
		b.Fatal(err)
	}
	id, _ := LoadIdentity(key, cert)
	v, _ := NewVerifier("lab", ca.CertPEM())
	message := make([]byte, 300)
	sig := id.Sign("record", message)
	b.ReportAllocs()
	for b.Loop() {
		if !v.Signed(id.Chain(), "record", message, sig) {
			b.Fatal("refused")
		}
	}
}
