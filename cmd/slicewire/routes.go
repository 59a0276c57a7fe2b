package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newRoutesCommand(opts *clientOptions) *cobra.Command {
	var output, slice string
	cmd := &cobra.Command{
		Use: "routes", Short: "Show the networks behind the sites of this node's slices",
		Long: "Shows every network that the manifests put behind a site: the prefix that it has on the slice, the\n" +
			"one that it has at the site where both differ, as another site has an overlapping one, and the nodes\n" +
			"that announce it now.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := newClient(opts.socket).status(cmd.Context())
			if err != nil {
				return err
			}
			all := make(map[string][]api.RouteStatus)
			for _, x := range s.Slices {
				if slice == "" || x.Name == slice {
					all[x.Name] = x.Routes
				}
			}
			if slice != "" && len(all) == 0 {
				return &exitError{exitUsage, fmt.Errorf("slice %q: %w", slice, errNoSlice)}
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, all)
			}
			return printRoutes(cmd.OutOrStdout(), s.Slices, slice)
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().StringVar(&slice, "slice", "", "only this slice")
	return cmd
}

func printRoutes(w io.Writer, all []api.SliceStatus, slice string) error {
	t := show.NewTable(w)
	t.Row("PREFIX", "SLICE", "SITE", "AT THE SITE", "ANNOUNCED BY", "VIA")
	for _, x := range all {
		if slice != "" && x.Name != slice {
			continue
		}
		for _, r := range x.Routes {
			real := r.Prefix
			if r.Real.IsValid() {
				real = r.Real
			}
			t.Row(r.Prefix.String(), show.Clean(x.Name), show.Clean(r.Site), real.String(), show.Dash(show.Clean(strings.Join(r.Nodes, " "))), show.Dash(show.Clean(strings.Join(r.Via, " "))))
		}
	}
	t.Flush()
	return t.Err
}

// routes lists the networks behind the slice's sites.
func (v *sliceView) routes() []api.RouteStatus {
	out := []api.RouteStatus{}
	for _, site := range v.sites {
		for _, p := range site.Routes {
			r := api.RouteStatus{Prefix: p, Site: site.Name, Nodes: []string{}}
			for _, m := range site.Mapped {
				if m.Mapped == p {
					r.Real = m.Real
				}
			}
			for _, own := range v.attachment.Routes {
				if p.Overlaps(own.Prefix) && site.Name == v.self.Site {
					r.Via = append(r.Via, own.Via)
				}
			}
			if r.Via != nil {
				r.Nodes = append(r.Nodes, v.self.String())
			}
			for _, n := range v.view.Nodes {
				if n.ID != v.self && slices.ContainsFunc(n.Prefixes, p.Overlaps) {
					r.Nodes = append(r.Nodes, n.ID.String())
				}
			}
			out = append(out, r)
		}
	}
	return out
}
