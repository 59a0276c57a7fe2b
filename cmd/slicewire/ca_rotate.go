package main

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/overlay/gossip"
	"slicewire/overlay/pki"
	"slicewire/show"
	"slicewire/statedir"
)

// blockAuthority is the PEM block of what an authority says of itself.
const blockAuthority = "SLICEWIRE AUTHORITY"

func newCARotateCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the mesh's authority with a new one, which the present one certifies",
		Long: "Makes the next authority in the folder and prints its statement: hand it to any node with\n" +
			"`slicewire ca announce`. Every node then trusts both. From now on the folder signs as the new\n" +
			"authority; the old key is gone from it. Then:\n\n" +
			"  1. slicewire ca announce authority.pem         on any node\n" +
			"  2. slicewire cert list                         on every node, or some: both authorities are listed\n" +
			"  3. slicewire ca intermediate ... issuer.csr    for each issuer again, from the request that it made\n" +
			"     at first or a new one; there: slicewire cert install, slicewire reload\n" +
			"  4. nodes renew their certificates by themselves, within moments; slicewire cert list shows who has.\n" +
			"     Those without an issuer for their site: slicewire ca sign, cert install, reload\n" +
			"  5. slicewire ca retire                         and announce what it prints\n\n" +
			"Names, addresses and keys of slices stay as they are.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := rotateAuthority(statedir.Dir(dir), time.Now())
			if err != nil {
				return err
			}
			return printStatement(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "ca", "folder of the authority")
	return cmd
}

// rotateAuthority makes the next authority the present one of a folder. The
// folder is whole at every moment: the next key is there before the certificate,
// and the certificate decides whose key counts, see loadAuthority.
func rotateAuthority(d statedir.Dir, now time.Time) ([]byte, error) {
	a, err := loadAuthority(d)
	if err != nil {
		return nil, err
	}
	for _, s := range a.roots.Status(now)[1:] {
		if !s.Retired {
			return nil, fmt.Errorf("authority %x before the present one is not retired yet: end that change first (slicewire ca retire)", s.Key[:8])
		}
	}
	next, s, err := a.Succeed(now, caLife)
	if err != nil {
		return nil, err
	}
	roots, err := a.roots.Add(s)
	if err != nil {
		return nil, err
	}
	key, err := next.KeyPEM()
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		func() error { return d.Write(fileAuthorityNext, key) },
		func() error { return d.Write(fileAuthorityCert, roots.Text()) },
		func() error { return os.Rename(d.Path(fileAuthorityNext), d.Path(fileAuthorityKey)) },
		func() error { return statedir.SyncDir(string(d)) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return statementOf(&authority{next, roots})
}

func newCARetireCommand() *cobra.Command {
	var dir string
	var after time.Duration
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "Say when the authority before the present one is trusted no longer",
		Long: "Prints the present authority's statement that the one before is trusted until then: hand it to\n" +
			"any node with `slicewire ca announce`. When the time has come, every node refuses what hangs on\n" +
			"the old authority only: certificates, records, revocations. Whoever has its key has nothing any\n" +
			"more. Nodes that still have such a certificate are cut off and have to join again, so see before\n" +
			"that `slicewire cert list` shows none. Said again, the later statement counts, until that time.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := retireAuthority(statedir.Dir(dir), time.Now(), after)
			if err != nil {
				return err
			}
			return printStatement(cmd.OutOrStdout(), s)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "ca", "folder of the authority")
	cmd.Flags().DurationVar(&after, "after", 24*time.Hour, "how long it is still trusted; 0 if its key was stolen")
	return cmd
}

func retireAuthority(d statedir.Dir, now time.Time, after time.Duration) ([]byte, error) {
	if after < 0 {
		return nil, &exitError{exitUsage, fmt.Errorf("retire after %v: that is over", after)}
	}
	a, err := loadAuthority(d)
	if err != nil {
		return nil, err
	}
	last := a.roots.Last()
	if last == nil {
		return nil, errors.New("there is no authority before the present one: slicewire ca rotate makes the next")
	}
	if s := a.roots.Status(now)[1]; s.Retired {
		return nil, fmt.Errorf("authority %x is retired already, since %s", s.Key[:8], s.Retires.Format(time.RFC3339))
	}
	s, err := a.Retire(last, now, now.Add(after))
	if err != nil {
		return nil, err
	}
	if a.roots, err = a.roots.Add(s); err != nil {
		return nil, err
	}
	if err := d.Write(fileAuthorityCert, a.roots.Text()); err != nil {
		return nil, err
	}
	return statementOf(a)
}

// A successor signs with the certificate that the authority before it has made.
type successor struct {
	*pki.CA
	came *pki.Succession
}

// Chain returns that certificate.
func (s successor) Chain() [][]byte { return s.came.Chain() }

// statementOf is what the present authority says of itself, as gossip takes it.
func statementOf(a *authority) ([]byte, error) {
	s := a.roots.Last()
	if s == nil {
		return nil, errors.New("the authority is the mesh's first: it needs no statement")
	}
	return gossip.SealRoot(successor{a.CA, s}, s.Key(), s.Bytes(), s.Serial, s.NotAfter())
}

func printStatement(w io.Writer, statement []byte) error {
	return pem.Encode(w, pemBlock(blockAuthority, statement))
}

func newCAShowCommand() *cobra.Command {
	var dir string
	var statement bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the authorities in a folder, or print the last statement again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := loadAuthority(statedir.Dir(dir))
			if err != nil {
				return err
			}
			if statement {
				s, err := statementOf(a)
				if err != nil {
					return err
				}
				return printStatement(cmd.OutOrStdout(), s)
			}
			now := time.Now()
			t := show.NewTable(cmd.OutOrStdout())
			printAuthorities(t, authorityStatus(a.roots.Status(now)), now)
			return t.Err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "ca", "folder of the authority")
	cmd.Flags().BoolVar(&statement, "statement", false, "print what `ca rotate` or `ca retire` printed last")
	return cmd
}

func newCAAnnounceCommand(opts *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "announce STATEMENT",
		Short: "Hand what `ca rotate` or `ca retire` printed to a node, which tells all others",
		Long: "Hands the statement (- for standard input) to the daemon, which believes it only if an authority\n" +
			"that it trusts has certified the one that speaks, and tells all nodes of the mesh.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readFileOrStdin(args[0], os.Stdin)
			if err != nil {
				return err
			}
			b, _ := pem.Decode(text)
			if b == nil || b.Type != blockAuthority {
				return fmt.Errorf("%s holds no %q block: it is what `slicewire ca rotate` and `slicewire ca retire` print", args[0], blockAuthority)
			}
			r, err := call[api.AnnounceReply](cmd.Context(), newClient(opts.socket), http.MethodPost, "authority", api.AnnounceRequest{Statement: b.Bytes})
			if err != nil {
				return err
			}
			t := show.NewTable(cmd.OutOrStdout())
			printAuthorities(t, r.Authorities, time.Now())
			return t.Err
		},
	}
}

func printAuthorities(t *show.Table, all []api.AuthorityStatus, now time.Time) {
	t.Row("AUTHORITY", "STATE", "ENDS IN")
	for i, a := range all {
		state := "present"
		switch {
		case a.Retired:
			state = "retired"
		case a.Retires != nil:
			state = "retires in " + show.Short(a.Retires.Sub(now))
		case i > 0:
			state = "trusted"
		}
		t.Row(shorten(a.Key), state, show.Short(a.NotAfter.Sub(now)))
	}
	t.Flush()
}
