package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"time"

	"slicewire/overlay"
)

// A succession is what the next authority of a mesh says of itself and of the
// one before, which has certified it:
//
//	succession = u8 version (1)
//	             u64 serial                     later ones replace earlier ones
//	             i64 seconds since 1970         when the one before is retired; 0: not yet said
//	             u16 length, DER                the next authority's own certificate
//	             u16 length, DER                its certificate by the one before
//	             64 bytes                       signature by the next authority, in the domain signSuccession
//
// Integers are big-endian. Who trusts the one before verifies the second
// certificate, and by its key all the rest. The private key of the one before is
// needed once, to make that certificate, and never again.
const (
	signSuccession    = "slicewire succession v1"
	successionVersion = 1
)

// crossPathLen leaves room below the next authority, as the one before sees it,
// for an intermediate that signs nodes.
const crossPathLen = 1

var errSuccession = errors.New("statement of a successor")

// A Succession says which authority comes after another and how long both are
// trusted. It is not changed after it is made.
type Succession struct {
	Serial  uint64
	Retires time.Time // when the authority before is trusted no longer; zero: not yet said

	root  root // the successor
	cross *x509.Certificate
	raw   []byte
}

// Succeed makes the authority that comes after ca, of the same mesh, valid from
// shortly before now for life, and its first statement, without an end for ca.
// From then on ca's key is needed no more.
func (ca *CA) Succeed(now time.Time, life time.Duration) (*CA, *Succession, error) {
	if !now.Before(ca.cert.NotAfter) {
		return nil, nil, fmt.Errorf("the mesh's authority has ended at %v: it can name no successor", ca.cert.NotAfter)
	}
	next, err := NewCA(ca.mesh, now, life)
	if err != nil {
		return nil, nil, err
	}
	end := next.cert.NotAfter
	if ca.cert.NotAfter.Before(end) {
		end = ca.cert.NotAfter
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: next.cert.Subject.CommonName},
		NotBefore:             next.cert.NotBefore,
		NotAfter:              end,
		KeyUsage:              next.cert.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            crossPathLen,
		URIs:                  []*url.URL{authorityURI(ca.mesh)},
	}
	cross, err := x509.CreateCertificate(rand.Reader, template, ca.cert, next.cert.PublicKey, ca.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate of the next authority by the present one: %w", err)
	}
	s, err := next.state(cross, uint64(max(1, now.Unix())), time.Time{})
	return next, s, err
}

// Retire says anew what s says, with the time at which the authority before ca is
// trusted no longer. s is of ca's own succession.
func (ca *CA) Retire(s *Succession, now, at time.Time) (*Succession, error) {
	if s.root.key != KeySum(ca.cert) {
		return nil, fmt.Errorf("%w: it is another authority's", errSuccession)
	}
	if at.Unix() <= 0 || at.Unix() > maxUnixTime {
		return nil, fmt.Errorf("%w: retired at %v", errSuccession, at)
	}
	return ca.state(s.cross.Raw, max(s.Serial+1, uint64(max(0, now.Unix()))), at)
}

func (ca *CA) state(cross []byte, serial uint64, retires time.Time) (*Succession, error) {
	seconds := int64(0)
	if !retires.IsZero() {
		seconds = retires.Unix()
	}
	b := []byte{successionVersion}
	b = binary.BigEndian.AppendUint64(b, serial)
	b = binary.BigEndian.AppendUint64(b, uint64(seconds))
	for _, der := range [][]byte{ca.cert.Raw, cross} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(der)))
		b = append(b, der...)
	}
	return ParseSuccession(append(b, ca.Sign(signSuccession, b)...))
}

// ParseSuccession reads one succession and checks all of it but whether the
// authority before is one that is trusted: that is for Roots.Add.
func ParseSuccession(raw []byte) (*Succession, error) {
	if len(raw) > overlay.MaxRootStatement {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", errSuccession, len(raw), overlay.MaxRootStatement)
	}
	b, short := raw, false
	take := func(n int) []byte {
		if n > len(b) {
			short = true
			return make([]byte, n)
		}
		out := b[:n]
		b = b[n:]
		return out
	}
	version := take(1)[0]
	s := &Succession{raw: bytes.Clone(raw), Serial: binary.BigEndian.Uint64(take(8))}
	seconds := binary.BigEndian.Uint64(take(8))
	own := take(int(binary.BigEndian.Uint16(take(2))))
	cross := take(int(binary.BigEndian.Uint16(take(2))))
	signed := raw[:len(raw)-len(b)]
	sig := take(ed25519.SignatureSize)
	if short || len(b) != 0 || version != successionVersion || s.Serial == 0 || seconds > maxUnixTime {
		return nil, fmt.Errorf("%w: %d bytes of version %d: malformed", errSuccession, len(raw), version)
	}
	if seconds != 0 {
		s.Retires = time.Unix(int64(seconds), 0).UTC()
	}
	var err error
	if s.root, err = parseRoot(own); err != nil {
		return nil, fmt.Errorf("%w: %w", errSuccession, err)
	}
	if s.cross, err = parseUnlimited(cross); err != nil {
		return nil, fmt.Errorf("%w: %w", errSuccession, err)
	}
	pub := s.root.cert.PublicKey.(ed25519.PublicKey)
	switch {
	case !pub.Equal(s.cross.PublicKey) || s.cross.URIs[0].String() != s.root.cert.URIs[0].String():
		return nil, fmt.Errorf("%w: its certificates are of two authorities", errSuccession)
	case !ed25519.Verify(pub, separated(signSuccession, signed), sig):
		return nil, fmt.Errorf("%w: not signed by the successor", errSuccession)
	}
	return s, nil
}

// Bytes returns the succession as ParseSuccession reads it. The caller does not
// change it.
func (s *Succession) Bytes() []byte { return s.raw }

// Key returns the KeySum of the successor's key.
func (s *Succession) Key() [32]byte { return s.root.key }

// Chain is the successor's certificate by the authority before: with it the
// successor signs for nodes that do not know it yet. The caller does not change it.
func (s *Succession) Chain() [][]byte { return [][]byte{s.cross.Raw} }

// NotAfter is how long who trusts only the authority before can believe it.
func (s *Succession) NotAfter() time.Time { return s.cross.NotAfter.UTC() }

// parseRoot reads an authority's certificate by itself.
func parseRoot(der []byte) (root, error) {
	cert, err := parseUnlimited(der)
	if err != nil {
		return root{}, err
	}
	if err := cert.CheckSignatureFrom(cert); err != nil {
		return root{}, fmt.Errorf("authority's certificate, which it has not signed itself: %w", err)
	}
	return root{cert: cert, key: KeySum(cert)}, nil
}

// parseUnlimited reads the certificate of an authority that may certify anybody.
func parseUnlimited(der []byte) (*x509.Certificate, error) {
	cert, a, err := parseAuthorityCert(der)
	if err == nil && len(a.Issuer.Sites) != 0 {
		err = fmt.Errorf("%v is a limited issuer, not an authority", a.ID)
	}
	return cert, err
}
