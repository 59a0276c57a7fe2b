package main

import (
	"crypto/rand"
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
)

// Lifetimes of what the command line signs. A node certificate that is signed
// by hand is renewed by hand, so it lives long.
const (
	caLife   = 10 * 365 * 24 * time.Hour
	certLife = 90 * 24 * time.Hour
)

// Names of the files in an authority's folder, which is a stateDir of its own.
const (
	fileAuthorityCert = "ca.crt"
	fileAuthorityKey  = "ca.key"
)

func newCACommand() *cobra.Command {
	cmd := &cobra.Command{Use: "ca", Short: "Be the mesh's certificate authority"}
	cmd.AddCommand(newCAInitCommand(), newCASignCommand())
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
			if err := initAuthority(stateDir(dir), mesh, time.Now()); err != nil {
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

func initAuthority(d stateDir, mesh string, now time.Time) error {
	if _, err := os.Stat(d.path(fileAuthorityKey)); err == nil {
		return fmt.Errorf("%s holds an authority already", d)
	}
	if err := d.create(); err != nil {
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
	gossip := make([]byte, gossipKeyBytes)
	rand.Read(gossip)
	return errors.Join(
		d.write(fileGossipKey, []byte(base64.StdEncoding.EncodeToString(gossip)+"\n")),
		d.write(fileAuthorityCert, ca.CertPEM()), d.write(fileAuthorityKey, key))
}

// A signing is a request to certify a node.
type signing struct {
	authority stateDir
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
			s.authority = stateDir(dir)
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
	var files [3][]byte
	for i, name := range []string{fileAuthorityCert, fileAuthorityKey, fileGossipKey} {
		data, err := s.authority.read(name)
		if err != nil {
			return nil, fmt.Errorf("the authority's folder: %w (made by `slicewire ca init`)", err)
		}
		files[i] = data
	}
	ca, err := pki.LoadCA(files[0], files[1])
	if err != nil {
		return nil, fmt.Errorf("the authority in %s: %w", s.authority, err)
	}
	gossip, err := decodeGossipKey(string(files[2]))
	if err != nil {
		return nil, err
	}
	mesh, problems := readMesh(s.manifests, manifest.Options{Mesh: ca.Mesh(), Now: now})
	var errs []error
	for _, p := range problems {
		if p.Severity == manifest.Error {
			errs = append(errs, errors.New(p.String()))
		}
	}
	if err := errors.Join(errs...); err != nil {
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
	return encodeBundle(chain, ca.CertPEM(), gossip), nil
}

func newCertCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Ask for and install a node's certificate"}
	cmd.AddCommand(newCertRequestCommand(), newCertInstallCommand())
	return cmd
}

func newCertRequestCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Print a certificate request for this node's key",
		Long:  "Makes this node's key in its state folder, unless it is there, and prints a certificate\nrequest for it. The key does not leave the folder.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request, err := requestIdentity(stateDir(dir))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(request)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state", defaultStateDir(), "state folder of the node")
	return cmd
}

func newCertInstallCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "install BUNDLE",
		Short: "Install the bundle that the authority printed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bundle, err := readFileOrStdin(args[0], os.Stdin)
			if err != nil {
				return err
			}
			a, err := installBundle(stateDir(dir), bundle, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%v of mesh %s, certified until %s\n", a.ID, a.Mesh, a.NotAfter.Format(time.RFC3339))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state", defaultStateDir(), "state folder of the node")
	return cmd
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
