package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"slicewire/overlay/manifest"
	"slicewire/show"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at configuration without running anything",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newConfigCheckCommand())
	return cmd
}

func newConfigCheckCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "check [-o json|yaml|table] PATH...",
		Short: "Say what the daemon would make of manifests and a node file",
		Long: `Reads KubeSlice manifests (files, or folders with all their *.yaml, *.yml and
*.json) and prints the slices, addresses and services that come of them.

A PATH may also be a node file; its manifests are then read too, and it is
checked against them.

Exits 0 when all is well, 3 with warnings, 1 with errors, 2 when the command
line is wrong.`,
		Example: "  slicewire config check manifests/\n  slicewire config check -o json /etc/slicewire/node.yaml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConfigCheck(cmd.OutOrStdout(), cmd.ErrOrStderr(), output, args, time.Now())
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func runConfigCheck(stdout, stderr io.Writer, output string, paths []string, now time.Time) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	sum := checkConfig(paths, now)
	var err error
	if output == "table" {
		err = printSummary(stdout, stderr, sum)
	} else {
		err = show.Document(stdout, output, sum)
	}
	switch {
	case err != nil:
		return fmt.Errorf("config check: write: %w", err)
	case len(sum.Errors) > 0:
		return &exitError{code: exitFailure}
	case len(sum.Warnings) > 0:
		return &exitError{code: exitDegraded}
	}
	return nil
}

// checkConfig reads what the paths name and sums it up.
func checkConfig(paths []string, now time.Time) manifest.Summary {
	set, problems := manifest.Load(paths)
	var node *manifest.NodeFile
	var more []manifest.Problem
	for i, f := range set.NodeFiles {
		if i > 0 {
			more = append(more, manifest.Problem{Severity: manifest.Error, File: f,
				Message: "a second node file: check them one at a time, the first is " + set.NodeFiles[0]})
			continue
		}
		var found []manifest.Problem
		node, found = manifest.LoadNodeIn(f, nodeVariable)
		more = append(more, found...)
	}
	if node != nil {
		set, problems = manifest.Load(append(slices.Clone(paths), node.Manifests...))
	}
	mesh, found := manifest.Build(set, manifest.Options{Now: now, Node: node, Live: node != nil && node.Kubernetes.Hub != nil})
	return manifest.Report(mesh, slices.Concat(problems, more, found))
}

// printSummary writes the tables to stdout and the problems to stderr.
func printSummary(stdout, stderr io.Writer, sum manifest.Summary) error {
	t := show.NewTable(stdout)
	t.Row("SLICE", "MODE", "SUBNET", "SUBNET6", "CEILING", "GUARANTEED", "PRIORITY", "DSCP", "NAMESPACES")
	for _, s := range sum.Slices {
		t.Row(show.Clean(s.Name), s.Mode, show.Dash(s.Subnet), show.Dash(s.Subnet6), fmt.Sprintf("%d kbit/s", s.QoS.CeilingKbps),
			fmt.Sprintf("%d kbit/s", s.QoS.GuaranteedKbps), s.QoS.Priority, show.Dash(s.QoS.DSCP), show.List(s.Namespaces))
	}
	t.Flush()
	t.Row("SITE", "SLICE", "INDEX", "PREFIX", "PREFIX6")
	for _, s := range sum.Slices {
		for _, x := range s.Sites {
			t.Row(show.Clean(x.Name), show.Clean(s.Name), x.Index, x.Prefix, x.Prefix6)
		}
	}
	t.Flush()
	t.Row("SERVICE", "SLICE", "PORTS", "NAMES")
	for _, s := range sum.Slices {
		for _, svc := range s.Services {
			var ports []string
			for _, p := range svc.Ports {
				ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
			}
			t.Row(show.Clean(svc.Namespace+"/"+svc.Name), show.Clean(s.Name), show.List(ports), show.List(svc.DNSNames))
		}
	}
	t.Flush()
	t.Row("POLICY", "SLICE", "INGRESS RULES", "EGRESS RULES")
	rules := func(n *int) string { // none at all is not the same as none that permits
		if n == nil {
			return "-"
		}
		return fmt.Sprint(*n)
	}
	for _, s := range sum.Slices {
		if s.Isolated {
			t.Row("namespaceIsolationProfile", show.Clean(s.Name), 1, 1)
		}
		for _, p := range s.Policies {
			t.Row(show.Clean(p.Name), show.Clean(s.Name), rules(p.Ingress), rules(p.Egress))
		}
	}
	t.Flush()
	t.Row("CLUSTER", "NODE IPS", "SLICES")
	for _, c := range sum.Clusters {
		t.Row(show.Clean(c.Name), show.List(c.NodeIPs), show.List(c.Slices))
	}
	t.Flush()
	if t.Err != nil {
		return t.Err
	}
	for _, list := range [][]manifest.ProblemSummary{sum.Errors, sum.Warnings} {
		for _, p := range list {
			line := manifest.Problem{File: p.File, Line: p.Line, Object: p.Object, Message: p.Message}
			if _, err := fmt.Fprintln(stderr, show.Clean(line.String())); err != nil {
				return err
			}
		}
	}
	return nil
}
