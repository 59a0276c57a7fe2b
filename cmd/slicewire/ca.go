package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki"
	"slicewire/statedir"
)

// Lifetimes of what the command line signs. A node certificate that is signed
// by hand is renewed by hand, so it lives long.
const (
	caLife      = 10 * 365 * 24 * time.Hour
	certLife    = 90 * 24 * time.Hour
	issuerLife  = 365 * 24 * time.Hour
	maxCertLife = 397 * 24 * time.Hour // of a node: revocations outlive it, see revocationLife
)

// Names of the files in an authority's folder, which is a state folder of its own.
const (
	fileAuthorityCert = "ca.crt"
	fileAuthorityKey  = "ca.key"
	fileAuthorityNext = "next.key" // the next one's, while `slicewire ca rotate` writes
)

func newCACommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Be the mesh's certificate authority"}
	cmd.AddCommand(newCAInitCommand(), newCASignCommand(), newCAIntermediateCommand(),
		newCARotateCommand(), newCARetireCommand(), newCAShowCommand(), newCAAnnounceCommand(opts))
	return cmd
}

func newCAInitCommand() *cobra.Command {
	var dir, mesh string
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new authority in a folder",
		Long: "Makes the mesh's authority and gossip key in a new folder. The folder is all that is\n" +
			"needed to let nodes in: keep it off the nodes.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := initAuthority(statedir.Dir(dir), mesh, time.Now()); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "mesh %s: authority made in %s\n"+
				"next, on each node: slicewire cert request --state DIR > node.csr\n"+
				"and here:           slicewire ca sign --dir %s --manifests DIR --site SITE --node NODE node.csr > node.bundle\n", mesh, dir, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "ca", "folder of the authority")
	cmd.Flags().StringVar(&mesh, "mesh", manifest.DefaultMesh, "name of the mesh")
	return cmd
}

func initAuthority(d statedir.Dir, mesh string, now time.Time) error {
	if _, err := os.Stat(d.Path(fileAuthorityKey)); err == nil {
		return fmt.Errorf("%s holds an authority already", d)
	}
	if err := d.Create(); err != nil {
		return err
	}
	ca, err := pki.NewCA(mesh, now, caLife)
	if err != nil {
		return err
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	gossip, err := newGossipKey()
	if err != nil {
		return err
	}
	return errors.Join(
		d.Write(statedir.FileGossipKey, []byte(base64.StdEncoding.EncodeToString(gossip)+"\n")),
		d.Write(fileAuthorityCert, ca.CertPEM()), d.Write(fileAuthorityKey, key))
}

// A signing is a request to certify a node.
type signing struct {
	authority statedir.Dir
	manifests []string
	id        overlay.NodeID
	index     int
	plain     bool // not a gateway
	life      time.Duration
}

func newCASignCommand() *cobra.Command {
	var s signing
	var dir string
	cmd := &cobra.Command{
		Use:   "sign REQUEST",
		Short: "Certify a node, for what the manifests give to its site",
		Long: "Certifies the key in REQUEST (- for standard input) as a node of a site, for the prefixes\n" +
			"that the manifests give to the site on each slice, and prints the bundle that\n" +
			"`slicewire cert install` takes on the node. Site, node and index are yours to say:\n" +
			"nothing is taken from the request but its public key.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := readFileOrStdin(args[0], os.Stdin)
			if err != nil {
				return err
			}
			s.authority = statedir.Dir(dir)
			bundle, err := s.sign(request, time.Now())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(bundle)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "ca", "folder of the authority")
	f.StringSliceVar(&s.manifests, "manifests", []string{"manifests"}, "files or folders of manifests")
	f.StringVar(&s.id.Site, "site", "", "site of the node")
	f.StringVar(&s.id.Node, "node", "", "name of the node within its site")
	f.IntVar(&s.index, "index", 0, "number of the node within its site: each node of a site has its own")
	f.BoolVar(&s.plain, "no-gateway", false, "the node speaks for its own block only, not for its site")
	f.DurationVar(&s.life, "life", certLife, "how long the certificate is valid")
	for _, name := range []string{"site", "node"} {
		_ = cmd.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return cmd
}

// sign returns the bundle for the node that made the request.
func (s signing) sign(request []byte, now time.Time) ([]byte, error) {
	if s.life > maxCertLife {
		return nil, fmt.Errorf("a certificate for %v, at most %v: what lives longer could outlive its revocation", s.life, maxCertLife)
	}
	ca, err := loadAuthority(s.authority)
	if err != nil {
		return nil, err
	}
	data, err := s.authority.Read(statedir.FileGossipKey)
	if err != nil {
		return nil, fmt.Errorf("the authority's folder: %w (made by `slicewire ca init`)", err)
	}
	gossip, err := decodeGossipKey(string(data))
	if err != nil {
		return nil, err
	}
	mesh, err := meshOf(s.manifests, ca.Mesh(), now)
	if err != nil {
		return nil, err
	}
	grants, err := overlay.Grants(&mesh, s.id.Site, s.index, !s.plain)
	if err != nil {
		return nil, err
	}
	if len(grants) == 0 {
		return nil, fmt.Errorf("site %s is on no slice of the manifests: there is nothing to certify", s.id.Site)
	}
	chain, err := ca.Issue(request, pki.Subject{ID: s.id, Gateway: !s.plain, Index: s.index, Grants: grants}, now, s.life)
	if err != nil {
		return nil, err
	}
	if s.plain {
		gossip = nil
	}
	return encodeBundle(chain, ca.roots.Text(), gossip), nil
}

// An authority is the mesh's present one, with its key, and those before it.
type authority struct {
	*pki.CA
	roots *pki.Roots
}

// loadAuthority reads the authority that `slicewire ca init` made.
func loadAuthority(d statedir.Dir) (*authority, error) {
	text, err := d.Read(fileAuthorityCert)
	if err != nil {
		return nil, fmt.Errorf("the authority's folder: %w (made by `slicewire ca init`)", err)
	}
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Path(fileAuthorityCert), err)
	}
	// Once the next authority is in the one file, its key counts, in whichever file it is.
	var errs []error
	for _, name := range []string{fileAuthorityKey, fileAuthorityNext} {
		key, err := d.Read(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("the authority's folder: %w (made by `slicewire ca init`)", err))
			continue
		}
		ca, err := pki.LoadCA(roots.CertPEM(), key)
		if err == nil {
			return &authority{ca, roots}, nil
		}
		errs = append(errs, fmt.Errorf("the authority in %s: %w", d, err))
	}
	return nil, errs[0]
}

// meshOf reads manifests that must have no errors.
func meshOf(paths []string, name string, now time.Time) (overlay.Mesh, error) {
	mesh, problems := manifest.ReadMesh(paths, manifest.Options{Mesh: name, Now: now})
	var errs []error
	for _, p := range problems {
		if p.Severity == manifest.Error {
			errs = append(errs, errors.New(p.String()))
		}
	}
	return mesh, errors.Join(errs...)
}

// intermediate lets a gateway sign for some sites.
type intermediate struct {
	authority statedir.Dir
	manifests []string
	sites     []string
	life      time.Duration
}

func newCAIntermediateCommand() *cobra.Command {
	var s intermediate
	var dir string
	cmd := &cobra.Command{
		Use:   "intermediate REQUEST",
		Short: "Let a gateway certify nodes of some sites",
		Long: "Certifies the key in REQUEST (- for standard input), made by `slicewire cert request --issuer`,\n" +
			"as an issuer's, and prints the bundle that `slicewire cert install` takes on that gateway. It\n" +
			"then lets nodes of the sites in with tokens, renews their certificates and revokes them, for\n" +
			"the prefixes that the manifests give to the sites and no others. This folder can then be\n" +
			"taken offline, until slices are added or the issuer's own certificate ends.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := readFileOrStdin(args[0], os.Stdin)
			if err != nil {
				return err
			}
			s.authority = statedir.Dir(dir)
			bundle, err := s.sign(request, time.Now())
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(bundle)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "ca", "folder of the authority")
	f.StringSliceVar(&s.manifests, "manifests", []string{"manifests"}, "files or folders of manifests")
	f.StringSliceVar(&s.sites, "site", nil, "sites whose nodes the gateway may certify")
	f.DurationVar(&s.life, "life", issuerLife, "how long it may")
	_ = cmd.MarkFlagRequired("site") // fails only for a flag that does not exist
	return cmd
}

// sign returns the bundle for the gateway that made the request.
func (s intermediate) sign(request []byte, now time.Time) ([]byte, error) {
	ca, err := loadAuthority(s.authority)
	if err != nil {
		return nil, err
	}
	mesh, err := meshOf(s.manifests, ca.Mesh(), now)
	if err != nil {
		return nil, err
	}
	scope := pki.Scope{Sites: s.sites}
	for _, site := range s.sites {
		grants, err := overlay.Grants(&mesh, site, 0, true)
		if err != nil {
			return nil, err
		}
		if len(grants) == 0 {
			return nil, fmt.Errorf("site %s is on no slice of the manifests: there is nothing to certify", site)
		}
		scope.Grants = append(scope.Grants, grants...)
	}
	chain, err := ca.IssueIssuer(request, scope, now, s.life)
	if err != nil {
		return nil, err
	}
	return encodeBlocks(pemBlock(bundleIssuer, chain), pemBlock(bundleCA, ca.roots.Text())), nil
}

// maxInput bounds what is read from a user's file.
const maxInput = 1 << 20

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(data) > maxInput {
		err = fmt.Errorf("more than %d bytes: this is no request and no bundle", maxInput)
	}
	return data, err
}
