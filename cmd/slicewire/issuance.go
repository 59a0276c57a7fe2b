package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/statedir"
)

// An issuance is what makes a gateway an issuer: a key that the mesh's authority
// has certified for some sites, the book of its tokens and the port on which it
// is asked.
type issuance struct {
	cert     atomic.Pointer[issuerCert]
	book     *join.Book
	listener net.Listener
	server   *join.Server
	addr     netip.AddrPort
	pods     podKeys
	numbers  *podNumbers
	clashes  atomic.Uint64 // numbers that two nodes had
	full     atomic.Bool   // there is no room for revocations of pods that end
}

// issuerCert is an issuer's key with its certificate and what that allows.
type issuerCert struct {
	*pki.Issuer
	limits overlay.Authority
}

// installIssuer puts an issuer's chain into the state folder after checking that
// it fits the key there and the mesh of the node: the authorities that the node
// trusts already, and those that came after them as the bundle shows.
func installIssuer(d statedir.Dir, chain, text []byte, now time.Time) (overlay.Authority, error) {
	var none overlay.Authority
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return none, fmt.Errorf("the bundle's authority: %w", err)
	}
	if own, err := d.Read(statedir.FileCACert); err == nil {
		trusted, err := pki.ParseRoots(own)
		if err != nil {
			return none, fmt.Errorf("%s: %w", d.Path(statedir.FileCACert), err)
		}
		if roots, err = mergeRoots(trusted, roots); err != nil {
			return none, err
		}
		if roots != trusted {
			if err := d.Write(statedir.FileCACert, roots.Text()); err != nil {
				return none, err
			}
		}
	}
	verifier, err := pki.NewVerifier(roots.Mesh(), roots.Text())
	if err != nil {
		return none, err
	}
	x, err := loadIssuer(d, chain, verifier, now)
	if err != nil {
		return none, fmt.Errorf("the bundle does not fit %s: %w", d, err)
	}
	return x.limits, d.Write(statedir.FileIssuer, chain)
}

func loadIssuer(d statedir.Dir, chain []byte, v *pki.Verifier, now time.Time) (*issuerCert, error) {
	key, err := d.Read(statedir.FileIssuerKey)
	if err != nil {
		return nil, fmt.Errorf("the issuer's key: %w", err)
	}
	issuer, err := pki.LoadIssuer(key, chain)
	if err != nil {
		return nil, err
	}
	limits, err := v.Authority(issuer.Chain(), now)
	return &issuerCert{issuer, limits}, err
}

// openIssuance opens the join port if this node holds an issuer's key. A
// certificate that is no good is no reason for a gateway not to run.
func (d *daemon) openIssuance() (*issuance, error) {
	chain, err := d.state.Read(statedir.FileIssuer)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x := new(issuance)
	cert, err := loadIssuer(d.state, chain, d.id.verifier, d.id.clock.Now())
	if err != nil {
		d.log.Error("this node certifies nobody: have its issuer's certificate made anew (slicewire ca intermediate)",
			"files", []string{d.state.Path(statedir.FileIssuerKey), d.state.Path(statedir.FileIssuer)}, "err", err)
		return nil, nil
	}
	if !d.id.authority().Gateway {
		d.log.Error("this node certifies nobody", "err", "it is no gateway: it has no gossip key to give to those it lets in")
		return nil, nil
	}
	x.cert.Store(cert)
	saved, err := d.state.ReadSealed(statedir.FileTokens)
	if errors.Is(err, fs.ErrNotExist) {
		saved, err = nil, nil
	}
	if err == nil {
		x.book, err = join.OpenBook(saved, func(b []byte) error { return d.state.WriteSealed(statedir.FileTokens, b) })
	}
	if err != nil {
		return nil, fmt.Errorf("the tokens in %s: %w: remove it, which voids all that are out", d.state.Path(statedir.FileTokens), err)
	}
	x.numbers = d.openNumbersOf()
	at := d.want.file.Join.Listen
	if !at.IsValid() {
		at = d.listen
	}
	if x.listener, err = net.Listen("tcp", at.String()); err != nil {
		return nil, fmt.Errorf("listen for nodes that join: %w", err)
	}
	x.addr = x.listener.Addr().(*net.TCPAddr).AddrPort()
	x.server, err = join.NewServer(join.Config{
		Listener: x.listener, Verifier: d.id.verifier, Book: x.book,
		Keys: func() join.Keys { ring := d.keys.get(); return ring.handOut(time.Now()) },
		Now:  d.id.clock.Now, Log: d.log, Holder: d.holder, Pods: d.podTerms, Lives: podLife,
	}, cert.Issuer)
	if err != nil {
		x.listener.Close()
		return nil, err
	}
	d.log.Info("certifies nodes", "sites", strings.Join(cert.limits.Issuer.Sites, ","), "listen", x.addr.String())
	return x, nil
}

// issuerFacts tells others where certificates are asked for.
func (d *daemon) issuerFacts() []overlay.Record {
	if d.issue == nil {
		return nil
	}
	return []overlay.Record{{
		Origin: d.id.authority().ID, Key: overlay.Key{Kind: overlay.KindIssuer}, Issuer: &overlay.IssuerBody{Endpoints: d.joinEndpoints(), Keys: d.keys.get().Version},
	}}
}

// joinEndpoints lists where other nodes reach the join port: as the node file
// says, else where it is bound, else at the addresses of the tunnels.
func (d *daemon) joinEndpoints() []netip.AddrPort {
	if a := d.want.file.Join.Advertise; len(a) > 0 {
		return a
	}
	if a := d.issue.addr.Addr().Unmap(); !a.IsUnspecified() {
		return []netip.AddrPort{netip.AddrPortFrom(a, d.issue.addr.Port())}
	}
	out := slices.Clone(d.endpoints())
	for i := range out {
		out[i] = netip.AddrPortFrom(out[i].Addr(), d.issue.addr.Port())
	}
	return out
}

// holder returns the node that is known to have a key.
func (d *daemon) holder(key [32]byte) (overlay.NodeID, bool) {
	for _, chain := range d.gossip.Chains() {
		if sum, err := pki.ChainSum(chain); err != nil || sum != key {
			continue
		}
		if a, err := d.id.verifier.Authority(chain, d.id.clock.Now()); err == nil && a.Issuer == nil {
			return a.ID, true
		}
	}
	return overlay.NodeID{}, false
}

var errNoIssuer = errors.New("this node certifies nobody: ask a gateway with an issuer's key (slicewire ca intermediate)")

// Bounds of a token's life.
const (
	minTokenLife = time.Minute
	maxTokenLife = 30 * 24 * time.Hour
)

// CreateToken notes a new join token and returns it.
func (d *daemon) CreateToken(ctx context.Context, req api.TokenRequest) (reply api.TokenReply, err error) {
	if d.issue == nil {
		return reply, errNoIssuer
	}
	if req.TTL < minTokenLife || req.TTL > maxTokenLife {
		return reply, fmt.Errorf("a token that is good for %v: want %v to %v", req.TTL, minTokenLife, maxTokenLife)
	}
	err = d.within(ctx, func() error {
		reply, err = d.createToken(req)
		return err
	})
	return reply, err
}

func (d *daemon) createToken(req api.TokenRequest) (api.TokenReply, error) {
	self, now := d.id.authority(), d.id.clock.Now()
	id := overlay.NodeID{Site: req.Site, Node: req.Node}
	if id.Site == "" {
		id.Site = self.ID.Site
	}
	if req.Index < 0 {
		req.Index = d.freeIndex(id)
	}
	grants, err := grantsFor(&d.want.mesh, id.Site, req)
	if err != nil {
		return api.TokenReply{}, err
	}
	subject := pki.Subject{ID: id, Gateway: req.Gateway, Index: req.Index, Grants: grants}
	issuer := d.issue.cert.Load()
	if err := issuer.Permits(subject); err != nil {
		return api.TokenReply{}, fmt.Errorf("%w: have the mesh's authority make the issuer's certificate anew", err)
	}
	addresses := req.Addresses
	if len(addresses) == 0 {
		for _, e := range d.joinEndpoints() {
			addresses = append(addresses, e.String())
		}
	}
	root, err := d.id.verifier.Root(issuer.Chain())
	if err != nil {
		return api.TokenReply{}, err
	}
	t := join.Token{Issuer: issuer.Key(), Root: root, Expires: now.Add(req.TTL), Mesh: self.Mesh, Node: id, Addresses: addresses}
	for _, g := range grants {
		t.Slices = append(t.Slices, g.Slice)
	}
	if t, err = join.NewToken(t); err != nil {
		return api.TokenReply{}, err
	}
	if err := d.issue.book.Add(t, join.Terms{Node: id, Gateway: req.Gateway, Index: req.Index, Grants: grants}, now); err != nil {
		return api.TokenReply{}, err
	}
	d.log.Info("join token made", "node", id.String(), "token", t.Name())
	return api.TokenReply{
		APIVersion: api.Version, Kind: "Token", Token: t.Text(), ID: t.Name(), Site: id.Site, Node: id.Node, Gateway: req.Gateway,
		Index: req.Index, Slices: t.Slices, Expires: t.Expires, Addresses: t.Addresses,
	}, nil
}

// grantsFor returns what the mesh gives to a node on the slices asked for.
func grantsFor(mesh *overlay.Mesh, site string, req api.TokenRequest) ([]overlay.Grant, error) {
	all, err := overlay.Grants(mesh, site, req.Index, req.Gateway)
	if err != nil {
		return nil, err
	}
	if len(req.Slices) == 0 {
		if len(all) == 0 {
			return nil, fmt.Errorf("site %q is on no slice of the manifests: there is nothing to grant", site)
		}
		return all, nil
	}
	var out []overlay.Grant
	for _, name := range req.Slices {
		i := slices.IndexFunc(all, func(g overlay.Grant) bool { return g.Slice == name })
		if i < 0 {
			return nil, fmt.Errorf("site %q is not on slice %q", site, name)
		}
		if !slices.ContainsFunc(out, func(g overlay.Grant) bool { return g.Slice == name }) {
			out = append(out, all[i])
		}
	}
	return out, nil
}

// freeIndex returns the first number within a site that no other node of it is
// known to have, or is to get by a token.
func (d *daemon) freeIndex(id overlay.NodeID) int {
	taken, _ := d.takenNumbers(id)
	for i := 0; ; i++ {
		if !taken[i] {
			return i
		}
	}
}

// knownCert is a certificate behind a record, whatever the time.
type knownCert struct {
	chain     [][]byte
	authority overlay.Authority
}

// known returns the certificates that this node knows and that are not revoked.
func (d *daemon) known() (out []knownCert) {
	for _, chain := range d.gossip.Chains() {
		a, err := d.id.verifier.Authority(chain, d.id.clock.Now())
		if err == nil || errors.Is(err, pki.ErrNotValid) {
			out = append(out, knownCert{chain, a})
		}
	}
	return out
}

// How long revocations hold, and how much later than now an enrolment may be and
// is revoked with those before it: the clocks of issuers differ.
const (
	revocationLife   = maxCertLife + 24*time.Hour
	revocationMargin = 10 * time.Minute
)

// newRevocation seals a revocation by an issuer whose authority is limits. It
// holds until the given time, or, for a key and at most, as long as the issuer's
// own certificate. again is SealRevocation's.
func newRevocation(signer gossip.Signer, limits overlay.Authority, r overlay.Revocation, end time.Time, again uint64) ([]byte, error) {
	until := limits.NotAfter
	if r.Key == ([32]byte{}) && end.Before(until) {
		until = end
	}
	return gossip.SealRevocation(signer, limits.ID, r, until, again)
}

// Revoke makes a node's certificates void everywhere, or takes in a revocation
// that somebody else has signed.
func (d *daemon) Revoke(_ context.Context, req api.RevokeRequest) error {
	if len(req.Revocation) > 0 {
		return d.gossip.Announce(req.Revocation)
	}
	if d.issue == nil {
		return fmt.Errorf("%w, or revoke with the mesh's authority: slicewire cert revoke --ca DIR", errNoIssuer)
	}
	now, issuer := d.id.clock.Now(), d.issue.cert.Load()
	id := overlay.NodeID{Site: req.Site, Node: req.Node}
	r := overlay.Revocation{Node: id, Until: now.Add(revocationMargin)}
	for _, c := range d.known() {
		if c.authority.ID != id {
			continue
		}
		if c.authority.Enrolled.After(r.Until) {
			r.Until = c.authority.Enrolled
		}
		if c.authority.NotAfter.After(issuer.limits.NotAfter) {
			return fmt.Errorf("the certificate of %v ends at %s, after this issuer's own: revoke it with the mesh's authority (slicewire cert revoke --ca DIR)",
				id, c.authority.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	message, err := newRevocation(issuer, issuer.limits, r, now.Add(revocationLife), 0)
	if err != nil {
		return err
	}
	if err := d.gossip.Announce(message); err != nil {
		return err
	}
	d.log.Warn("node revoked", "node", id.String())
	return nil
}
