package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newPingCommand(opts *clientOptions) *cobra.Command {
	var req api.PingRequest
	cmd := &cobra.Command{
		Use:   "ping TARGET",
		Short: "Send echo requests through a slice",
		Long: "Sends ICMP echo requests from this node through a slice.\n" +
			"TARGET is an address, a DNS name, namespace/service, or site/node.\n" +
			"Exits 0 when every request was answered, 3 when some were, 4 when none was.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Target = args[0]
			sent, answered := 0, 0
			var best, worst, sum float64
			w := cmd.OutOrStdout()
			err := newClient(opts.socket).ping(cmd.Context(), req, func(p api.PingReply) {
				sent++
				if p.Error != "" {
					fmt.Fprintf(w, "%s on %s: seq=%d %s\n", p.Address, show.Clean(p.Slice), p.Seq, show.Clean(p.Error))
					return
				}
				if answered == 0 || p.RTTMs < best {
					best = p.RTTMs
				}
				worst, sum, answered = max(worst, p.RTTMs), sum+p.RTTMs, answered+1
				fmt.Fprintf(w, "%s on %s: seq=%d time=%.3f ms\n", p.Address, show.Clean(p.Slice), p.Seq, p.RTTMs)
			})
			if err != nil {
				return err
			}
			if answered > 0 {
				fmt.Fprintf(w, "%d of %d answered, rtt min/avg/max %.3f/%.3f/%.3f ms\n", answered, sent, best, sum/float64(answered), worst)
			}
			switch answered {
			case sent:
				return nil
			case 0:
				return &exitError{exitUnreachable, fmt.Errorf("no answer from %s: see `slicewire status` for the handshakes of its slice", req.Target)}
			}
			return &exitError{code: exitDegraded}
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Slice, "slice", "", "slice to ping on (not needed when the node has one)")
	f.IntVarP(&req.Count, "count", "c", 4, "how many requests (1 to 1000)")
	f.DurationVarP(&req.Interval, "interval", "i", time.Second, "time between requests")
	f.DurationVar(&req.Timeout, "timeout", 2*time.Second, "how long to wait for each answer")
	return cmd
}
