package overlay

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Refusal says why a record was not accepted. It is an error to branch on
// (errors.As) and, as a string, the name under which refusals are counted.
type Refusal string

// Error returns the reason as a sentence.
func (r Refusal) Error() string { return "refused: " + string(r) }

// The reasons for which a certificate's authority does not cover a record.
const (
	RefusedOrigin   Refusal = "origin"    // speaks for a node that the certificate does not name
	RefusedCertTime Refusal = "cert-time" // the certificate's time is over
	RefusedExpired  Refusal = "expired"   // the record's own lifetime is over
	RefusedLifetime Refusal = "lifetime"  // the record would outlive the certificate
	RefusedKind     Refusal = "kind"      // unknown kind, or a key that the kind does not have
	RefusedBody     Refusal = "body"      // body missing, of another kind, or on a tombstone
	RefusedSlice    Refusal = "slice"     // a slice that the certificate does not grant
	RefusedPrefix   Refusal = "prefix"    // a prefix outside the granted ones, or a default route
	RefusedAddress  Refusal = "address"   // a service address outside the granted prefixes
	RefusedEndpoint Refusal = "endpoint"  // an underlay endpoint that nobody can be reached at
	RefusedName     Refusal = "name"      // a name that is no DNS label or DNS name
	RefusedPort     Refusal = "port"      // a port or protocol that services do not have
	RefusedKey      Refusal = "key"       // a public key of low order
	RefusedTooMany  Refusal = "too-many"  // a list longer than records may have
	RefusedRepeated Refusal = "repeated"  // the same entry twice in one list
	RefusedIssuer   Refusal = "issuer"    // a revocation, or the mesh's next authority, by somebody who may not say it
	RefusedRevoked  Refusal = "revoked"   // the certificate, or that of its issuer, is void
	RefusedRetired  Refusal = "retired"   // the certificate hangs on an authority that is trusted no longer
	RefusedFork     Refusal = "fork"      // the certificate is of a second successor of an authority
)

// Limits of the lists in a record.
const (
	MaxRecordPrefixes  = 64
	MaxRecordEndpoints = 16  // of a node
	MaxRecordBackends  = 256 // of a service
	MaxRecordLost      = 128 // nodes that one gateway says are lost
	MaxRecordPorts     = 64
	MaxRecordAliases   = 16
	MaxRootStatement   = 4 << 10 // bytes
)

// Permits reports whether a may say r at the time now. A refusal wraps one of
// the Refused reasons. What the lists hold must be within the limits above,
// well-formed and without repetition; an empty list says nothing and is fine.
//
// The signature is not its business, nor whether the certificate's time has come
// already: a must come from the certificate whose key signed r, and from a
// verifier, which knows how far the clock can be trusted.
func (a Authority) Permits(r Record, now time.Time) error {
	switch {
	case r.Origin != a.ID:
		return fmt.Errorf("record of %v signed by %v: %w", r.Origin, a.ID, RefusedOrigin)
	case !now.Before(a.NotAfter):
		return fmt.Errorf("certificate of %v at %v: %w", a.ID, now.UTC(), RefusedCertTime)
	case !now.Before(r.NotAfter):
		return fmt.Errorf("record of %v until %v: %w", r.Origin, r.NotAfter.UTC(), RefusedExpired)
	case r.NotAfter.After(a.NotAfter):
		return fmt.Errorf("record of %v until %v: %w", r.Origin, r.NotAfter.UTC(), RefusedLifetime)
	}
	if r.Key.Kind == KindRoot {
		return a.permitsRoot(r)
	}
	if a.Issuer != nil || r.Key.Kind == KindRevocation {
		return a.permitsRevocation(r)
	}
	if err := a.permitsKey(r.Key, r.Deleted); err != nil {
		return err
	}
	if err := onlyBody(r); err != nil || r.Deleted {
		return err
	}
	switch r.Key.Kind {
	case KindNode:
		return permitsEndpoints(r.Node.Endpoints)
	case KindKey:
		k := r.WGKey
		if lowOrder(k.PublicKey) || k.Next != (SliceKey{}) && (lowOrder(k.Next.PublicKey) || k.Next.PublicKey == k.PublicKey || k.Next.Generation <= k.Generation) {
			return fmt.Errorf("WireGuard keys of %v: %w", r.Origin, RefusedKey)
		}
		return nil
	case KindIssuer:
		return permitsEndpoints(r.Issuer.Endpoints)
	case KindLost:
		return a.permitsLost(r.Lost)
	case KindPrefix:
		return a.permitsPrefixes(r.Key.Slice, r.Prefix.Prefixes)
	default:
		if s := r.Service; r.Key.Kind == KindWorkloads && len(s.Ports)+len(s.Aliases) > 0 {
			return fmt.Errorf("workloads of %v with ports or aliases: %w", r.Origin, RefusedBody)
		}
		return a.permitsService(r.Key.Slice, r.Service)
	}
}

// permitsKey checks that the key is one of its kind and its slice granted. A
// tombstone may name a slice that is granted no longer: it takes back only what
// its origin said itself.
func (a Authority) permitsKey(k Key, deleted bool) error {
	switch k.Kind {
	case KindNode, KindIssuer:
		if k.Slice != "" || k.Name != "" {
			return fmt.Errorf("record of kind %d with slice %q, name %q: %w", k.Kind, k.Slice, k.Name, RefusedKind)
		}
		return nil
	case KindKey, KindPrefix, KindLost:
		if k.Name != "" {
			return fmt.Errorf("record of kind %d with name %q: %w", k.Kind, k.Name, RefusedKind)
		}
	case KindService:
		namespace, service, ok := strings.Cut(k.Name, "/")
		if !ok || !ValidLabel(namespace) || !ValidLabel(service) {
			return fmt.Errorf("service %q: %w", k.Name, RefusedName)
		}
	case KindWorkloads:
		if !ValidLabel(k.Name) {
			return fmt.Errorf("namespace %q: %w", k.Name, RefusedName)
		}
	default:
		return fmt.Errorf("record of kind %d: %w", k.Kind, RefusedKind)
	}
	if !ValidLabel(k.Slice) || !deleted && !a.grants(k.Slice) {
		return fmt.Errorf("slice %q: %w", k.Slice, RefusedSlice)
	}
	return nil
}

func (a Authority) grants(slice string) bool {
	for _, g := range a.Grants {
		if g.Slice == slice {
			return true
		}
	}
	return false
}

// onlyBody checks that r has exactly the body of its kind, or none if deleted.
func onlyBody(r Record) error {
	has := [LastKind + 1]bool{
		KindNode: r.Node != nil, KindKey: r.WGKey != nil, KindPrefix: r.Prefix != nil, KindService: r.Service != nil,
		KindRevocation: r.Revocation != nil, KindIssuer: r.Issuer != nil, KindRoot: r.Root != nil, KindLost: r.Lost != nil,
	}
	body := r.Key.Kind
	if body == KindWorkloads {
		body = KindService
	}
	for kind, present := range has {
		if want := Kind(kind) == body && !r.Deleted; present != want {
			return fmt.Errorf("record of kind %d (deleted %v): body of kind %d: %w", r.Key.Kind, r.Deleted, kind, RefusedBody)
		}
	}
	return nil
}

// permitsLost checks what a gateway says of other nodes.
func (a Authority) permitsLost(l *LostBody) error {
	if err := within(len(l.Nodes), MaxRecordLost, "nodes"); err != nil {
		return err
	}
	for i, n := range l.Nodes {
		if !a.Gateway || n == a.ID || !ValidLabel(n.Site) || !ValidLabel(n.Node) {
			return fmt.Errorf("node %v as one that is lost: %w", n, RefusedName)
		}
		if i > 0 && l.Nodes[i-1].String() >= n.String() {
			return fmt.Errorf("node %v as one that is lost: %w", n, RefusedRepeated)
		}
	}
	return nil
}

func permitsEndpoints(eps []netip.AddrPort) error {
	if err := within(len(eps), MaxRecordEndpoints, "endpoints"); err != nil {
		return err
	}
	for i, e := range eps {
		a := e.Addr()
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() || a == broadcast4 || e.Port() == 0 {
			return fmt.Errorf("endpoint %v: %w", e, RefusedEndpoint)
		}
		if slices.Contains(eps[:i], e) {
			return fmt.Errorf("endpoint %v: %w", e, RefusedRepeated)
		}
	}
	return nil
}

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (a Authority) permitsPrefixes(slice string, prefixes []netip.Prefix) error {
	if err := within(len(prefixes), MaxRecordPrefixes, "prefixes"); err != nil {
		return err
	}
	for i, p := range prefixes {
		if !p.IsValid() || p.Bits() == 0 || p.Masked() != p || p.Addr().Is4In6() || !a.granted(slice, p) {
			return fmt.Errorf("prefix %v on slice %s: %w", p, slice, RefusedPrefix)
		}
		if slices.Contains(prefixes[:i], p) {
			return fmt.Errorf("prefix %v: %w", p, RefusedRepeated)
		}
	}
	return nil
}

func (a Authority) permitsService(slice string, s *ServiceBody) error {
	if err := permitsPorts(s.Ports); err != nil {
		return err
	}
	if err := within(len(s.Aliases), MaxRecordAliases, "aliases"); err != nil {
		return err
	}
	for i, n := range s.Aliases {
		if !ValidDNSName(strings.ToLower(n)) {
			return fmt.Errorf("alias %q: %w", n, RefusedName)
		}
		if slices.Contains(s.Aliases[:i], n) {
			return fmt.Errorf("alias %q: %w", n, RefusedRepeated)
		}
	}
	if err := within(len(s.Endpoints), MaxRecordBackends, "endpoints"); err != nil {
		return err
	}
	names := make(map[string]bool, len(s.Endpoints))
	for _, e := range s.Endpoints {
		if err := a.permitsBackend(slice, e); err != nil {
			return err
		}
		if names[e.Name] {
			return fmt.Errorf("endpoint %q: %w", e.Name, RefusedRepeated)
		}
		names[e.Name] = true
	}
	return nil
}

func permitsPorts(ports []ServicePort) error {
	if err := within(len(ports), MaxRecordPorts, "ports"); err != nil {
		return err
	}
	for i, p := range ports {
		if p.Name != "" && !ValidLabel(p.Name) {
			return fmt.Errorf("port name %q: %w", p.Name, RefusedName)
		}
		if p.Port == 0 || p.Protocol != TCP && p.Protocol != UDP {
			return fmt.Errorf("port %d/%q: %w", p.Port, p.Protocol, RefusedPort)
		}
		for _, q := range ports[:i] {
			if p.Port == q.Port && p.Protocol == q.Protocol || p.Name != "" && p.Name == q.Name {
				return fmt.Errorf("port %q %d/%s: %w", p.Name, p.Port, p.Protocol, RefusedRepeated)
			}
		}
	}
	return nil
}

// permitsBackend checks one endpoint of a service: one address of each family
// at most, one at least, each inside the prefixes granted on the slice.
func (a Authority) permitsBackend(slice string, e Endpoint) error {
	if !ValidLabel(e.Name) {
		return fmt.Errorf("endpoint %q: %w", e.Name, RefusedName)
	}
	ok4 := e.Addr == netip.Addr{} || e.Addr.Is4() && a.granted(slice, netip.PrefixFrom(e.Addr, 32))
	ok6 := e.Addr6 == netip.Addr{} ||
		e.Addr6.Is6() && !e.Addr6.Is4In6() && e.Addr6.Zone() == "" && a.granted(slice, netip.PrefixFrom(e.Addr6, 128))
	if !ok4 || !ok6 || !e.Addr.IsValid() && !e.Addr6.IsValid() {
		return fmt.Errorf("endpoint %s at %v, %v on slice %s: %w", e.Name, e.Addr, e.Addr6, slice, RefusedAddress)
	}
	return nil
}

func within(n, limit int, what string) error {
	if n > limit {
		return fmt.Errorf("%d %s, at most %d: %w", n, what, limit, RefusedTooMany)
	}
	return nil
}

// lowOrder reports whether key is a Curve25519 point whose shared secret with
// anybody is zero (RFC 7748 section 6.1). The highest bit is ignored, as X25519
// ignores it.
func lowOrder(key [32]byte) bool {
	key[31] &= 0x7f
	return slices.Contains(lowOrderPoints, key)
}

// lowOrderPoints are the encodings of the points of order 1, 2, 4 and 8 on the
// curve and its twist: 0, 1, two of order 8, and p-1, p, p+1, where p = 2^255-19.
var lowOrderPoints = [][32]byte{
	{},
	{1},
	{
		0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
		0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
	},
	{
		0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b,
		0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
	},
	fieldPrimePlus(-1),
	fieldPrimePlus(0),
	fieldPrimePlus(1),
}

// fieldPrimePlus returns 2^255 - 19 + d in little-endian order, |d| <= 18.
func fieldPrimePlus(d int) [32]byte {
	var b [32]byte
	for i := range b {
		b[i] = 0xff
	}
	b[0] = byte(0xed + d)
	b[31] = 0x7f
	return b
}
