package pki

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"slicewire/overlay"
)

// Bounds of what a Verifier reads and keeps.
const (
	MaxChain       = 4        // certificates in a chain, the root not counted
	MaxCertificate = 16 << 10 // bytes of DER
	maxVerified    = 1024     // chains remembered
	maxUnixTime    = 253402300799
)

// ErrNotValid says that a chain is good, but not at the time asked about.
var ErrNotValid = errors.New("certificate not valid at this time")

// ErrUnknownRoot says that a chain leads to no authority that is trusted, perhaps
// to one that came later.
var ErrUnknownRoot = errors.New("no authority that this node knows")

// A Verifier tells which certificates a mesh's authorities have issued and what
// these allow. It remembers the chains that it has verified, at most maxVerified
// of them, but judges their validity anew each time. It may be used concurrently.
type Verifier struct {
	revoked atomic.Pointer[revoked]
	clock   atomic.Pointer[Clock] // see Follow

	mu       sync.Mutex // guards what follows
	roots    *Roots
	verified map[[32]byte]verified // by these roots
	order    [][32]byte            // of verified, oldest first
}

// verified is what a chain came to. The times in authority are the common part
// of the validity of every certificate in the chain, the root's too.
type verified struct {
	authority overlay.Authority
	key       ed25519.PublicKey
	keys      [][32]byte // KeySum of every certificate's but a root's
	root      [32]byte   // KeySum of the root's
}

// NewVerifier trusts the authorities in rootsPEM, as Roots.Text has them, for the
// named mesh.
func NewVerifier(mesh string, rootsPEM []byte) (*Verifier, error) {
	roots, err := ParseRoots(rootsPEM)
	if err != nil {
		return nil, fmt.Errorf("authorities of mesh %s: %w", mesh, err)
	}
	if roots.mesh != mesh {
		return nil, fmt.Errorf("authority of mesh %q, want %q", roots.mesh, mesh)
	}
	return &Verifier{roots: roots, verified: make(map[[32]byte]verified)}, nil
}

// Roots returns the authorities that are trusted.
func (v *Verifier) Roots() *Roots {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.roots
}

// SetRoots states which authorities are trusted, whole. They are of the same mesh.
func (v *Verifier) SetRoots(r *Roots) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.roots, v.order = r, nil
	clear(v.verified)
}

// Root returns the KeySum of the authority on which a chain hangs, whatever the
// time and whatever is revoked.
func (v *Verifier) Root(chain [][]byte) ([32]byte, error) {
	c, _, err := v.resolve(chain)
	return c.root, err
}

// Authority verifies a chain (DER, leaf first, without the root) and returns
// what its leaf allows: a node's certificate, or, when Issuer is set, one that
// signs others. A root's own chain is the root alone, or its certificate by the
// root before it. The error wraps overlay.RefusedRevoked if the chain is void,
// overlay.RefusedRetired if its root is retired, overlay.RefusedFork if it hangs on
// a second successor of an authority, and ErrNotValid if only the time
// is wrong; the authority is then returned all the same.
func (v *Verifier) Authority(chain [][]byte, now time.Time) (overlay.Authority, error) {
	c, roots, err := v.resolve(chain)
	if err != nil {
		return overlay.Authority{}, err
	}
	if err := v.revoked.Load().check(&c); err != nil {
		return c.authority, err
	}
	if err := roots.check(c.authority.ID, c.root, now); err != nil {
		return c.authority, err
	}
	a := c.authority
	if clock := v.clock.Load(); now.Before(a.NotBefore) && !clock.excuses(a.NotBefore.Sub(now)) || !now.Before(a.NotAfter) {
		return a, fmt.Errorf("%v, valid %v to %v: %w", a.ID, a.NotBefore, a.NotAfter, ErrNotValid)
	}
	return a, nil
}

// Signed reports whether sig is the signature of message for domain by the leaf
// of the chain. It asks whether the chain is trusted and not revoked, but not
// for the time: that is Authority's part.
func (v *Verifier) Signed(chain [][]byte, domain string, message, sig []byte) bool {
	c, _, err := v.resolve(chain)
	return err == nil && v.revoked.Load().check(&c) == nil &&
		len(sig) == ed25519.SignatureSize && ed25519.Verify(c.key, separated(domain, message), sig)
}

// resolve returns what the chain comes to, from memory if it was verified before,
// and by which roots.
func (v *Verifier) resolve(chain [][]byte) (verified, *Roots, error) {
	if len(chain) == 0 || len(chain) > MaxChain {
		return verified{}, nil, fmt.Errorf("chain of %d certificates, want 1 to %d", len(chain), MaxChain)
	}
	fingerprint, err := chainFingerprint(chain)
	if err != nil {
		return verified{}, nil, err
	}
	v.mu.Lock()
	roots := v.roots
	c, ok := v.verified[fingerprint]
	v.mu.Unlock()
	if ok {
		return c, roots, nil
	}
	if c, err = roots.verify(chain); err != nil {
		return verified{}, nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, again := v.verified[fingerprint]; !again && v.roots == roots {
		if len(v.order) >= maxVerified {
			delete(v.verified, v.order[0])
			v.order = v.order[1:]
		}
		v.verified[fingerprint] = c
		v.order = append(v.order, fingerprint)
	}
	return c, roots, nil
}

// chainFingerprint names a whole chain: the same leaf may come with another
// intermediate, which lives longer or shorter.
func chainFingerprint(chain [][]byte) (sum [32]byte, err error) {
	h := sha256.New()
	for _, der := range chain {
		if len(der) > MaxCertificate {
			return sum, fmt.Errorf("certificate of %d bytes, at most %d", len(der), MaxCertificate)
		}
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(der))))
		h.Write(der)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// verify follows the chain from the leaf to a root. Each certificate must be
// signed by the next, the last by a root or be one, and a node's be within the
// limits of every issuer; who is limited makes no other issuers. There is no
// search for other ways.
func (r *Roots) verify(chain [][]byte) (verified, error) {
	leaf, authority, err := parseHolder(chain[0])
	if err != nil {
		return verified{}, err
	}
	if authority.Mesh != r.mesh {
		return verified{}, fmt.Errorf("certificate of %v for mesh %q, want %q", authority.ID, authority.Mesh, r.mesh)
	}
	c := verified{authority: authority, key: leaf.PublicKey.(ed25519.PublicKey)}
	own := r.holds(chain[len(chain)-1])
	if own >= 0 && len(chain) == 1 {
		root := r.all[own].cert
		c.authority.Issuer.Root, c.root = true, r.all[own].key
		c.authority.NotBefore, c.authority.NotAfter, c.authority.Enrolled = root.NotBefore, root.NotAfter, root.NotBefore
		return c, nil
	}
	candidates := slices.Backward(r.all)
	if own >= 0 {
		chain, candidates = chain[:len(chain)-1], slices.Backward(r.all[own:own+1])
	}
	c.keys = append(c.keys, KeySum(leaf))
	below, intermediates := leaf, 0
	for _, der := range chain[1:] {
		issuer, limits, err := parseAuthorityCert(der)
		if err != nil {
			return verified{}, err
		}
		if limits.Mesh != r.mesh {
			return verified{}, fmt.Errorf("intermediate authority for mesh %q, want %q", limits.Mesh, r.mesh)
		}
		if below.IsCA {
			intermediates++
		}
		if err := issued(issuer, below, intermediates); err != nil {
			return verified{}, err
		}
		if below.IsCA && len(limits.Issuer.Sites) != 0 {
			return verified{}, fmt.Errorf("certificate of %v: an issuer made by %v, which is limited", authority.ID, limits.ID)
		}
		if authority.Issuer == nil {
			if err := limits.Covers(authority); err != nil {
				return verified{}, err
			}
		}
		narrow(&c.authority, issuer)
		c.keys = append(c.keys, KeySum(issuer))
		below = issuer
	}
	if below.IsCA {
		intermediates++
	}
	for _, root := range candidates {
		if err = issued(root.cert, below, intermediates); err == nil {
			if r.forks(root.key, below) {
				return verified{}, fmt.Errorf("certificate of %v: %w", authority.ID, ErrFork)
			}
			narrow(&c.authority, root.cert)
			c.root = root.key
			return c, nil
		}
	}
	return verified{}, fmt.Errorf("certificate of %v: issued by %w of mesh %s: %w", authority.ID, ErrUnknownRoot, r.mesh, err)
}

// issued checks that issuer signed below, with the given number of
// intermediates underneath issuer.
func issued(issuer, below *x509.Certificate, intermediates int) error {
	if string(below.RawIssuer) != string(issuer.RawSubject) {
		return errors.New("issuer's name differs")
	}
	if issuer.MaxPathLen >= 0 && intermediates > issuer.MaxPathLen {
		return fmt.Errorf("%d intermediates under an authority that allows %d", intermediates, issuer.MaxPathLen)
	}
	return below.CheckSignatureFrom(issuer)
}

// narrow cuts the authority's validity to that of an issuer.
func narrow(a *overlay.Authority, issuer *x509.Certificate) {
	if issuer.NotBefore.After(a.NotBefore) {
		a.NotBefore = issuer.NotBefore
	}
	if issuer.NotAfter.Before(a.NotAfter) {
		a.NotAfter = issuer.NotAfter
	}
}

// parseHolder reads a certificate of either kind.
func parseHolder(der []byte) (*x509.Certificate, overlay.Authority, error) {
	cert, err := parseStrict(der)
	if err != nil {
		return nil, overlay.Authority{}, err
	}
	if cert.IsCA {
		return parseAuthorityCert(der)
	}
	return parseNodeCert(der)
}

// parseAuthorityCert reads the certificate of an authority, root or not, and
// what it may issue.
func parseAuthorityCert(der []byte) (*x509.Certificate, overlay.Authority, error) {
	var a overlay.Authority
	cert, err := parseStrict(der)
	if err != nil {
		return nil, a, err
	}
	mesh := cert.URIs[0].Host
	switch {
	case !overlay.ValidDNSName(mesh) || cert.URIs[0].String() != authorityURI(mesh).String():
		return nil, a, fmt.Errorf("authority name %q: want %s://mesh/", cert.URIs[0], scheme)
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return nil, a, fmt.Errorf("certificate of mesh %s: may not issue certificates", mesh)
	}
	sum := KeySum(cert)
	a = overlay.Authority{
		Mesh: mesh, ID: overlay.NodeID{Node: overlay.IssuerName(sum)},
		NotBefore: cert.NotBefore, NotAfter: cert.NotAfter, Enrolled: cert.NotBefore, Issuer: &overlay.Issuer{},
	}
	value, err := only(cert, oidScope)
	if err != nil || value == nil {
		return cert, a, err
	}
	a.Issuer.Sites, a.Grants, err = decodeScope(value)
	return cert, a, err
}

// only returns the value of the extension of that name, nil if there is none.
func only(cert *x509.Certificate, id asn1.ObjectIdentifier) (value []byte, err error) {
	for _, x := range cert.Extensions {
		if !x.Id.Equal(id) {
			continue
		}
		if value != nil {
			return nil, fmt.Errorf("certificate of %s: extension %v twice", cert.URIs[0], id)
		}
		value = append([]byte{}, x.Value...)
	}
	return value, nil
}

// parseNodeCert reads a node's certificate and what it allows.
func parseNodeCert(der []byte) (*x509.Certificate, overlay.Authority, error) {
	var a overlay.Authority
	cert, err := parseStrict(der)
	if err != nil {
		return nil, a, err
	}
	if a.Mesh, a.ID, err = parseNodeURI(cert.URIs[0]); err != nil {
		return nil, a, err
	}
	switch {
	case cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature:
		return nil, a, fmt.Errorf("certificate of %v: key usage %b is not a node's", a.ID, cert.KeyUsage)
	case len(cert.Subject.Names) != 0:
		return nil, a, fmt.Errorf("certificate of %v: extra name %q", a.ID, cert.Subject)
	}
	value, err := only(cert, oidAuthority)
	if err != nil {
		return nil, a, err
	}
	if value == nil {
		return nil, a, fmt.Errorf("certificate of %v: no authority extension", a.ID)
	}
	if a.Gateway, a.Index, a.Grants, err = decodeAuthority(value); err != nil {
		return nil, a, fmt.Errorf("certificate of %v: %w", a.ID, err)
	}
	if a.Enrolled, err = enrolled(cert); err != nil {
		return nil, a, fmt.Errorf("certificate of %v: %w", a.ID, err)
	}
	a.NotBefore, a.NotAfter = cert.NotBefore, cert.NotAfter
	return cert, a, nil
}

// enrolled returns when the holder of a node's certificate was let in.
func enrolled(cert *x509.Certificate) (time.Time, error) {
	value, err := only(cert, oidEnrolled)
	if err != nil || value == nil {
		return cert.NotBefore, err
	}
	var seconds int64
	rest, err := asn1.Unmarshal(value, &seconds)
	if err != nil || len(rest) != 0 || seconds <= 0 || seconds > maxUnixTime {
		return time.Time{}, fmt.Errorf("time of enrolment %x: not one (%w)", value, cmp.Or(err, errAuthority))
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// parseStrict reads a certificate as this package makes them: an Ed25519 key,
// an Ed25519 signature, one URI and no other alternative name.
func parseStrict(der []byte) (*x509.Certificate, error) {
	if len(der) > MaxCertificate {
		return nil, fmt.Errorf("certificate of %d bytes, at most %d", len(der), MaxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	_, ok := cert.PublicKey.(ed25519.PublicKey)
	switch {
	case !ok || cert.SignatureAlgorithm != x509.PureEd25519:
		return nil, fmt.Errorf("certificate with a %v key, signed by %v: want Ed25519", cert.PublicKeyAlgorithm, cert.SignatureAlgorithm)
	case len(cert.URIs) != 1:
		return nil, fmt.Errorf("certificate with %d URIs, want one", len(cert.URIs))
	}
	for _, id := range cert.UnhandledCriticalExtensions {
		if !id.Equal(oidScope) || !cert.IsCA {
			return nil, fmt.Errorf("certificate: unknown critical extension %v", id)
		}
	}
	// Names of kinds that crypto/x509 does not report count as well.
	names, err := onlyURI(cert.URIs[0])
	if err != nil {
		return nil, fmt.Errorf("certificate: name %q: %w", cert.URIs[0], err)
	}
	for _, x := range cert.Extensions {
		if x.Id.Equal(oidAltName) && !bytes.Equal(x.Value, names) {
			return nil, fmt.Errorf("certificate: names beside %q", cert.URIs[0])
		}
	}
	return cert, nil
}
