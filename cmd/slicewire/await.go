package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
)

// awaitPause is how long is waited between two attempts.
const awaitPause = 250 * time.Millisecond

func newAwaitCommand() *cobra.Command {
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "await HOST:PORT...",
		Short: "Wait until TCP connections are accepted, for tests of an installation",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			for _, addr := range args {
				if err := await(ctx, addr); err != nil {
					return fmt.Errorf("%s accepts no connections within %v: %w", addr, within, err)
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), addr, "accepts connections"); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&within, "within", time.Minute, "how long to wait for all")
	return cmd
}

// await connects until it succeeds or ctx ends, and returns the last error that
// is not of the time.
func await(ctx context.Context, addr string) error {
	tick := time.NewTicker(awaitPause)
	defer tick.Stop()
	var last error
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return c.Close()
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last
		}
	}
}
