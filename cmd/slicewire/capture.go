package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newCaptureCommand(opts *clientOptions) *cobra.Command {
	var req api.CaptureRequest
	var file string
	cmd := &cobra.Command{
		Use:   "capture [FILTER] -w FILE|-",
		Short: "Write packets of a slice to a pcapng file",
		Long: "Writes what passes on this node as pcapng, for Wireshark or `tshark -r -`.\n" +
			"Points: port (workloads and the node itself), tunnel (inner packets), shaper (those that go to be\n" +
			"encrypted), underlay (outer datagrams) and drop (what goes no further, with the reason as the packet's comment).\n" +
			"FILTER is like tcpdump's: host, net, port, portrange, proto, tcp, udp, icmp, icmp6, sctp,\n" +
			"gre, esp, ip, ip6, fragment, in, out, reason NAME; src, dst; and, or, not, parentheses.\n" +
			"For root and the daemon's own user. Ends with Ctrl-C, or after --count packets.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Filter = strings.Join(args, " ")
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return runCapture(ctx, newClient(opts.socket), req, file, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Slice, "slice", "", "slice to capture on (default all of the node)")
	f.StringSliceVar(&req.Points, "point", []string{"port"}, "where: port, tunnel, shaper, underlay, drop; several with commas")
	f.StringVarP(&file, "write", "w", "", "file to write, - for standard output")
	f.IntVar(&req.Snap, "snap", 0, "bytes of each packet to keep (default 2048)")
	f.Uint64VarP(&req.Count, "count", "c", 0, "end after so many packets (default never)")
	return cmd
}

// runCapture copies a capture into a file of the client's own.
func runCapture(ctx context.Context, c *client, req api.CaptureRequest, file string, stdout, stderr io.Writer) (err error) {
	if file == "" {
		return &exitError{exitUsage, errors.New("capture: no file to write: give -w FILE, or -w - for standard output")}
	}
	resp, err := c.open(ctx, http.MethodPost, "capture", req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := stdout
	if file != "-" {
		f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) // what it holds is not for everybody
		if err != nil {
			return fmt.Errorf("capture: %w", err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	fmt.Fprintln(stderr, "capturing; end with Ctrl-C")
	in := bufio.NewReaderSize(resp.Body, 64<<10)
	switch _, err = io.Copy(out, in); {
	case ctx.Err() != nil: // as asked
	case err != nil:
		return fmt.Errorf("capture: %w", err)
	default:
		fmt.Fprintf(stderr, "%s packets matched, %s of them lost for want of room\n", show.Clean(resp.Trailer.Get(trailerMatched)), show.Clean(resp.Trailer.Get(trailerLost)))
	}
	return nil
}
