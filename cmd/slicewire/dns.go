package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/dnsd"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/show"
)

// A NameQuery asks what a slice's name server says.
type NameQuery struct {
	Slice string `json:"slice"` // empty: the only slice of the node
	Name  string `json:"name"`  // or an address
	Type  string `json:"type"`
}

// NameAnswer is a reply as text.
type NameAnswer struct {
	Slice string `json:"slice"`
	Text  string `json:"text"`
}

func tookStatus(d dnsd.Durations) []api.TookStatus {
	out := make([]api.TookStatus, len(d.Counts))
	for i, n := range d.Counts {
		out[i].Count = n
		if i < len(d.Counts)-1 {
			ms := dnsd.DurationBound(i).Seconds() * 1000
			out[i].BelowMs = &ms
		}
	}
	return out
}

func (n *sliceNode) nameStatus(a *overlay.Attachment) api.NameStatus {
	st := n.names.Stats()
	return api.NameStatus{
		Zones: n.local.zones, Addresses: []netip.AddrPort{netip.AddrPortFrom(a.Addr, dnsPort), netip.AddrPortFrom(a.Addr6, dnsPort)},
		Names: st.Names, Serial: st.Serial, Upstream: append([]netip.AddrPort{}, n.upstream...), Answers: st.Answers, Truncated: st.Truncated,
		Queries: st.Queries, From: st.From, Took: tookStatus(st.Took), Dropped: st.Dropped, Streams: st.Streams, Forwarded: st.Forwarded, Forged: st.Forged,
	}
}

// QueryName answers a question as a program on this node would be answered.
func (d *daemon) QueryName(ctx context.Context, q NameQuery) (NameAnswer, error) {
	v, err := d.sliceFor(q.Slice)
	if err != nil {
		return NameAnswer{}, err
	}
	text, err := v.node.names.Query(ctx, q.Name, q.Type)
	return NameAnswer{Slice: v.node.name, Text: text}, err
}

// dnsQuery serves a NameQuery. It changes nothing, and is for whoever may
// connect to the socket: names outside a slice are asked upstream on behalf of
// this node.
func (c *control) dnsQuery(w http.ResponseWriter, r *http.Request) {
	var q NameQuery
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&q); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("dns request: %w", err))
		return
	}
	a, err := c.names.QueryName(r.Context(), q)
	if err != nil {
		c.refuse(w, http.StatusNotFound, err)
		return
	}
	c.answer(w, a)
}

// names is what the control socket needs for the verbs of this file.
type names interface {
	QueryName(ctx context.Context, q NameQuery) (NameAnswer, error)
}

func newDNSCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{Use: "dns", Short: "Names on a slice: ask for one, see the server, have clusters use it"}
	cmd.AddCommand(newDNSQueryCommand(opts), newDNSStatusCommand(opts), newDNSSnippetCommand(opts))
	return cmd
}

func newDNSQueryCommand(opts *clientOptions) *cobra.Command {
	q := NameQuery{Type: "A"}
	cmd := &cobra.Command{
		Use: "query NAME|ADDRESS [TYPE]", Short: "Ask what a slice says to a name",
		Long: "Asks the name server of a slice as a program on this node would, and prints the whole reply.\n" +
			"TYPE is A unless given; of an ADDRESS the names are asked for.",
		Example: "  slicewire dns query iperf-server.iperf.svc.slice.local\n  slicewire dns query _http._tcp.web.shop.svc.clusterset.local SRV",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Name = args[0]
			if len(args) > 1 {
				q.Type = args[1]
			}
			body, err := newClient(opts.socket).do(cmd.Context(), http.MethodPost, "dns", q)
			if err != nil {
				return err
			}
			defer body.Close()
			var a NameAnswer
			if err := json.NewDecoder(body).Decode(&a); err != nil {
				return fmt.Errorf("read the daemon's answer: %w", err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), ";; slice %s\n%s", show.Clean(a.Slice), cleanLines(a.Text))
			return err
		},
	}
	cmd.Flags().StringVar(&q.Slice, "slice", "", "slice to ask in (not needed when the node has one)")
	return cmd
}

// cleanLines makes text from elsewhere safe to print, line by line.
func cleanLines(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i := range lines {
		fields := strings.Split(lines[i], "\t")
		for k := range fields {
			fields[k] = show.Clean(fields[k])
		}
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n") + "\n"
}

func newDNSStatusCommand(opts *clientOptions) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the name server of each slice", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := newClient(opts.socket).status(cmd.Context())
			if err != nil {
				return err
			}
			if output != "table" {
				all := make(map[string]api.NameStatus)
				for _, x := range s.Slices {
					all[x.Name] = x.NameServer
				}
				return show.Document(cmd.OutOrStdout(), output, all)
			}
			t := show.NewTable(cmd.OutOrStdout())
			t.Row("SLICE", "ZONES", "ADDRESSES", "LOCAL", "NAMES", "ANSWERS", "DROPS", "UPSTREAM", "FORWARDED", "FORGED")
			for _, x := range s.Slices {
				n := x.NameServer
				t.Row(show.Clean(x.Name), show.List(n.Zones), show.List(n.Addresses), show.Dash(x.DNS), n.Names, drops(n.Answers), drops(n.Dropped), show.Dash(show.List(n.Upstream)), n.Forwarded, n.Forged)
			}
			t.Flush()
			return t.Err
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func newDNSSnippetCommand(opts *clientOptions) *cobra.Command {
	var slice, server, form string
	cmd := &cobra.Command{
		Use: "snippet", Short: "Print what has another name server ask this node for a slice's names",
		Long: "Prints the lines that send a slice's zones to this node:\n" +
			"coredns   server blocks for a cluster's Corefile (ConfigMap coredns in kube-system)\n" +
			"resolved  a file for /etc/systemd/resolved.conf.d, so that this machine's programs know the names\n" +
			"dnsmasq   lines for dnsmasq.conf\n" +
			"The node has to answer where it is asked: give `dns` of the slice in the node file an address, which for\n" +
			"a cluster may not be loopback.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := newClient(opts.socket).status(cmd.Context())
			if err != nil {
				return err
			}
			i := slices.IndexFunc(s.Slices, func(x api.SliceStatus) bool { return x.Name == slice || slice == "" && len(s.Slices) == 1 })
			if i < 0 {
				return &exitError{exitUsage, fmt.Errorf("slice %q: %w: choose one with --slice", slice, errNoSlice)}
			}
			return printSnippet(cmd.OutOrStdout(), s.Slices[i], form, server)
		},
	}
	cmd.Flags().StringVar(&slice, "slice", "", "slice whose names are meant (not needed when the node has one)")
	cmd.Flags().StringVar(&form, "for", "coredns", "coredns|resolved|dnsmasq")
	cmd.Flags().StringVar(&server, "server", "", "address:port that the cluster reaches this node's DNS at, if it is not the one in the node file")
	return cmd
}

func printSnippet(w io.Writer, s api.SliceStatus, form, server string) error {
	if server == "" {
		server = s.DNS
	}
	at, err := netip.ParseAddrPort(server)
	if err != nil || at.Addr().IsUnspecified() || form == "coredns" && at.Addr().IsLoopback() {
		return fmt.Errorf("slice %s: the node's DNS cannot be asked at %q: set slices.%s.dns in the node file to an address of this node, or give --server ADDRESS:PORT", s.Name, server, s.Name)
	}
	var b strings.Builder
	zones := s.NameServer.Zones
	switch form {
	case "coredns":
		for _, zone := range zones {
			fmt.Fprintf(&b, "%s:53 {\n    errors\n    cache 5\n    forward . %v\n}\n", show.Clean(zone), at)
		}
	case "resolved":
		fmt.Fprintf(&b, "[Resolve]\nDNS=%v\nDomains=", at)
		for i, zone := range zones {
			fmt.Fprintf(&b, "%s~%s", strings.Repeat(" ", min(i, 1)), show.Clean(zone))
		}
		b.WriteString("\n")
	case "dnsmasq":
		for _, zone := range zones {
			fmt.Fprintf(&b, "server=/%s/%v#%d\n", show.Clean(zone), at.Addr(), at.Port())
		}
	default:
		return &exitError{exitUsage, fmt.Errorf("--for %q: choose coredns, resolved or dnsmasq", form)}
	}
	_, err = io.WriteString(w, b.String())
	return err
}

// upstreamsOf lists the servers that a slice's settings stand for. path is the
// node's resolv.conf.
func upstreamsOf(settings []string, path string) (out []netip.AddrPort, err error) {
	for _, u := range settings {
		if u != manifest.UpstreamNode {
			a, err := manifest.ParseUpstream(u)
			if err != nil {
				return nil, fmt.Errorf("upstream %q: %w", u, err)
			}
			out = append(out, a)
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("upstream %q: %w", u, err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 2 || f[0] != "nameserver" {
				continue
			}
			if a, err := netip.ParseAddr(f[1]); err == nil {
				out = append(out, netip.AddrPortFrom(a, dnsPort))
			}
		}
	}
	if len(settings) > 0 && len(out) == 0 {
		return nil, fmt.Errorf("upstream: %s names no server", path)
	}
	return out, nil
}
