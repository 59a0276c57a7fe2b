package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newFlowsCommand(opts *clientOptions) *cobra.Command {
	var slice, output string
	var byRule bool
	cmd := &cobra.Command{
		Use:   "flows [--slice SLICE] [--rules] [-o json|yaml|table]",
		Short: "Show the flows that policy has allowed, or what each rule has decided",
		Long: "Lists the flows that this node remembers because a policy allowed them, newest first, with the\n" +
			"rules that did. A slice without a policy allows everything and remembers nothing.\n" +
			"With --rules it lists the rules and what they have allowed and denied.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			list, err := ask[api.FlowList](cmd.Context(), opts, http.MethodGet, "flows?slice="+url.QueryEscape(slice), nil)
			if err != nil {
				return err
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, list)
			}
			if byRule {
				return printRules(cmd.OutOrStdout(), list)
			}
			return printFlows(cmd.OutOrStdout(), list)
		},
	}
	cmd.Flags().StringVar(&slice, "slice", "", "slice (default: all)")
	cmd.Flags().BoolVar(&byRule, "rules", false, "list the rules instead of the flows")
	addOutputFlag(cmd, &output)
	return cmd
}

// ask sends a request to the daemon and reads its answer.
func ask[T any](ctx context.Context, opts *clientOptions, method, verb string, body any) (out T, err error) {
	r, err := newClient(opts.socket).do(ctx, method, verb, body)
	if err != nil {
		return out, err
	}
	defer r.Close()
	if err := json.NewDecoder(r).Decode(&out); err != nil {
		return out, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return out, nil
}

func printFlows(w io.Writer, list api.FlowList) error {
	t := show.NewTable(w)
	t.Row("SLICE", "PROTO", "SOURCE", "DESTINATION", "PACKETS", "BACK", "BYTES", "BACK", "AGE", "IDLE", "RULES")
	secs := func(s float64) string { return show.Short(time.Duration(s * float64(time.Second))) }
	for _, f := range list.Flows {
		t.Row(show.Clean(f.Slice), f.Protocol, socketOf(f.Source, f.SourcePort, f.Protocol), socketOf(f.Destination, f.DestinationPort, f.Protocol),
			f.Packets, f.BackPackets, show.Size(f.Bytes), show.Size(f.BackBytes), secs(f.AgeSecs), secs(f.IdleSecs), show.Dash(joinRules(f.Egress, f.Ingress)))
	}
	t.Flush()
	for _, s := range list.Slices {
		if s.Rules == 0 && t.Err == nil {
			_, t.Err = fmt.Fprintf(w, "slice %s has no policy: everything may pass, and no flow is remembered\n", show.Clean(s.Slice))
		}
	}
	return t.Err
}

func printRules(w io.Writer, list api.FlowList) error {
	t := show.NewTable(w)
	t.Row("SLICE", "RULE", "FLOWS", "PACKETS", "BYTES", "DENIED")
	for _, r := range list.Rules {
		t.Row(show.Clean(r.Slice), show.Clean(r.Name), r.Flows, r.Packets, show.Size(r.Bytes), r.Denied)
	}
	t.Flush()
	return t.Err
}

func joinRules(egress, ingress string) string {
	if egress != "" && ingress != "" {
		return egress + " + " + ingress
	}
	return cmp.Or(egress, ingress)
}

func socketOf(a netip.Addr, port uint16, protocol string) string {
	if protocol == "tcp" || protocol == "udp" {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}

func newTraceCommand(opts *clientOptions) *cobra.Command {
	var req api.TraceRequest
	var output string
	cmd := &cobra.Command{
		Use:   "trace SRC DST [-p PROTOCOL] [--sport N] [--dport N] [--slice SLICE] [--send]",
		Short: "Say what would happen to a packet on this node, stage by stage",
		Long: "Asks the running router what it would do with a packet that opens a connection from SRC to DST:\n" +
			"the same functions, routes and policy that the next real packet meets. Nothing is sent or counted.\n" +
			"SRC and DST are addresses, DNS names, namespace/service, site/node, or names of workloads.\n" +
			"Each node asks for its own ends: egress for a source, ingress for a destination. For the other\n" +
			"end, ask its node.\n\n" +
			"With --send it also sends such a packet, marked, and follows it from node to node: the port it came\n" +
			"in by, each router's verdict and rule, the shaper, the tunnels, the port it went out by, or where it\n" +
			"went missing. That is for root and the daemon's own user, and takes two seconds if nobody answers.\n\n" +
			"Exits 0 when the packet passes, and arrives if it was sent; 3 when it is dropped or goes missing.",
		Example: "  slicewire trace shop-1 iperf/web -p tcp --dport 80\n  slicewire trace 10.190.16.9 10.190.0.200 -p icmp",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			req.From, req.To = args[0], args[1]
			tr, err := ask[api.TraceReply](cmd.Context(), opts, http.MethodPost, "trace", req)
			if err != nil {
				return err
			}
			if output == "table" {
				err = printTrace(cmd.OutOrStdout(), tr, req)
			} else {
				err = show.Document(cmd.OutOrStdout(), output, tr)
			}
			if err == nil && (!tr.Passes || req.Send && !tr.Arrived) {
				err = &exitError{code: exitDegraded}
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVarP(&req.Protocol, "protocol", "p", "tcp", "tcp, udp, icmp, gre, sctp or a number")
	f.Uint16Var(&req.Sport, "sport", 40000, "source port, or the identifier of an echo")
	f.Uint16Var(&req.Dport, "dport", 0, "destination port")
	f.StringVar(&req.Slice, "slice", "", "slice (not needed when the node has one)")
	f.BoolVar(&req.Send, "send", false, "send one, too, and follow it from node to node")
	addOutputFlag(cmd, &output)
	return cmd
}

func printTrace(w io.Writer, tr api.TraceReply, req api.TraceRequest) error {
	if _, err := fmt.Fprintf(w, "%s from %s to %s on slice %s\n", tr.Protocol, socketOf(tr.Source, req.Sport, tr.Protocol), socketOf(tr.Destination, req.Dport, tr.Protocol), show.Clean(tr.Slice)); err != nil {
		return err
	}
	t := show.NewTable(w)
	for _, s := range tr.Stages {
		mark := "ok"
		if !s.OK {
			mark = "STOP"
		}
		t.Row(s.Stage, mark, show.Clean(s.Result))
	}
	t.Flush()
	if t.Err != nil {
		return t.Err
	}
	last := "passes this node"
	if !tr.Passes {
		last = "dropped, counted as " + tr.Drop
	}
	if _, err := fmt.Fprintln(w, last); err != nil || tr.Sent == "" {
		return err
	}
	return printHops(w, tr)
}

// printHops prints where a packet that was sent was seen.
func printHops(w io.Writer, tr api.TraceReply) error {
	if _, err := fmt.Fprintf(w, "sent: %s\n", show.Clean(tr.Sent)); err != nil {
		return err
	}
	t := show.NewTable(w)
	for _, h := range tr.Hops {
		mark := "ok"
		if !h.OK {
			mark = "STOP"
		}
		t.Row(show.Clean(h.Node), show.Clean(h.Point), mark, show.Clean(h.Result))
	}
	t.Flush()
	return t.Err
}
