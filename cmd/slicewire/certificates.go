package main

import (
	"cmp"
	"encoding/hex"
	"slices"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/pki"
)

// Certificates lists what this node knows of the mesh's certificates.
func (d *daemon) Certificates() api.CertificateList {
	out := api.CertificateList{
		APIVersion: api.Version, Kind: "CertificateList", Authorities: authorityStatus(d.id.verifier.Roots().Status(d.id.clock.Now())),
		Certificates: []api.CertificateStatus{}, Revocations: []api.RevocationStatus{}, Tokens: []api.TokenStatus{},
	}
	own := d.id.certified.Load()
	all := append([]knownCert{{own.signer.Chain(), own.authority}}, d.known()...)
	seen := make(map[string]bool) // by the leaf's bytes: the own one may be known as well
	for i, c := range all {
		if c.authority.Issuer != nil || seen[string(c.chain[0])] {
			continue
		}
		seen[string(c.chain[0])] = true
		s := certificateStatus(c)
		if root, err := d.id.verifier.Root(c.chain); err == nil {
			s.Authority = hex.EncodeToString(root[:])
		}
		s.Own = i == 0
		out.Certificates = append(out.Certificates, s)
	}
	slices.SortStableFunc(out.Certificates, func(a, b api.CertificateStatus) int {
		return cmp.Or(cmp.Compare(a.Site, b.Site), cmp.Compare(a.Node, b.Node), b.NotAfter.Compare(a.NotAfter))
	})
	for _, r := range d.gossip.Records() {
		what, ok := overlay.RevocationOf(r)
		if !ok {
			continue
		}
		s := api.RevocationStatus{What: r.Key.Name, By: r.Origin.Node, NotAfter: r.NotAfter}
		if !what.Until.IsZero() {
			s.Until = &what.Until
		}
		out.Revocations = append(out.Revocations, s)
	}
	if d.issue == nil {
		return out
	}
	for _, t := range d.issue.book.List() {
		s := api.TokenStatus{ID: t.ID, Site: t.Node.Site, Node: t.Node.Node, Expires: t.Expires}
		if !t.Used.IsZero() {
			s.Used = &t.Used
		}
		out.Tokens = append(out.Tokens, s)
	}
	return out
}

func certificateStatus(c knownCert) api.CertificateStatus {
	a := c.authority
	s := api.CertificateStatus{
		Site: a.ID.Site, Node: a.ID.Node, Gateway: a.Gateway, Index: a.Index, Slices: []string{},
		Enrolled: a.Enrolled, NotBefore: a.NotBefore, NotAfter: a.NotAfter,
	}
	for _, g := range a.Grants {
		s.Slices = append(s.Slices, g.Slice)
	}
	// The chain was verified: its certificates can be read.
	if sum, err := pki.ChainSum(c.chain); err == nil {
		s.Key = hex.EncodeToString(sum[:])
	}
	if sum, err := pki.ChainSum(c.chain[1:]); err == nil {
		s.Issuer = hex.EncodeToString(sum[:])
	}
	return s
}
