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
			list, err := ask[FlowList](cmd.Context(), opts, http.MethodGet, "flows?slice="+url.QueryEscape(slice), nil)
			if err != nil {
				return err
			}
			if output != "table" {
				return printDocument(cmd.OutOrStdout(), output, list)
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

func printFlows(w io.Writer, list FlowList) error {
	t := newTable(w)
	t.row("SLICE", "PROTO", "SOURCE", "DESTINATION", "PACKETS", "BACK", "BYTES", "BACK", "AGE", "IDLE", "RULES")
	secs := func(s float64) string { return short(time.Duration(s * float64(time.Second))) }
	for _, f := range list.Flows {
		t.row(clean(f.Slice), f.Protocol, socketOf(f.Source, f.SourcePort, f.Protocol), socketOf(f.Destination, f.DestinationPort, f.Protocol),
			f.Packets, f.BackPackets, size(f.Bytes), size(f.BackBytes), secs(f.AgeSecs), secs(f.IdleSecs), dash(joinRules(f.Egress, f.Ingress)))
	}
	t.flush()
	for _, s := range list.Slices {
		if s.Rules == 0 && t.err == nil {
			_, t.err = fmt.Fprintf(w, "slice %s has no policy: everything may pass, and no flow is remembered\n", clean(s.Slice))
		}
	}
	return t.err
}

func printRules(w io.Writer, list FlowList) error {
	t := newTable(w)
	t.row("SLICE", "RULE", "FLOWS", "PACKETS", "BYTES", "DENIED")
	for _, r := range list.Rules {
		t.row(clean(r.Slice), clean(r.Name), r.Flows, r.Packets, size(r.Bytes), r.Denied)
	}
	t.flush()
	return t.err
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
	var req TraceRequest
	var output string
	cmd := &cobra.Command{
		Use:   "trace SRC DST [-p PROTOCOL] [--sport N] [--dport N] [--slice SLICE] [--send]",
		Short: "Say what would happen to a packet on this node, stage by stage",
		Long: "Asks the running router what it would do with a packet that opens a connection from SRC to DST:\n" +
			"the same functions, routes and policy that the next real packet meets. Nothing is sent or counted.\n" +
			"SRC and DST are addresses, DNS names, namespace/service, site/node, or names of workloads.\n" +
			"Each node asks for its own ends: egress for a source, ingress for a destination. For the other\n" +
			"end, ask its node.\n\n" +
			"With --send it also sends such a packet, marked, and says where it was seen last; that is for root\n" +
			"and the daemon's own user.\n\n" +
			"Exits 0 when the packet passes, 3 when it is dropped.",
		Example: "  slicewire trace shop-1 iperf/web -p tcp --dport 80\n  slicewire trace 10.190.16.9 10.190.0.200 -p icmp",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			req.From, req.To = args[0], args[1]
			tr, err := ask[TraceReply](cmd.Context(), opts, http.MethodPost, "trace", req)
			if err != nil {
				return err
			}
			if output == "table" {
				err = printTrace(cmd.OutOrStdout(), tr, req)
			} else {
				err = printDocument(cmd.OutOrStdout(), output, tr)
			}
			if err == nil && !tr.Passes {
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
	f.BoolVar(&req.Send, "send", false, "send one, too, and say where it was seen last")
	addOutputFlag(cmd, &output)
	return cmd
}

func printTrace(w io.Writer, tr TraceReply, req TraceRequest) error {
	if _, err := fmt.Fprintf(w, "%s from %s to %s on slice %s\n", tr.Protocol, socketOf(tr.Source, req.Sport, tr.Protocol), socketOf(tr.Destination, req.Dport, tr.Protocol), clean(tr.Slice)); err != nil {
		return err
	}
	t := newTable(w)
	for _, s := range tr.Stages {
		mark := "ok"
		if !s.OK {
			mark = "STOP"
		}
		t.row(s.Stage, mark, clean(s.Result))
	}
	t.flush()
	if t.err != nil {
		return t.err
	}
	last := "passes this node"
	if !tr.Passes {
		last = "dropped, counted as " + tr.Drop
	}
	if tr.Sent != "" {
		last += "\nsent: " + clean(tr.Sent)
	}
	_, err := fmt.Fprintln(w, last)
	return err
}
