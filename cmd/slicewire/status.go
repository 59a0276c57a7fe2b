package main

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newStatusCommand(opts *clientOptions) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the daemon's slices, peers and services",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := newClient(opts.socket).status(cmd.Context())
			if err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), output, s)
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

// outputs are the forms in which documents are printed.
var outputs = []string{"table", "json", "yaml"}

func addOutputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "output: "+strings.Join(outputs, "|"))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(outputs, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
}

func checkOutput(output string) error {
	if !slices.Contains(outputs, output) {
		return &exitError{exitUsage, fmt.Errorf("output %q: choose one of %s", output, strings.Join(outputs, ", "))}
	}
	return nil
}

func printStatus(w io.Writer, output string, s Status) error {
	if output != "table" {
		return printDocument(w, output, s)
	}
	role := "node"
	if s.Gateway {
		role = "gateway"
	}
	if s.Cordoned {
		role = "cordoned " + role
	}
	fmt.Fprintf(w, "%s %s  site %s  mesh %s  up %s  %s  tunnels on %s  certificate ends in %s\n",
		role, clean(s.Node), clean(s.Site), clean(s.Mesh), short(time.Duration(s.UptimeSecs*float64(time.Second))), s.Version, s.Listen, short(time.Until(s.CertExpiry)))
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "! %s\n", clean(warning))
	}
	t := newTable(w)
	t.row("SLICE", "SUBNET", "ADDRESS", "PEERS", "SERVICES", "RX", "TX", "DROPS", "PROXY", "DNS")
	for _, x := range s.Slices {
		t.row(clean(x.Name), x.Subnet, x.Address, fmt.Sprintf("%d/%d", x.connected(time.Now()), len(x.Peers)), len(x.Services),
			size(x.Counters.OutsideRxBytes), size(x.Counters.OutsideTxBytes), drops(x.Drops), dash(x.Proxy), dash(x.DNS))
	}
	t.flush()
	t.row("CLASS", "SLICE", "CEILING", "SENT", "PACKETS", "DROPS", "MARKS", "WAITING")
	for _, x := range s.Slices {
		for _, c := range x.Shaping.Classes {
			t.row(clean(c.Name), clean(x.Name), kbit(x.Shaping.CeilingKbps), size(c.SentBytes), c.SentPackets, c.Drops, c.Marks, size(uint64(c.WaitingBytes)))
		}
	}
	t.flush()
	t.row("PEER", "SLICE", "ENDPOINT", "HANDSHAKE", "LINK", "RX", "TX", "PREFIXES")
	for _, x := range s.Slices {
		for _, p := range x.Peers {
			t.row(clean(p.Site+"/"+p.Node), clean(x.Name), dash(p.Endpoint), handshake(p.LastHandshake), p.Link.String(), size(p.RxBytes), size(p.TxBytes), joinAny(outermost(p.Prefixes)))
		}
	}
	t.flush()
	t.row("SERVICE", "SLICE", "PORTS", "ENDPOINTS")
	for _, x := range s.Slices {
		for _, v := range x.Services {
			t.row(clean(v.DNSNames[0]), clean(x.Name), ports(v.Ports), endpoints(v.Endpoints))
		}
	}
	t.flush()
	t.row("PUBLISHED", "SLICE", "ADDRESS", "STATE")
	for _, x := range s.Slices {
		for _, p := range x.Publish {
			state := fmt.Sprintf("%d active", p.Active)
			if p.Error != "" {
				state += ", " + clean(p.Error)
			}
			if !p.Listening {
				state = "not listening: " + clean(p.Error)
			}
			t.row(clean(p.Service+" "+p.Backend), clean(x.Name), p.Address, state)
		}
	}
	t.flush()
	t.row("WORKLOAD", "SLICE", "NAMESPACE", "ADDRESS", "WHAT", "USER", "AGE", "RX", "TX")
	for _, x := range s.Slices {
		for _, v := range x.Workloads {
			t.row(clean(v.Name), clean(x.Name), dash(v.Namespace), v.Address, dash(v.what()), v.UID, short(time.Since(v.Since)), size(v.RxBytes), size(v.TxBytes))
		}
	}
	t.flush()
	return t.err
}

// outermost leaves out the prefixes that lie inside another.
func outermost(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range prefixes {
		inside := func(q netip.Prefix) bool { return q != p && q.Bits() < p.Bits() && q.Contains(p.Addr()) }
		if !slices.ContainsFunc(prefixes, inside) {
			out = append(out, p)
		}
	}
	return out
}

func ports(ps []PortStatus) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	}
	return dash(strings.Join(out, ","))
}

func endpoints(es []EndpointStatus) string {
	out := make([]string, len(es))
	for i, e := range es {
		out[i] = fmt.Sprintf("%s@%s=%s", e.Name, e.Site, e.Address)
	}
	return dash(strings.Join(out, " "))
}

// kbit is a rate in kbit/s as one is given in a profile; 0 is none.
func kbit(r int) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%d kbit/s", r)
}

func drops(m map[string]uint64) string {
	out := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s:%d", k, m[k]))
	}
	if len(out) == 0 {
		return "0"
	}
	return strings.Join(out, " ")
}

func handshake(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return short(time.Since(*t)) + " ago"
}
