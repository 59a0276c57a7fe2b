package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"slicewire/overlay"
	"slicewire/overlay/pki"
	"slicewire/overlay/pki/join"
	"slicewire/show"
	"slicewire/statedir"
)

// A joining is one `slicewire join`.
type joining struct {
	state   statedir.Dir
	mesh    string
	want    overlay.NodeID
	replace bool
	wall    func() time.Time

	admit func(ctx context.Context, request []byte) (join.Admission, error)
	pins  func(roots *pki.Roots, root [32]byte) error // whether what is admitted to is what was meant
}

func newJoinCommand() *cobra.Command {
	var dir, site, node string
	var replace bool
	var pod podJoining
	cmd := &cobra.Command{
		Use:   "join TOKEN | join --kubernetes --issuer HOST:PORT --authority FILE --site SITE",
		Short: "Become a node of a mesh with a join token",
		Long: "Makes this node's key in its state folder, unless it is there, has the gateway that the token\n" +
			"names certify it, and installs the certificate. The key does not leave the folder. With -, the\n" +
			"token is read from standard input: arguments can be seen by other users.\n\n" +
			"A pod needs no token: with --kubernetes it shows the one that its cluster gave it to a gateway\n" +
			"that lets the cluster's pods in (join.kubernetes of its node file), and asks until it is let in.\n" +
			"A certificate that the folder has already and that is good is kept.",
		Args: func(cmd *cobra.Command, args []string) error {
			if pod.on {
				return cobra.NoArgs(cmd, args)
			}
			return cobra.ExactArgs(1)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if pod.on {
				pod.state, pod.want, pod.replace, pod.wall = statedir.Dir(dir), overlay.NodeID{Site: site, Node: node}, replace, wallClock(cmd.Context())
				return pod.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			text := []byte(args[0])
			if args[0] == "-" {
				var err error
				if text, err = readBounded(os.Stdin); err != nil {
					return err
				}
			}
			token, err := join.ParseToken(string(text))
			if err != nil {
				return err
			}
			want := overlay.NodeID{Site: cmp.Or(site, token.Node.Site), Node: cmp.Or(node, token.Node.Node)}
			a, err := joining{
				state: statedir.Dir(dir), mesh: token.Mesh, want: want, replace: replace, wall: wallClock(cmd.Context()), pins: token.Pins,
				admit: func(ctx context.Context, request []byte) (join.Admission, error) {
					return join.Join(ctx, token, want, request)
				},
			}.run(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%v of mesh %s, certified until %s, on %d slices\n"+
				"next: a node file with mesh: %s, site: %s, node: %s, and slicewire daemon --config FILE\n",
				a.ID, a.Mesh, a.NotAfter.UTC().Format(time.RFC3339), len(a.Grants), a.Mesh, a.ID.Site, a.ID.Node)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "state", defaultStateDir(), "state folder of the node")
	f.StringVar(&site, "site", "", "refuse a token for another site")
	f.StringVar(&node, "node", "", "refuse a token for a node of another name")
	f.BoolVar(&replace, "replace", false, "replace the certificate that the folder has")
	pod.flags(f)
	return cmd
}

func (j joining) run(ctx context.Context) (overlay.Authority, error) {
	var none overlay.Authority
	if err := j.state.Create(); err != nil {
		return none, err
	}
	release, err := j.state.Lock()
	if err != nil {
		return none, err
	}
	defer release()
	if _, err := os.Lstat(j.state.Path(statedir.FileNodeCert)); err == nil && !j.replace {
		return none, fmt.Errorf("the state folder %s has a certificate already: give --replace to have a new one, or another folder", j.state)
	}
	request, err := requestIdentity(j.state)
	if err != nil {
		return none, err
	}
	got, err := j.admit(ctx, request)
	if refusal, ok := errors.AsType[join.Refusal](err); ok {
		return none, fmt.Errorf("not let in: %w", join.Refusal{Reason: refusal.Reason, Text: show.Clean(refusal.Text)})
	}
	if err != nil {
		return none, err
	}
	a, err := checkBundle(j.state, encodeBundle(got.Chain, got.Root, got.Gossip), j.wall)
	if err == nil && (a.authority.ID != j.want || a.authority.Mesh != j.mesh) {
		err = fmt.Errorf("certified as %v of mesh %s instead of %v of mesh %s", a.authority.ID, a.authority.Mesh, j.want, j.mesh)
	}
	if err == nil {
		err = j.pins(a.roots, a.hangs)
	}
	if err != nil {
		return none, err
	}
	return a.authority, a.install(j.state)
}

// wallKey is how tests give a command another wall clock.
type wallKey struct{}

// wallClock returns the machine's wall clock.
func wallClock(ctx context.Context) func() time.Time {
	if wall, ok := ctx.Value(wallKey{}).(func() time.Time); ok {
		return wall
	}
	return time.Now
}
