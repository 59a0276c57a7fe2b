package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"slicewire/overlay"
)

// maxPathLen leaves room below the mesh's root for a successor signed by it
// and for an intermediate that signs nodes.
const maxPathLen = 2

// backdate is how much earlier than now certificates begin, for nodes whose
// clock is a little behind.
const backdate = 10 * time.Minute

// PEM block types.
const (
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
	blockRequest     = "CERTIFICATE REQUEST"
)

// A CA is a mesh's certificate authority with its private key.
type CA struct {
	mesh string
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// NewCA makes an authority for the named mesh (a DNS name), valid from shortly
// before now for life.
func NewCA(mesh string, now time.Time, life time.Duration) (*CA, error) {
	if !overlay.ValidDNSName(mesh) {
		return nil, fmt.Errorf("mesh name %q: not a DNS name", mesh)
	}
	if life <= 0 {
		return nil, fmt.Errorf("lifetime %v of the mesh authority: must be positive", life)
	}
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key of the mesh authority: %w", err)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "slicewire mesh " + mesh},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(life),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            maxPathLen,
		URIs:                  []*url.URL{authorityURI(mesh)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, pub, key)
	if err != nil {
		return nil, fmt.Errorf("certificate of the mesh authority: %w", err)
	}
	return newCA(der, key)
}

// LoadCA reads back what CertPEM and KeyPEM gave.
func LoadCA(certPEM, keyPEM []byte) (*CA, error) {
	chain, err := decodeChain(certPEM)
	if err != nil {
		return nil, fmt.Errorf("mesh authority: %w", err)
	}
	if len(chain) != 1 {
		return nil, fmt.Errorf("mesh authority: %d certificates, want 1", len(chain))
	}
	key, err := decodeKey(keyPEM)
	if err != nil {
		return nil, fmt.Errorf("mesh authority: %w", err)
	}
	return newCA(chain[0], key)
}

func newCA(der []byte, key ed25519.PrivateKey) (*CA, error) {
	cert, a, err := parseAuthorityCert(der)
	if err != nil {
		return nil, err
	}
	if !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey) {
		return nil, errors.New("mesh authority: the key is not the certificate's")
	}
	return &CA{mesh: a.Mesh, cert: cert, key: key}, nil
}

// Mesh returns the mesh's name.
func (ca *CA) Mesh() string { return ca.mesh }

// CertPEM returns the authority's certificate, which is public.
func (ca *CA) CertPEM() []byte { return encodePEM(blockCertificate, ca.cert.Raw) }

// KeyPEM returns the authority's private key (PKCS #8).
func (ca *CA) KeyPEM() ([]byte, error) { return encodeKey(ca.key) }

// A Subject is what a certificate says of a node. It is the authority's
// decision; no part of it is taken from the node's request.
type Subject struct {
	ID      overlay.NodeID
	Gateway bool
	Index   int             // the node's number within its site
	Grants  []overlay.Grant // in any order; sorted in the certificate
	// Enrolled is when the node was let in, for a renewal: the certificate is void
	// with those before it. Zero: now, for a node that is let in anew.
	Enrolled time.Time
}

// Issue certifies the key in requestPEM (see NewRequest) for a node, from
// shortly before now for life, but no longer than the authority itself lives.
// It returns the chain in PEM, leaf first.
func (ca *CA) Issue(requestPEM []byte, s Subject, now time.Time, life time.Duration) ([]byte, error) {
	pub, err := RequestKey(requestPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", s.ID, err)
	}
	return ca.issue(pub, s, now, life)
}

// RequestKey returns the public key in a request whose maker has the private one.
func RequestKey(requestPEM []byte) (ed25519.PublicKey, error) {
	block, rest := pem.Decode(requestPEM)
	if block == nil || block.Type != blockRequest || len(rest) != 0 {
		return nil, fmt.Errorf("want one PEM block %q", blockRequest)
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	pub, ok := request.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("request with a %v key, want Ed25519", request.PublicKeyAlgorithm)
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("proof of possession: %w", err)
	}
	return pub, nil
}

func (ca *CA) issue(pub ed25519.PublicKey, s Subject, now time.Time, life time.Duration) ([]byte, error) {
	if !overlay.ValidLabel(s.ID.Site) || !overlay.ValidLabel(s.ID.Node) {
		return nil, fmt.Errorf("certificate for %v: site and node must be DNS labels", s.ID)
	}
	if life <= 0 || !now.Before(ca.cert.NotAfter) {
		return nil, fmt.Errorf("certificate for %v: no lifetime left (%v, authority until %v)", s.ID, life, ca.cert.NotAfter)
	}
	value, err := encodeAuthority(s.Gateway, s.Index, sortGrants(s.Grants))
	if err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", s.ID, err)
	}
	enrolled := s.Enrolled
	if enrolled.IsZero() {
		enrolled = now
	}
	since, err := asn1.Marshal(enrolled.Unix())
	if err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", s.ID, err)
	}
	end := now.Add(life)
	if end.After(ca.cert.NotAfter) {
		end = ca.cert.NotAfter
	}
	template := &x509.Certificate{ // an empty subject: the URI is the only name
		NotBefore:             now.Add(-backdate),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{nodeURI(ca.mesh, s.ID)},
		ExtraExtensions:       []pkix.Extension{{Id: oidAuthority, Value: value}, {Id: oidEnrolled, Value: since}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, pub, ca.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %v: %w", s.ID, err)
	}
	return encodePEM(blockCertificate, der), nil
}
