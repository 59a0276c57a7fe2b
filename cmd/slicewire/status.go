package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
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

// printDocument writes v as JSON or YAML.
func printDocument(w io.Writer, output string, v any) error {
	if output == "yaml" {
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
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

// String says in a few words how a link is.
func (l *LinkStatus) String() string {
	switch {
	case l == nil:
		return "-"
	case !l.Up:
		return "down"
	}
	text := fmt.Sprintf("up %.1fms", l.RTTMs)
	if l.Loss >= 0.01 {
		text += fmt.Sprintf(" loss %.0f%%", 100*l.Loss)
	}
	if l.Leaving {
		text += " leaving"
	}
	return text
}

// what says what a workload is, in a few words.
func (w WorkloadStatus) what() string {
	if w.Kind == workloadAttach {
		return w.Device + " in " + w.Netns
	}
	return fmt.Sprintf("%s, pid %d, %s", w.Command, w.PID, w.Medium)
}

// handshakeFresh is how old a handshake may be while its session can still
// carry data: WireGuard's REJECT_AFTER_TIME.
const handshakeFresh = 180 * time.Second

// connected counts the peers with a live session at now.
func (s SliceStatus) connected(now time.Time) int {
	n := 0
	for _, p := range s.Peers {
		if p.LastHandshake != nil && now.Sub(*p.LastHandshake) < handshakeFresh {
			n++
		}
	}
	return n
}

// A table prints aligned columns and remembers the first error. A heading with
// no rows below it is not printed.
type table struct {
	w       io.Writer
	rows    [][]string
	err     error
	printed bool // a table before: a blank line keeps them apart
}

func newTable(w io.Writer) *table { return &table{w: w} }

func (t *table) row(cells ...any) {
	r := make([]string, len(cells))
	for i, c := range cells {
		r[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, r)
}

func (t *table) flush() {
	if len(t.rows) > 1 {
		if t.printed {
			fmt.Fprintln(t.w)
		}
		t.printed = true
		tw := tabwriter.NewWriter(t.w, 0, 0, 2, ' ', 0)
		for _, r := range t.rows {
			fmt.Fprintln(tw, strings.Join(r, "\t"))
		}
		if err := tw.Flush(); err != nil && t.err == nil {
			t.err = err
		}
	}
	t.rows = t.rows[:0]
}

// clean makes text from outside safe for a terminal: control characters and
// everything else that is not printable is shown escaped.
func clean(s string) string {
	q := fmt.Sprintf("%+q", s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return clean(s)
}

func joinAny[T any](items []T) string {
	out := make([]string, len(items))
	for i, x := range items {
		out[i] = fmt.Sprint(x)
	}
	return dash(strings.Join(out, ","))
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

// size prints bytes in binary units.
func size(n uint64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	div, exp := uint64(unit), 0
	for v := n / unit; v >= unit; v /= unit {
		div, exp = div*unit, exp+1
	}
	return fmt.Sprintf("%.1f %ciB", float64(n)/float64(div), "KMGTPE"[exp])
}

// short prints a duration in its two largest units.
func short(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
