package pki

import (
	"bytes"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"

	"slicewire/overlay"
)

// A Scope is what a limited issuer may certify: nodes of the sites, for what is
// inside the grants.
type Scope struct {
	Sites  []string // at least one
	Grants []overlay.Grant
}

// The extension's value in DER.
type derScope struct {
	Version int
	Sites   []derSite
	Grants  []derGrant
}

type derSite struct {
	Name string `asn1:"utf8"`
}

var errScope = errors.New("scope extension")

func encodeScope(sites []string, grants []overlay.Grant) ([]byte, error) {
	if len(sites) == 0 || len(sites) > maxSites {
		return nil, fmt.Errorf("%w: %d sites, want 1 to %d", errScope, len(sites), maxSites)
	}
	der := derScope{Version: extensionVersion, Grants: derGrants(grants)}
	for i, s := range sites {
		if !overlay.ValidLabel(s) || i > 0 && sites[i-1] >= s {
			return nil, fmt.Errorf("%w: site %q", errScope, s)
		}
		der.Sites = append(der.Sites, derSite{s})
	}
	if err := checkAuthority(0, grants); err != nil {
		return nil, err
	}
	return asn1.Marshal(der)
}

// decodeScope reads exactly what encodeScope writes.
func decodeScope(value []byte) (sites []string, grants []overlay.Grant, err error) {
	var der derScope
	rest, err := asn1.Unmarshal(value, &der)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errScope, err)
	}
	if len(rest) != 0 || der.Version != extensionVersion {
		return nil, nil, fmt.Errorf("%w: version %d, %d bytes left over", errScope, der.Version, len(rest))
	}
	if grants, err = grantsOf(der.Grants); err != nil {
		return nil, nil, err
	}
	for _, s := range der.Sites {
		sites = append(sites, s.Name)
	}
	again, err := encodeScope(sites, grants)
	if err != nil {
		return nil, nil, err
	}
	if !bytes.Equal(again, value) {
		return nil, nil, fmt.Errorf("%w: not in canonical form", errScope)
	}
	return sites, grants, nil
}

// sorted returns the scope in the order that a certificate holds it. Grants of
// one slice are joined: several sites of a slice have a prefix each.
func (s Scope) sorted() Scope {
	bySlice := make(map[string]int)
	var joined []overlay.Grant
	for _, g := range s.Grants {
		i, known := bySlice[g.Slice]
		if !known {
			i = len(joined)
			bySlice[g.Slice] = i
			joined = append(joined, overlay.Grant{Slice: g.Slice})
		}
		joined[i].Prefixes = append(joined[i].Prefixes, g.Prefixes...)
	}
	sites := slices.Clone(s.Sites)
	slices.Sort(sites)
	return Scope{Sites: slices.Compact(sites), Grants: sortGrants(joined)}
}
