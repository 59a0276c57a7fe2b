package pki

import (
	"bytes"
	"cmp"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"slicewire/overlay"
)

// oidAuthority names the extension that holds an authority. It lies under 2.25,
// the arc that needs no registration, at the number whose bytes spell "slic".
// The extension is not critical: a certificate without it, or with it unread,
// grants nothing.
var oidAuthority = asn1.ObjectIdentifier{2, 25, 0x736c6963, 1}

// oidEnrolled names the extension with the time at which a node was let in, in
// seconds since 1970. A certificate without it was enrolled when it begins.
var oidEnrolled = asn1.ObjectIdentifier{2, 25, 0x736c6963, 2}

// oidScope names the extension that limits what an authority may issue. It is
// critical: who does not understand it must not believe such an authority.
var oidScope = asn1.ObjectIdentifier{2, 25, 0x736c6963, 3}

// Limits of what one certificate says.
const (
	maxGrants        = 256
	maxGrantPrefixes = 64
	maxIndex         = 1<<16 - 1
	maxSites         = 256
)

const extensionVersion = 1

// The extension's value in DER. A prefix is its length in bits and its 4 or 16
// bytes of address.
type derAuthority struct {
	Version int
	Gateway bool
	Index   int
	Grants  []derGrant
}

type derGrant struct {
	Slice    string `asn1:"utf8"`
	Prefixes [][]byte
}

var errAuthority = errors.New("authority extension")

func encodeAuthority(gateway bool, index int, grants []overlay.Grant) ([]byte, error) {
	if err := checkAuthority(index, grants); err != nil {
		return nil, err
	}
	return asn1.Marshal(derAuthority{Version: extensionVersion, Gateway: gateway, Index: index, Grants: derGrants(grants)})
}

func derGrants(grants []overlay.Grant) []derGrant {
	out := []derGrant{}
	for _, g := range grants {
		d := derGrant{Slice: g.Slice, Prefixes: [][]byte{}}
		for _, p := range g.Prefixes {
			d.Prefixes = append(d.Prefixes, append([]byte{byte(p.Bits())}, p.Addr().AsSlice()...))
		}
		out = append(out, d)
	}
	return out
}

// decodeAuthority reads exactly what encodeAuthority writes: anything that
// would be written otherwise is refused.
func decodeAuthority(value []byte) (gateway bool, index int, grants []overlay.Grant, err error) {
	var der derAuthority
	rest, err := asn1.Unmarshal(value, &der)
	if err != nil {
		return false, 0, nil, fmt.Errorf("%w: %w", errAuthority, err)
	}
	if len(rest) != 0 || der.Version != extensionVersion {
		return false, 0, nil, fmt.Errorf("%w: version %d, %d bytes left over", errAuthority, der.Version, len(rest))
	}
	if grants, err = grantsOf(der.Grants); err != nil {
		return false, 0, nil, err
	}
	again, err := encodeAuthority(der.Gateway, der.Index, grants)
	if err != nil {
		return false, 0, nil, err
	}
	if !bytes.Equal(again, value) {
		return false, 0, nil, fmt.Errorf("%w: not in canonical form", errAuthority)
	}
	return der.Gateway, der.Index, grants, nil
}

func grantsOf(der []derGrant) ([]overlay.Grant, error) {
	if len(der) > maxGrants {
		return nil, fmt.Errorf("%w: %d grants, at most %d", errAuthority, len(der), maxGrants)
	}
	var grants []overlay.Grant
	for _, d := range der {
		g := overlay.Grant{Slice: d.Slice}
		for _, raw := range d.Prefixes {
			if len(raw) != 5 && len(raw) != 17 {
				return nil, fmt.Errorf("%w: prefix of %d bytes", errAuthority, len(raw))
			}
			addr, _ := netip.AddrFromSlice(raw[1:])
			g.Prefixes = append(g.Prefixes, netip.PrefixFrom(addr, int(raw[0])))
		}
		grants = append(grants, g)
	}
	return grants, nil
}

// checkAuthority holds for both directions: slices and prefixes sorted without
// repetition, prefixes masked, no default route.
func checkAuthority(index int, grants []overlay.Grant) error {
	if index < 0 || index > maxIndex {
		return fmt.Errorf("%w: index %d, want 0 to %d", errAuthority, index, maxIndex)
	}
	if len(grants) > maxGrants {
		return fmt.Errorf("%w: %d grants, at most %d", errAuthority, len(grants), maxGrants)
	}
	for i, g := range grants {
		if !overlay.ValidLabel(g.Slice) {
			return fmt.Errorf("%w: slice name %q", errAuthority, g.Slice)
		}
		if i > 0 && grants[i-1].Slice >= g.Slice {
			return fmt.Errorf("%w: slice %q after %q", errAuthority, g.Slice, grants[i-1].Slice)
		}
		if len(g.Prefixes) > maxGrantPrefixes {
			return fmt.Errorf("%w: slice %s: %d prefixes, at most %d", errAuthority, g.Slice, len(g.Prefixes), maxGrantPrefixes)
		}
		for j, p := range g.Prefixes {
			if !p.IsValid() || p.Masked() != p || p.Bits() == 0 || p.Addr().Is4In6() {
				return fmt.Errorf("%w: slice %s: prefix %v", errAuthority, g.Slice, p)
			}
			if j > 0 && comparePrefix(g.Prefixes[j-1], p) >= 0 {
				return fmt.Errorf("%w: slice %s: prefix %v after %v", errAuthority, g.Slice, p, g.Prefixes[j-1])
			}
		}
	}
	return nil
}

// sortGrants returns grants in the order that a certificate holds them.
func sortGrants(grants []overlay.Grant) []overlay.Grant {
	out := make([]overlay.Grant, 0, len(grants))
	for _, g := range grants {
		p := slices.Clone(g.Prefixes)
		slices.SortFunc(p, comparePrefix)
		out = append(out, overlay.Grant{Slice: g.Slice, Prefixes: slices.Compact(p)})
	}
	slices.SortFunc(out, func(a, b overlay.Grant) int { return strings.Compare(a.Slice, b.Slice) })
	return out
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// onlyURI returns the subject alternative name extension that holds uri and
// nothing else.
func onlyURI(uri *url.URL) ([]byte, error) {
	return asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri.String())}})
}

var oidAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

const scheme = "slicewire"

// authorityURI names a mesh's authorities, nodeURI one of its nodes.
func authorityURI(mesh string) *url.URL { return &url.URL{Scheme: scheme, Host: mesh, Path: "/"} }

func nodeURI(mesh string, id overlay.NodeID) *url.URL {
	return &url.URL{Scheme: scheme, Host: mesh, Path: "/" + id.Site + "/" + id.Node}
}

// parseNodeURI reads exactly what nodeURI makes.
func parseNodeURI(u *url.URL) (mesh string, id overlay.NodeID, err error) {
	site, node, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	id = overlay.NodeID{Site: site, Node: node}
	mesh = u.Host
	if !overlay.ValidDNSName(mesh) || !overlay.ValidLabel(site) || !overlay.ValidLabel(node) || u.String() != nodeURI(mesh, id).String() {
		return "", overlay.NodeID{}, fmt.Errorf("certificate name %q: want %s://mesh/site/node", u, scheme)
	}
	return mesh, id, nil
}
