package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

// tokenLife is how long a join token is good unless told otherwise: long enough
// to carry it to a machine, too short to be found in a drawer.
const tokenLife = time.Hour

func newTokenCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make join tokens, on a gateway that certifies nodes"}
	cmd.AddCommand(newTokenCreateCommand(opts), newTokenRevokeCommand(opts))
	return cmd
}

func newTokenCreateCommand(opts *clientOptions) *cobra.Command {
	var req api.TokenRequest
	var output string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Print a token that lets one node in, once",
		Long: "Has the daemon of a gateway with an issuer's key (slicewire ca intermediate) note a new join\n" +
			"token, and prints it. Whoever has it can be that node until it is used: pass it on like a\n" +
			"password. On the node: slicewire join TOKEN.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			r, err := call[api.TokenReply](cmd.Context(), newClient(opts.socket), http.MethodPost, "token", req)
			if err != nil {
				return err
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, r)
			}
			// The token alone on standard output, so that it can be piped.
			if _, err := fmt.Fprintf(cmd.ErrOrStderr(), "for %s/%s, slices %v, until %s, used once:\n", r.Site, r.Node, r.Slices, r.Expires.UTC().Format(time.RFC3339)); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), r.Token)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Site, "site", "", "site of the node (default: the gateway's own)")
	f.StringVar(&req.Node, "node", "", "name of the node within its site")
	f.StringSliceVar(&req.Slices, "slices", nil, "slices it may take part in (default: all of its site)")
	f.BoolVar(&req.Gateway, "gateway", false, "the node speaks for its whole site, not only for its own block")
	f.IntVar(&req.Index, "index", -1, "number of the node within its site (default: the first that is free)")
	f.DurationVar(&req.TTL, "ttl", tokenLife, "how long the token is good")
	f.StringSliceVar(&req.Addresses, "address", nil, "host:port at which the node reaches this gateway (default: as the gateway tells others)")
	addOutputFlag(cmd, &output)
	_ = cmd.MarkFlagRequired("node") // fails only for a flag that does not exist
	return cmd
}

func newTokenRevokeCommand(opts *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Make a token void that was not used yet",
		Long:  "Has the daemon that made a token forget it. `slicewire cert list` shows tokens by their ID. A node\nthat was let in already is put out with `slicewire cert revoke`.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call[struct{}](cmd.Context(), newClient(opts.socket), http.MethodPost, "token-revoke", api.TokenRevokeRequest{ID: args[0]})
			return err
		},
	}
}
