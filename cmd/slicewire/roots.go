package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/podtoken"
	"slicewire/show"
	"slicewire/statedir"
)

// The mesh's authority is changed by a statement of the next one, which the one
// before has certified. Any node is handed it (slicewire ca announce), gossip
// carries it, and every node keeps it in its file of authorities and trusts both.
// Nodes move to certificates below the next one as soon as an issuer has one, and
// when a later statement says that the one before is retired, what hangs on it
// is dropped everywhere.

// joinAgain is what helps who was off for the whole change.
const joinAgain = "join again with a new token (slicewire join --replace)"

// withHint adds what helps to the error of who does not know an authority.
func withHint(err error) error {
	if errors.Is(err, pki.ErrUnknownRoot) {
		return fmt.Errorf("%w: if the mesh's authority was changed while this node was off, %s", err, joinAgain)
	}
	return err
}

// moveSpread times the number of members is how long it takes until all nodes
// have asked for a certificate below a new authority: twenty a second.
const moveSpread = 50 * time.Millisecond

// mergeRoots returns what a node trusts, with the authorities after it that
// others tells of. Those that lead from nothing it trusts are left out.
func mergeRoots(own, others *pki.Roots) (*pki.Roots, error) {
	for _, s := range others.Successions() {
		next, err := own.Add(s)
		if errors.Is(err, pki.ErrStranger) {
			continue
		}
		if err != nil {
			return own, err
		}
		own = next
	}
	return own, nil
}

// noticeRoots takes in what authorities say of themselves. The loop calls it.
func (d *daemon) noticeRoots(records []overlay.Record) error {
	own := d.id.verifier.Roots()
	next := own
	for again := true; again; { // of three in a row, the third is believed after the second
		again = false
		for _, r := range records {
			if r.Key.Kind != overlay.KindRoot || r.Deleted || next.Knows(r.Root.Statement) {
				continue
			}
			s, err := pki.ParseSuccession(r.Root.Statement)
			if err == nil {
				var with *pki.Roots
				if with, err = next.Add(s); err == nil && with != next {
					next, again = with, true
				}
			}
			d.noticeFork(err)
		}
	}
	return d.trust(own, next)
}

// noticeFork says once that an authority has named two successors.
func (d *daemon) noticeFork(err error) {
	if err == nil || errors.Is(err, pki.ErrStranger) {
		return
	}
	text := err.Error()
	if old := d.forked.Load(); old == nil || *old != text {
		d.forked.Store(&text)
		d.log.Error("the statement of a next authority is refused", "err", err)
	}
}

// trust puts other authorities into force, on disk first.
func (d *daemon) trust(own, next *pki.Roots) error {
	if next == own {
		return nil
	}
	if err := d.state.Write(statedir.FileCACert, next.Text()); err != nil {
		return err
	}
	d.id.verifier.SetRoots(next)
	d.gossip.Enforce() // of two successors, only this one's word is held
	key, at := next.Newest(), next.Last().Retires
	if own.Newest() != key {
		d.log.Info("the mesh's authority has a successor: both are trusted", "key", hex.EncodeToString(key[:8]))
	}
	if !at.IsZero() {
		d.log.Warn("the mesh's authority before the present one retires", "at", at.UTC().Format(time.RFC3339))
	}
	if d.issue != nil {
		d.issue.server.Set(d.issue.cert.Load().Issuer)
	}
	d.rootsDue()
	return nil
}

// countRetired returns how many authorities are retired by now.
func (d *daemon) countRetired() (n int) {
	for _, s := range d.id.verifier.Roots().Status(d.id.clock.Now()) {
		if s.Retired {
			n++
		}
	}
	return n
}

// rootsDue reports whether an authority has retired since the last time it was
// asked, and drops what hangs on it.
func (d *daemon) rootsDue() bool {
	n := d.countRetired()
	if n == d.retired {
		return false
	}
	d.retired = n
	d.log.Warn("an authority of the mesh is retired: what hangs on it is refused")
	d.gossip.Enforce()
	if _, err := d.id.verifier.Authority(d.id.Chain(), d.id.clock.Now()); errors.Is(err, overlay.RefusedRetired) {
		d.log.Error("this node is cut off: "+joinAgain, "err", err)
	}
	return true
}

// onNewest reports whether a renewed certificate hangs on the newest authority
// that is known, or cannot be read, which others will say.
func (d *daemon) onNewest(chain []byte) bool {
	signer, err := d.id.certified.Load().signer.Renewed(chain)
	return err != nil || d.hangsOnNewest(signer.Chain())
}

func (d *daemon) hangsOnNewest(chain [][]byte) bool {
	root, err := d.id.verifier.Root(chain)
	return err != nil || root == d.id.verifier.Roots().Newest()
}

// mayMove reports whether this node's certificate hangs on an authority that has
// a successor, and some issuer for the node's site certifies below that.
func (d *daemon) mayMove() bool {
	if d.hangsOnNewest(d.id.Chain()) {
		return false
	}
	newest, self, now := d.id.verifier.Roots().Newest(), d.id.authority().ID, d.id.clock.Now()
	certifies := func(chain [][]byte) bool {
		root, err := d.id.verifier.Root(chain)
		if err != nil || root != newest {
			return false
		}
		a, err := d.id.verifier.Authority(chain, now)
		return err == nil && a.Certifies(self.Site)
	}
	if d.issue != nil && certifies(d.issue.cert.Load().Chain()) {
		return true
	}
	for _, chain := range d.gossip.Chains() {
		if len(chain) > 1 && certifies(chain[1:]) {
			return true
		}
	}
	return false
}

// noticeMove has the certificate renewed if a newer authority is to be had.
func (d *daemon) noticeMove() {
	if d.mayMove() {
		select {
		case d.moves <- struct{}{}:
		default:
		}
	}
}

// carryRevocations says again, below the newest authority, what this issuer and
// the authorities before have revoked of the nodes that it certifies: what hangs
// on an authority counts no longer once that is retired. Keys of issuers need no
// repetition, for they are certified by that authority only.
func (d *daemon) carryRevocations(records []overlay.Record) error {
	d.noticeMove()
	roots := d.id.verifier.Roots()
	if d.issue == nil || roots.Last() == nil || !d.hangsOnNewest(d.issue.cert.Load().Chain()) {
		return nil
	}
	issuer, now := d.issue.cert.Load(), d.id.clock.Now()
	mine := map[string]bool{issuer.limits.ID.Node: true}
	for _, s := range roots.Status(now)[1:] {
		mine[overlay.IssuerName(s.Key)] = true
	}
	said := make(map[overlay.NodeID]time.Time)
	for _, r := range d.gossip.SignedBy(issuer.Chain()) {
		if x, ok := overlay.RevocationOf(r); ok {
			said[x.Node] = x.Until
		}
	}
	var errs []error
	for _, r := range records {
		x, ok := overlay.RevocationOf(r)
		if !ok || x.Key != ([32]byte{}) || !mine[r.Origin.Node] || !issuer.limits.Certifies(x.Node.Site) || !said[x.Node].Before(x.Until) {
			continue
		}
		end := now.Add(revocationLife)
		if podtoken.IsNodeName(x.Node.Node) { // of these there are many, and their certificates are short
			end = later(r.NotAfter, now.Add(voidFor))
		}
		message, err := newRevocation(issuer, issuer.limits, x, end, roots.Last().Serial)
		if err == nil {
			err = d.gossip.Announce(message)
		}
		errs = append(errs, err)
		said[x.Node] = x.Until
	}
	return errors.Join(errs...)
}

// reloadTrust takes in what was installed into the state folder meanwhile: a
// bundle's authorities, the issuer's certificate and the node's. The loop calls it.
func (d *daemon) reloadTrust() error {
	text, err := d.state.Read(statedir.FileCACert)
	if err != nil {
		return err
	}
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return fmt.Errorf("%s: %w", d.state.Path(statedir.FileCACert), err)
	}
	own := d.id.verifier.Roots()
	next, err := mergeRoots(own, roots)
	return errors.Join(err, d.trust(own, next), d.reloadIssuer(), d.reloadCertificate())
}

// reloadIssuer signs with another certificate of the issuer's key, if there is one.
func (d *daemon) reloadIssuer() error {
	if d.issue == nil {
		return nil
	}
	chain, err := d.state.Read(statedir.FileIssuer)
	if err != nil {
		return err
	}
	cert, err := loadIssuer(d.state, chain, d.id.verifier, d.id.clock.Now())
	if err != nil {
		return fmt.Errorf("%s: %w", d.state.Path(statedir.FileIssuer), err)
	}
	old := d.issue.cert.Load()
	if bytes.Equal(old.Chain()[0], cert.Chain()[0]) {
		return nil
	}
	if old.Key() != cert.Key() {
		return errors.New("the issuer has another key: that needs a restart, and new tokens")
	}
	d.issue.cert.Store(cert)
	d.issue.server.Set(cert.Issuer)
	d.log.Info("certifies nodes with another certificate", "until", cert.limits.NotAfter.UTC().Format(time.RFC3339))
	return nil
}

// reloadCertificate uses the node's certificate that was installed by hand.
func (d *daemon) reloadCertificate() error {
	chain, err := d.state.Read(statedir.FileNodeCert)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	signer, err := d.id.certified.Load().signer.Renewed(chain)
	if err == nil && !bytes.Equal(signer.Chain()[0], d.id.Chain()[0]) {
		err = d.take(chain)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.state.Path(statedir.FileNodeCert), err)
	}
	return nil
}

// rootWarnings says what an operator should know while the authority changes.
func (d *daemon) rootWarnings(now time.Time) (out []string) {
	if d.forked.Load() != nil || d.gossip.Refused()[string(overlay.RefusedFork)] > 0 {
		out = append(out, "an authority's key is in wrong hands: a second successor of it was announced, and refused")
	}
	roots := d.id.verifier.Roots()
	status := roots.Status(now)
	warn := func(chain [][]byte, what, help string) {
		root, err := d.id.verifier.Root(chain)
		for _, s := range status[1:] {
			if err == nil && s.Key == root && !s.Retires.IsZero() && !s.Retired {
				out = append(out, fmt.Sprintf("%s hangs on an authority that retires in %s: %s", what, show.Short(s.Retires.Sub(now)), help))
			}
		}
	}
	warn(d.id.Chain(), "this node's certificate", "it is renewed by an issuer below the next authority, or with slicewire ca sign")
	if d.issue != nil {
		warn(d.issue.cert.Load().Chain(), "the issuer's certificate of this node", "have it made anew (slicewire ca intermediate)")
	}
	return out
}

func authorityStatus(all []pki.RootStatus) []api.AuthorityStatus {
	out := []api.AuthorityStatus{}
	for _, s := range all {
		a := api.AuthorityStatus{Key: hex.EncodeToString(s.Key[:]), NotAfter: s.NotAfter, Retired: s.Retired}
		if !s.Retires.IsZero() {
			at := s.Retires
			a.Retires = &at
		}
		out = append(out, a)
	}
	return out
}

// Announce takes in what an authority says of itself, and tells everybody.
func (d *daemon) Announce(ctx context.Context, req api.AnnounceRequest) (api.AnnounceReply, error) {
	err := d.gossip.Announce(req.Statement)
	if errors.Is(err, overlay.Refusal(gossip.RefusedCert)) {
		err = fmt.Errorf("%w: it was certified by no authority that this node trusts; another mesh's, or an earlier statement is missing", err)
	}
	if errors.Is(err, overlay.RefusedFork) {
		err = pki.ErrFork
		d.noticeFork(err)
	}
	if err != nil {
		return api.AnnounceReply{}, err
	}
	if err := d.within(ctx, d.reconcile); err != nil {
		return api.AnnounceReply{}, err
	}
	return api.AnnounceReply{
		APIVersion: api.Version, Kind: "Authorities", Authorities: authorityStatus(d.id.verifier.Roots().Status(d.id.clock.Now())),
	}, nil
}

// RevokeToken makes a join token void.
func (d *daemon) RevokeToken(_ context.Context, req api.TokenRevokeRequest) error {
	if d.issue == nil {
		return errNoIssuer
	}
	if err := d.issue.book.Remove(req.ID); err != nil {
		return err
	}
	d.log.Info("join token revoked", "token", req.ID)
	return nil
}
