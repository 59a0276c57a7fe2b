package main

import (
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newGossipKeyCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "gossip-key", Short: "Change the key that all nodes of a mesh share for their gossip"}
	cmd.AddCommand(newGossipKeyRotateCommand(opts))
	return cmd
}

func newGossipKeyRotateCommand(opts *clientOptions) *cobra.Command {
	var req api.GossipKeyRequest
	var output string
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Give every node that is not revoked a new gossip key, and refuse the old one",
		Long: "Has the daemon of a gateway with an issuer's key (slicewire ca intermediate) make a new key.\n" +
			"Every node fetches it there, showing its certificate; all begin to send with it at the same\n" +
			"time and refuse the old key later. Nothing is interrupted. A revoked node gets none and hears\n" +
			"nothing any more. A node that was off meanwhile asks for it when it is back.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			r, err := call[api.GossipKeyReply](cmd.Context(), newClient(opts.socket), http.MethodPost, "gossip-key", req)
			if err != nil {
				return err
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, r)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "new gossip key, in use from %s, the old one refused from %s\n",
				r.UseAt.UTC().Format(time.RFC3339), r.DropAt.UTC().Format(time.RFC3339))
			return err
		},
	}
	cmd.Flags().DurationVar(&req.Within, "within", defaultKeyChange, "how long the change may take: longer where nodes are hard to reach")
	addOutputFlag(cmd, &output)
	return cmd
}
