package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"slicewire/overlay"
)

// maxRoots bounds how many authorities are remembered: the present one and those
// before it. Retired ones are kept to say what became of them.
const maxRoots = 8

// blockSuccession is the PEM block of a succession in a text of roots.
const blockSuccession = "SLICEWIRE SUCCESSION"

var (
	// ErrStranger says that a succession leads from no authority that is trusted.
	ErrStranger = errors.New("the authority before is none that is trusted")
	// ErrFork says that an authority has named two successors: whoever holds its
	// key besides its owner did. The first that was heard of counts.
	ErrFork = fmt.Errorf("%w: the authority before has another successor already", overlay.RefusedFork)
)

// Roots are the authorities that a node trusts: one that it was given, and those
// that came after it, each certified by the one before. All but the last may be
// retired. Roots are not changed after they are made.
//
// As text they are the first one's certificate and a succession for each other
// one, all in PEM: whoever trusts the first can check it all.
type Roots struct {
	mesh string
	all  []root // 1 to maxRoots
}

// root is one authority.
type root struct {
	cert *x509.Certificate
	key  [32]byte
	came *Succession // nil: the first
}

// ParseRoots reads what Text wrote, or a single certificate.
func ParseRoots(text []byte) (*Roots, error) {
	var r *Roots
	for len(bytes.TrimSpace(text)) > 0 {
		block, rest := pem.Decode(text)
		text = rest
		switch {
		case block != nil && block.Type == blockCertificate && r == nil:
			first, err := parseRoot(block.Bytes)
			if err != nil {
				return nil, err
			}
			r = &Roots{mesh: first.cert.URIs[0].Host, all: []root{first}}
		case block != nil && block.Type == blockSuccession && r != nil:
			s, err := ParseSuccession(block.Bytes)
			if err != nil {
				return nil, err
			}
			if r, err = r.Add(s); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("authorities: want one PEM block %q and then blocks %q only", blockCertificate, blockSuccession)
		}
	}
	if r == nil {
		return nil, fmt.Errorf("authorities: no PEM block %q", blockCertificate)
	}
	return r, nil
}

// Text returns the roots in PEM.
func (r *Roots) Text() []byte {
	out := encodePEM(blockCertificate, r.all[0].cert.Raw)
	for _, x := range r.all[1:] {
		out = append(out, encodePEM(blockSuccession, x.came.raw)...)
	}
	return out
}

// CertPEM returns the newest authority's own certificate.
func (r *Roots) CertPEM() []byte { return encodePEM(blockCertificate, r.all[len(r.all)-1].cert.Raw) }

// Mesh returns the mesh's name.
func (r *Roots) Mesh() string { return r.mesh }

// Add returns the roots with what s says: a successor of the last one, or a later
// statement about one that is known. It returns r itself if s says nothing new.
// The error wraps ErrStranger or ErrFork.
func (r *Roots) Add(s *Succession) (*Roots, error) {
	last := len(r.all) - 1
	for i := range r.all {
		if r.all[i].key != s.root.key {
			continue
		}
		if i == 0 || s.Serial <= r.all[i].came.Serial {
			return r, nil // where the first comes from, or a replay
		}
		if err := r.follows(s, i-1); err != nil {
			return nil, err
		}
		out := r.clone()
		out.all[i] = s.asRoot()
		return out, nil
	}
	if err := r.follows(s, last); err != nil {
		for i := range last {
			if r.follows(s, i) == nil {
				return nil, fmt.Errorf("authority %x: %w", s.root.key[:8], ErrFork)
			}
		}
		return nil, err
	}
	out := r.clone()
	out.all = append(out.all, s.asRoot())
	if len(out.all) > maxRoots {
		out.all = out.all[1:]
		out.all[0].came = nil
	}
	return out, nil
}

func (s *Succession) asRoot() root {
	x := s.root
	x.came = s
	return x
}

// follows checks that the authority before s is the one with number i.
func (r *Roots) follows(s *Succession, i int) error {
	if mesh := s.root.cert.URIs[0].Host; mesh != r.mesh {
		return fmt.Errorf("authority %x of mesh %q, want %q: %w", s.root.key[:8], mesh, r.mesh, ErrStranger)
	}
	if err := issued(r.all[i].cert, s.cross, 1); err != nil {
		return fmt.Errorf("authority %x: %w (%w)", s.root.key[:8], ErrStranger, err)
	}
	return nil
}

func (r *Roots) clone() *Roots {
	return &Roots{mesh: r.mesh, all: append([]root(nil), r.all...)}
}

// A RootStatus says how an authority stands.
type RootStatus struct {
	Key      [32]byte // KeySum
	NotAfter time.Time
	Retires  time.Time // when it is trusted no longer; zero: that is not said
	Retired  bool      // that time has come
}

// Status lists the authorities, the newest first.
func (r *Roots) Status(now time.Time) []RootStatus {
	var out []RootStatus
	for i := len(r.all) - 1; i >= 0; i-- {
		at := r.retires(i)
		out = append(out, RootStatus{
			Key: r.all[i].key, NotAfter: r.all[i].cert.NotAfter.UTC(), Retires: at, Retired: !at.IsZero() && !now.Before(at),
		})
	}
	return out
}

// Knows reports whether a statement is one of those that these roots come from.
func (r *Roots) Knows(statement []byte) bool {
	return slices.ContainsFunc(r.all, func(x root) bool { return x.came != nil && bytes.Equal(x.came.raw, statement) })
}

// Newest returns the KeySum of the authority that comes after all others.
func (r *Roots) Newest() [32]byte { return r.all[len(r.all)-1].key }

// Last returns the latest succession, nil if there was none.
func (r *Roots) Last() *Succession { return r.all[len(r.all)-1].came }

// Successions returns how each authority but the first came to be, in order.
func (r *Roots) Successions() (out []*Succession) {
	for _, x := range r.all[1:] {
		out = append(out, x.came)
	}
	return out
}

// Leads reports whether from, one of the authorities, is to or came before it:
// who trusts from trusts to, by the certificates between them.
func (r *Roots) Leads(from, to [32]byte) bool {
	i, j := r.index(from), r.index(to)
	return i >= 0 && i <= j
}

func (r *Roots) index(key [32]byte) int {
	for i := range r.all {
		if r.all[i].key == key {
			return i
		}
	}
	return -1
}

// retires returns when the authority with number i is trusted no longer.
func (r *Roots) retires(i int) time.Time {
	if i == len(r.all)-1 {
		return time.Time{}
	}
	return r.all[i+1].came.Retires
}

// holds returns the number of the authority whose certificate der is, its own or
// that by the one before; -1 if it is none's.
func (r *Roots) holds(der []byte) int {
	for i, x := range r.all {
		if bytes.Equal(x.cert.Raw, der) || x.came != nil && bytes.Equal(x.came.cross.Raw, der) {
			return i
		}
	}
	return -1
}

// forks reports whether cert, certified by an authority that has a successor, is
// an authority besides: a second successor. It goes no further than to whoever
// it was told to by the one who made it.
func (r *Roots) forks(authority [32]byte, cert *x509.Certificate) bool {
	i := r.index(authority)
	if !cert.IsCA || i == len(r.all)-1 || KeySum(cert) == r.all[i+1].key {
		return false
	}
	_, a, err := parseAuthorityCert(cert.Raw)
	return err == nil && len(a.Issuer.Sites) == 0
}

// check reports whether the authority with that key is trusted at now.
func (r *Roots) check(id overlay.NodeID, key [32]byte, now time.Time) error {
	if at := r.retires(r.index(key)); !at.IsZero() && !now.Before(at) {
		return fmt.Errorf("certificate of %v hangs on the mesh's authority %x, which was retired at %s: %w",
			id, key[:8], at.Format(time.RFC3339), overlay.RefusedRetired)
	}
	return nil
}
