package main

import (
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/pki"
	"slicewire/show"
	"slicewire/statedir"
)

func newCertCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "Ask for, install, list, renew and revoke certificates"}
	cmd.AddCommand(newCertRequestCommand(), newCertInstallCommand(), newCertListCommand(opts), newCertRenewCommand(opts), newCertRevokeCommand(opts))
	return cmd
}

func newCertRequestCommand() *cobra.Command {
	var dir string
	var issuer bool
	cmd := &cobra.Command{
		Use:   "request",
		Short: "Print a certificate request for this node's key",
		Long:  "Makes this node's key in its state folder, unless it is there, and prints a certificate\nrequest for it. The key does not leave the folder.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			name := statedir.FileNodeKey
			if issuer {
				name = statedir.FileIssuerKey
			}
			request, err := requestFor(statedir.Dir(dir), name)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(request)
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state", defaultStateDir(), "state folder of the node")
	cmd.Flags().BoolVar(&issuer, "issuer", false, "for the key with which this gateway certifies others (see `slicewire ca intermediate`)")
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
			a, err := installBundle(statedir.Dir(dir), bundle, wallClock(cmd.Context()))
			if err != nil {
				return err
			}
			if a.Issuer != nil {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "issuer of mesh %s for nodes of %s, certified until %s\n"+
					"next: slicewire reload, or start the daemon anew if it was no issuer yet\n",
					a.Mesh, strings.Join(a.Issuer.Sites, ", "), a.NotAfter.Format(time.RFC3339))
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%v of mesh %s, certified until %s\n", a.ID, a.Mesh, a.NotAfter.Format(time.RFC3339))
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state", defaultStateDir(), "state folder of the node")
	return cmd
}

func newCertListCommand(opts *clientOptions) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the certificates, revocations and join tokens that this node knows",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			l, err := call[api.CertificateList](cmd.Context(), newClient(opts.socket), http.MethodGet, "certificates", nil)
			if err != nil {
				return err
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, l)
			}
			return printCertificates(cmd.OutOrStdout(), l, time.Now())
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// sumWidth is how much of a key's sum a table shows.
const sumWidth = 16

func printCertificates(w io.Writer, l api.CertificateList, now time.Time) error {
	t := show.NewTable(w)
	printAuthorities(t, l.Authorities, now)
	t.Row("NODE", "ROLE", "INDEX", "SLICES", "ENROLLED", "ENDS IN", "KEY", "ISSUER", "AUTHORITY")
	for _, c := range l.Certificates {
		role, name := "node", show.Clean(c.Site+"/"+c.Node)
		if c.Gateway {
			role = "gateway"
		}
		if c.Own {
			name += " (this)"
		}
		issuer := "authority"
		if c.Issuer != "" {
			issuer = shorten(c.Issuer)
		}
		t.Row(name, role, c.Index, show.Dash(strings.Join(c.Slices, ",")), c.Enrolled.UTC().Format(time.RFC3339), show.Short(c.NotAfter.Sub(now)), shorten(c.Key), issuer, shorten(c.Authority))
	}
	t.Flush()
	t.Row("REVOKED", "ENROLLED UP TO", "BY", "HOLDS UNTIL")
	for _, r := range l.Revocations {
		until := "-"
		if r.Until != nil {
			until = r.Until.UTC().Format(time.RFC3339)
		}
		t.Row(show.Clean(r.What), until, show.Clean(r.By), r.NotAfter.UTC().Format(time.RFC3339))
	}
	t.Flush()
	t.Row("TOKEN", "FOR", "STATE")
	for _, x := range l.Tokens {
		state := "expires in " + show.Short(x.Expires.Sub(now))
		switch {
		case x.Used != nil:
			state = "used at " + x.Used.UTC().Format(time.RFC3339)
		case !now.Before(x.Expires):
			state = "expired"
		}
		t.Row(show.Clean(x.ID), show.Clean(x.Site+"/"+x.Node), state)
	}
	t.Flush()
	return t.Err
}

func shorten(sum string) string { return show.Clean(sum[:min(len(sum), sumWidth)]) }

func newCertRenewCommand(opts *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "renew",
		Short: "Have the daemon renew its certificate now",
		Long:  "Has the daemon ask a gateway that certifies nodes for a younger certificate. It does so by\nitself at half the certificate's life.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := call[api.RenewReply](cmd.Context(), newClient(opts.socket), http.MethodPost, "renew", struct{}{})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "certified until %s\n", r.NotAfter.UTC().Format(time.RFC3339))
			return err
		},
	}
}

// A revoking is one `slicewire cert revoke`.
type revoking struct {
	authority string // folder; empty: the daemon's own issuer signs
	key       string // of an issuer or node, instead of a name
	file      string // a revocation that was signed elsewhere
	args      []string
}

// blockRevocation is the PEM block of a signed revocation.
const blockRevocation = "SLICEWIRE REVOCATION"

func newCertRevokeCommand(opts *clientOptions) *cobra.Command {
	var r revoking
	cmd := &cobra.Command{
		Use:   "revoke SITE/NODE",
		Short: "Make a node's certificates void, everywhere and for good",
		Long: "Has the daemon of a gateway that certifies the site's nodes sign and tell that the node's\n" +
			"certificates are void. Its tunnels are cut everywhere within seconds. The node comes back only\n" +
			"with a new join token.\n\n" +
			"With --ca, the authority in a folder signs instead, and the revocation is printed: hand it to any\n" +
			"daemon with --file. Only so can the key of an issuer be revoked (--key), and with it everything\n" +
			"that it has signed; `slicewire cert list -o json` shows keys.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r.args = args
			req, err := r.request(time.Now())
			if err != nil {
				return err
			}
			if r.authority != "" {
				return pem.Encode(cmd.OutOrStdout(), pemBlock(blockRevocation, req.Revocation))
			}
			_, err = call[struct{}](cmd.Context(), newClient(opts.socket), http.MethodPost, "revoke", req)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.authority, "ca", "", "sign with the authority in this folder and print the revocation")
	f.StringVar(&r.key, "key", "", "revoke this key and all that it has signed, instead of a node (with --ca)")
	f.StringVar(&r.file, "file", "", "hand this revocation to the daemon (- for standard input)")
	return cmd
}

var errRevokeWhat = &exitError{exitUsage, errors.New("cert revoke: name a SITE/NODE, or a --key with --ca, or a --file")}

// request is what is asked of the daemon, or, with an authority, what it signed.
func (r revoking) request(now time.Time) (api.RevokeRequest, error) {
	if r.file != "" {
		if len(r.args) != 0 || r.key != "" || r.authority != "" {
			return api.RevokeRequest{}, errRevokeWhat
		}
		text, err := readFileOrStdin(r.file, os.Stdin)
		if err != nil {
			return api.RevokeRequest{}, err
		}
		b, _ := pem.Decode(text)
		if b == nil || b.Type != blockRevocation {
			return api.RevokeRequest{}, fmt.Errorf("%s holds no %q block: it is what `slicewire cert revoke --ca` prints", r.file, blockRevocation)
		}
		return api.RevokeRequest{Revocation: b.Bytes}, nil
	}
	var what overlay.Revocation
	switch {
	case len(r.args) == 1 && r.key == "":
		site, node, _ := strings.Cut(r.args[0], "/")
		if !overlay.ValidLabel(site) || !overlay.ValidLabel(node) {
			return api.RevokeRequest{}, &exitError{exitUsage, fmt.Errorf("node %q: want SITE/NODE", r.args[0])}
		}
		if r.authority == "" {
			return api.RevokeRequest{Site: site, Node: node}, nil
		}
		what = overlay.Revocation{Node: overlay.NodeID{Site: site, Node: node}, Until: now.Add(revocationMargin)}
	case len(r.args) == 0 && r.key != "" && r.authority != "":
		key, err := hex.DecodeString(r.key)
		if err != nil || len(key) != len(what.Key) {
			return api.RevokeRequest{}, &exitError{exitUsage, fmt.Errorf("key %q: want the %d hexadecimal digits that `slicewire cert list -o json` shows", r.key, 2*len(what.Key))}
		}
		what.Key = [32]byte(key)
	default:
		return api.RevokeRequest{}, errRevokeWhat
	}
	ca, err := loadAuthority(statedir.Dir(r.authority))
	if err != nil {
		return api.RevokeRequest{}, err
	}
	verifier, err := pki.NewVerifier(ca.Mesh(), ca.roots.Text())
	if err != nil {
		return api.RevokeRequest{}, err
	}
	limits, err := verifier.Authority(ca.Chain(), now)
	if err != nil {
		return api.RevokeRequest{}, err
	}
	message, err := newRevocation(ca, limits, what, now.Add(revocationLife), 0)
	return api.RevokeRequest{Revocation: message}, err
}
