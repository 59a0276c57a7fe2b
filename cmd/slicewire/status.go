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

	"slicewire/api"
	"slicewire/show"
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

func printStatus(w io.Writer, output string, s api.Status) error {
	if output != "table" {
		return show.Document(w, output, s)
	}
	role := "node"
	if s.Gateway {
		role = "gateway"
	}
	if s.Cordoned {
		role = "cordoned " + role
	}
	fmt.Fprintf(w, "%s %s  site %s  mesh %s  up %s  %s  tunnels on %s  certificate ends in %s\n",
		role, show.Clean(s.Node), show.Clean(s.Site), show.Clean(s.Mesh), show.Short(time.Duration(s.UptimeSecs*float64(time.Second))), s.Version, s.Listen, show.Short(time.Until(s.CertExpiry)))
	for _, warning := range s.Warnings {
		fmt.Fprintf(w, "! %s\n", show.Clean(warning))
	}
	t := show.NewTable(w)
	t.Row("SLICE", "SUBNET", "ADDRESS", "PEERS", "SERVICES", "RX", "TX", "DROPS", "PROXY", "DNS")
	for _, x := range s.Slices {
		t.Row(show.Clean(x.Name), x.Subnet, x.Address, fmt.Sprintf("%d/%d", x.Connected(time.Now()), len(x.Peers)), len(x.Services),
			show.Size(x.Counters.OutsideRxBytes), show.Size(x.Counters.OutsideTxBytes), drops(x.Drops), show.Dash(x.Proxy), show.Dash(x.DNS))
	}
	t.Flush()
	t.Row("CLASS", "SLICE", "CEILING", "SENT", "PACKETS", "DROPS", "MARKS", "WAITING")
	for _, x := range s.Slices {
		for _, c := range x.Shaping.Classes {
			t.Row(show.Clean(c.Name), show.Clean(x.Name), kbit(x.Shaping.CeilingKbps), show.Size(c.SentBytes), c.SentPackets, c.Drops, c.Marks, show.Size(uint64(c.WaitingBytes)))
		}
	}
	t.Flush()
	t.Row("PEER", "SLICE", "ENDPOINT", "HANDSHAKE", "LINK", "RX", "TX", "PREFIXES")
	for _, x := range s.Slices {
		for _, p := range x.Peers {
			t.Row(show.Clean(p.Site+"/"+p.Node), show.Clean(x.Name), show.Dash(p.Endpoint), handshake(p.LastHandshake), p.Link.String(), show.Size(p.RxBytes), show.Size(p.TxBytes), show.List(outermost(p.Prefixes)))
		}
	}
	t.Flush()
	t.Row("SERVICE", "SLICE", "PORTS", "ENDPOINTS")
	for _, x := range s.Slices {
		for _, v := range x.Services {
			t.Row(show.Clean(v.DNSNames[0]), show.Clean(x.Name), ports(v.Ports), endpoints(v.Endpoints))
		}
	}
	t.Flush()
	t.Row("PUBLISHED", "SLICE", "ADDRESS", "STATE")
	for _, x := range s.Slices {
		for _, p := range x.Publish {
			state := fmt.Sprintf("%d active", p.Active)
			if p.Error != "" {
				state += ", " + show.Clean(p.Error)
			}
			if !p.Listening {
				state = "not listening: " + show.Clean(p.Error)
			}
			t.Row(show.Clean(p.Service+" "+p.Backend), show.Clean(x.Name), p.Address, state)
		}
	}
	t.Flush()
	t.Row("WORKLOAD", "SLICE", "NAMESPACE", "ADDRESS", "WHAT", "USER", "AGE", "RX", "TX")
	for _, x := range s.Slices {
		for _, v := range x.Workloads {
			t.Row(show.Clean(v.Name), show.Clean(x.Name), show.Dash(v.Namespace), v.Address, show.Dash(v.What()), v.UID, show.Short(time.Since(v.Since)), show.Size(v.RxBytes), show.Size(v.TxBytes))
		}
	}
	t.Flush()
	return t.Err
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

func ports(ps []api.PortStatus) string {
	out := make([]string, len(ps))
	for i, p := range ps {
		out[i] = fmt.Sprintf("%d/%s", p.Port, p.Protocol)
	}
	return show.Dash(strings.Join(out, ","))
}

func endpoints(es []api.EndpointStatus) string {
	out := make([]string, len(es))
	for i, e := range es {
		out[i] = fmt.Sprintf("%s@%s=%s", e.Name, e.Site, e.Address)
	}
	return show.Dash(strings.Join(out, " "))
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
	return show.Short(time.Since(*t)) + " ago"
}
