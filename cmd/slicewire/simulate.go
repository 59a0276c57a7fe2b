package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"slicewire/show"
	"slicewire/simulate"
)

func newSimulateCommand() *cobra.Command {
	var output string
	var withGossip bool
	cmd := &cobra.Command{
		Use:   "simulate [--gossip] [-o json|yaml|table] FILE",
		Short: "Say what failures would do to a mesh, without a mesh",
		Long: `Reads a scenario (nodes and the links between them, your own manifests, and what
happens when) and prints which paths move, when, and who cannot talk to whom for
how long. Nothing of it touches a network.

What is real: addresses and prefixes come from the manifests as the daemon works
them out. Links are probed, found down and up again, and paths chosen by the code
that does it in a daemon, with its probes as they are sent, in virtual time: an
hour takes seconds, and the same seed gives the same.

What is modelled: links, with delay, jitter, loss, duplication and reordering as
the scenario says. Tunnels are up where a link is; handshakes, queues, bandwidth
and the packets of workloads are not there. A slice is taken to be in use. A node
that is down or stalled is not counted as unreachable. A node that joins is known
to all at once, and one that restarts remembers everything.

With --gossip the nodes' real gossip runs over the same links as well, with real
certificates, and in real time: it takes as long as the scenario. It says when
what a node tells after a start was known everywhere, and that decides from when
on the others have paths to a node that joins.

Exits 0 whatever it finds, 1 when the scenario or the manifests have errors.`,
		Example: "  slicewire simulate docs/scenarios/two-gateways.yaml\n  slicewire simulate --gossip -o json scenario.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSimulate(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), output, withGossip, args[0])
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().BoolVar(&withGossip, "gossip", false, "run the real gossip too, in real time")
	return cmd
}

func runSimulate(ctx context.Context, stdout, stderr io.Writer, output string, withGossip bool, path string) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	report, err := simulate.Run(ctx, path, withGossip, stderr)
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	if output == "table" {
		err = report.Print(stdout)
	} else {
		err = show.Document(stdout, output, report)
	}
	if err != nil {
		return fmt.Errorf("simulate: write: %w", err)
	}
	return nil
}
