package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

func newServicesCommand(opts *clientOptions) *cobra.Command {
	var output, slice string
	cmd := &cobra.Command{
		Use: "services", Short: "Show the services that this node's slices import",
		Long: "Shows every service of the node's slices: its type and address, its endpoints in the order in which\n" +
			"they are answered, and where exports of several sites contradict each other.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			s, err := newClient(opts.socket).status(cmd.Context())
			if err != nil {
				return err
			}
			all := make(map[string][]api.ServiceStatus)
			for _, x := range s.Slices {
				if slice == "" || x.Name == slice {
					all[x.Name] = x.Services
				}
			}
			if slice != "" && len(all) == 0 {
				return &exitError{exitUsage, fmt.Errorf("slice %q: %w", slice, errNoSlice)}
			}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, all)
			}
			return printServices(cmd.OutOrStdout(), s.Slices, slice)
		},
	}
	addOutputFlag(cmd, &output)
	cmd.Flags().StringVar(&slice, "slice", "", "only this slice")
	return cmd
}

func printServices(w io.Writer, all []api.SliceStatus, slice string) error {
	t := show.NewTable(w)
	t.Row("SERVICE", "SLICE", "TYPE", "ADDRESS", "PORTS", "REACHED", "ENDPOINTS", "ALIASES", "CONDITIONS")
	for _, x := range all {
		if slice != "" && x.Name != slice {
			continue
		}
		for _, v := range x.Services {
			reached := 0
			for _, e := range v.Endpoints {
				if !e.Lost {
					reached++
				}
			}
			address := ""
			if v.Virtual.IsValid() {
				address = v.Virtual.String()
			}
			var conditions []string
			for _, c := range v.Conditions {
				conditions = append(conditions, show.Clean(c.Site+"/"+c.Node+" "+c.Reason))
			}
			t.Row(show.Clean(v.Namespace+"/"+v.Name), show.Clean(x.Name), v.Type, show.Dash(address), ports(v.Ports), fmt.Sprintf("%d/%d", reached, len(v.Endpoints)),
				endpoints(v.Endpoints), show.Dash(show.Clean(strings.Join(v.DNSNames[min(1, len(v.DNSNames)):], " "))), show.Dash(strings.Join(conditions, ", ")))
		}
	}
	t.Flush()
	return t.Err
}
