package overlay

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Revocation says which certificates are void: those of one node, or all that
// one key has signed. It names nodes and keys and never the bytes of a
// certificate, which a thief could have made anew.
type Revocation struct {
	Node  NodeID    // whose certificates, if Key is zero
	Until time.Time // of a node: those enrolled up to then, whenever they were renewed
	Key   [32]byte  // SHA-256 of a public key: its certificate and those signed with it
}

// Record returns the revocation as a record, which has no origin and no
// lifetime yet. Its version is its time, so that of two revocations of one node
// by one issuer the later counts.
func (r Revocation) Record() Record {
	rec := Record{Key: Key{Kind: KindRevocation}, Revocation: &RevocationBody{}}
	if r.Key != ([32]byte{}) {
		rec.Key.Name = hex.EncodeToString(r.Key[:])
		rec.Version = Version{Epoch: 1}
		return rec
	}
	rec.Key.Name = r.Node.String()
	rec.Revocation.Until = r.Until.UTC().Truncate(time.Second)
	rec.Version = Version{Epoch: uint64(max(rec.Revocation.Until.Unix(), 0))}
	return rec
}

// RevocationOf returns what a record revokes; false if it is no revocation.
func RevocationOf(rec Record) (Revocation, bool) {
	var r Revocation
	if rec.Key.Kind != KindRevocation || rec.Deleted || rec.Revocation == nil || rec.Key.Slice != "" {
		return r, false
	}
	site, node, isNode := strings.Cut(rec.Key.Name, "/")
	if isNode {
		r.Node, r.Until = NodeID{site, node}, rec.Revocation.Until
		return r, ValidLabel(site) && ValidLabel(node) && r.Until.Unix() > 0
	}
	key, err := hex.DecodeString(rec.Key.Name)
	if err != nil || len(key) != len(r.Key) || hex.EncodeToString(key) != rec.Key.Name || !rec.Revocation.Until.IsZero() {
		return r, false
	}
	r.Key = [32]byte(key)
	return r, r.Key != ([32]byte{})
}

// permitsRevocation checks a record of an issuer: it revokes nodes of the sites
// that it certifies, and only a root revokes keys, so that no two issuers can
// revoke each other. A revocation is never taken back.
func (a Authority) permitsRevocation(rec Record) error {
	if a.Issuer == nil {
		return fmt.Errorf("revocation by %v, which is no issuer: %w", a.ID, RefusedIssuer)
	}
	if rec.Key.Kind != KindRevocation {
		return fmt.Errorf("record of kind %d by an issuer: %w", rec.Key.Kind, RefusedKind)
	}
	if err := onlyBody(rec); err != nil {
		return err
	}
	r, ok := RevocationOf(rec)
	switch {
	case rec.Deleted:
		return fmt.Errorf("revocation of %q taken back: %w", rec.Key.Name, RefusedBody)
	case !ok:
		return fmt.Errorf("revocation of %q: %w", rec.Key.Name, RefusedName)
	case r.Key != ([32]byte{}) && !a.Issuer.Root:
		return fmt.Errorf("revocation of a key by %v: %w", a.ID, RefusedIssuer)
	case r.Key == ([32]byte{}) && !a.Certifies(r.Node.Site):
		return fmt.Errorf("revocation of %v by %v: %w", r.Node, a.ID, RefusedIssuer)
	}
	return nil
}

// permitsRoot checks the record of an authority that comes after another. It
// speaks of itself, and neither node nor limited issuer can be one. What the
// statement says is checked by who trusts authorities. It is never taken back.
func (a Authority) permitsRoot(rec Record) error {
	if a.Issuer == nil || len(a.Issuer.Sites) != 0 {
		return fmt.Errorf("an authority of the mesh named by %v, which is none: %w", a.ID, RefusedIssuer)
	}
	if err := onlyBody(rec); err != nil {
		return err
	}
	key, err := hex.DecodeString(rec.Key.Name)
	switch {
	case rec.Deleted:
		return fmt.Errorf("authority %q taken back: %w", rec.Key.Name, RefusedBody)
	case rec.Key.Slice != "" || err != nil || len(key) != 32 || hex.EncodeToString(key) != rec.Key.Name || IssuerName([32]byte(key)) != a.ID.Node:
		return fmt.Errorf("authority %q named by %v: %w", rec.Key.Name, a.ID, RefusedName)
	case len(rec.Root.Statement) == 0 || len(rec.Root.Statement) > MaxRootStatement:
		return fmt.Errorf("authority %q with a statement of %d bytes: %w", rec.Key.Name, len(rec.Root.Statement), RefusedTooMany)
	}
	return nil
}

// IssuerName returns how the holder of a key is called as an origin of records,
// whom certificates name by nothing else; key is the SHA-256 of the public key.
func IssuerName(key [32]byte) string { return "issuer-" + hex.EncodeToString(key[:8]) }

// Certifies reports whether a is an issuer for nodes of the site.
func (a Authority) Certifies(site string) bool {
	return a.Issuer != nil && (len(a.Issuer.Sites) == 0 || slices.Contains(a.Issuer.Sites, site))
}

// Covers reports whether a, a limited issuer's authority, includes everything
// that b, a node's, allows.
func (a Authority) Covers(b Authority) error {
	if !a.Certifies(b.ID.Site) {
		return fmt.Errorf("node %v: its issuer certifies nodes of %s", b.ID, strings.Join(a.Issuer.Sites, ", "))
	}
	if len(a.Issuer.Sites) == 0 {
		return nil
	}
	for _, g := range b.Grants {
		if !a.grants(g.Slice) {
			return fmt.Errorf("node %v on slice %s: its issuer may not grant that slice", b.ID, g.Slice)
		}
		for _, p := range g.Prefixes {
			if !a.granted(g.Slice, p) {
				return fmt.Errorf("node %v on slice %s: its issuer may not grant %v", b.ID, g.Slice, p)
			}
		}
	}
	return nil
}
