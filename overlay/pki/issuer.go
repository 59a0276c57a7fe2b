package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/url"
	"time"

	"slicewire/overlay"
)

// An Issuer signs node certificates and revocations on the authority's behalf,
// within its scope: the authority's own key can then stay offline.
type Issuer struct {
	ca     CA
	limits overlay.Authority
	chain  [][]byte
}

// IssueIssuer certifies the key in requestPEM as an issuer's, from shortly
// before now for life, but no longer than the authority itself lives. It returns
// the chain in PEM.
func (ca *CA) IssueIssuer(requestPEM []byte, s Scope, now time.Time, life time.Duration) ([]byte, error) {
	pub, err := RequestKey(requestPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate for an issuer: %w", err)
	}
	if life <= 0 || !now.Before(ca.cert.NotAfter) {
		return nil, fmt.Errorf("certificate for an issuer: no lifetime left (%v, authority until %v)", life, ca.cert.NotAfter)
	}
	s = s.sorted()
	value, err := encodeScope(s.Sites, s.Grants)
	if err != nil {
		return nil, fmt.Errorf("certificate for an issuer: %w", err)
	}
	end := now.Add(life)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: fmt.Sprintf("slicewire issuer %x", sumOf(pub))},
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{authorityURI(ca.mesh)},
		ExtraExtensions:       []pkix.Extension{{Id: oidScope, Critical: true, Value: value}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for an issuer: %w", err)
	}
	return encodePEM(blockCertificate, der), nil
}

// LoadIssuer joins an issuer's key with its chain. Whether the chain is any good
// is for a Verifier to say.
func LoadIssuer(keyPEM, chainPEM []byte) (*Issuer, error) {
	chain, err := decodeChain(chainPEM)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	cert, limits, err := parseAuthorityCert(chain[0])
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, errors.New("issuer: the key is not the certificate's")
	}
	return &Issuer{ca: CA{mesh: limits.Mesh, cert: cert, key: key}, limits: limits, chain: chain}, nil
}

// Issue is CA.Issue within the issuer's scope. The chain returned includes the
// issuer's own.
func (i *Issuer) Issue(requestPEM []byte, s Subject, now time.Time, life time.Duration) ([]byte, error) {
	if err := i.Permits(s); err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", s.ID, err)
	}
	out, err := i.ca.Issue(requestPEM, s, now, life)
	if err != nil {
		return nil, err
	}
	for _, der := range i.chain {
		out = append(out, encodePEM(blockCertificate, der)...)
	}
	return out, nil
}

// Permits reports whether a subject is within the issuer's scope.
func (i *Issuer) Permits(s Subject) error {
	return i.limits.Covers(overlay.Authority{ID: s.ID, Grants: s.Grants})
}

// Chain returns the certificates in DER, the issuer's own first. The caller does
// not change them.
func (i *Issuer) Chain() [][]byte { return i.chain }

// Sign is Identity.Sign with the issuer's key.
func (i *Issuer) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(i.ca.key, separated(domain, message))
}

// Key returns the KeySum of the issuer's key, by which it is pinned and revoked.
func (i *Issuer) Key() [32]byte { return KeySum(i.ca.cert) }

// Certificate is what the issuer shows as a TLS server: its own certificate, so
// that who pins its key needs to trust nothing else. TLS 1.3 signs under a
// context of its own, which no certificate and no record begins with.
func (i *Issuer) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: i.chain, PrivateKey: i.ca.key}
}

// Chain returns the authority's own chain: its certificate.
func (ca *CA) Chain() [][]byte { return [][]byte{ca.cert.Raw} }

// Sign is Identity.Sign with the authority's key.
func (ca *CA) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(ca.key, separated(domain, message))
}

// Certificate is what a node shows as a TLS client.
func (id *Identity) Certificate() tls.Certificate {
	return tls.Certificate{Certificate: id.chain, PrivateKey: id.key}
}

// Key returns the KeySum of the node's key.
func (id *Identity) Key() [32]byte { return sumOf(id.key.Public().(ed25519.PublicKey)) }

// KeySum names the key of a certificate: the SHA-256 of the bytes of an Ed25519
// public key. Unlike a sum of the certificate it stays the same however the
// certificate is made anew.
func KeySum(cert *x509.Certificate) [32]byte {
	pub, _ := cert.PublicKey.(ed25519.PublicKey) // parseStrict has seen to it
	return sumOf(pub)
}

func sumOf(pub ed25519.PublicKey) [32]byte { return sha256.Sum256(pub) }

// RequestSum returns the KeySum of the key in a request.
func RequestSum(requestPEM []byte) ([32]byte, error) {
	pub, err := RequestKey(requestPEM)
	return sumOf(pub), err
}

// ChainSum returns the KeySum of a chain's leaf.
func ChainSum(chain [][]byte) ([32]byte, error) {
	if len(chain) == 0 {
		return [32]byte{}, errors.New("no certificate")
	}
	cert, err := parseStrict(chain[0])
	if err != nil {
		return [32]byte{}, err
	}
	return KeySum(cert), nil
}
