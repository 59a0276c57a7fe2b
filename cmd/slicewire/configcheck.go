package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"slicewire/overlay/manifest"
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
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &exitError{exitUsage, errors.New("config check: give at least one PATH")}
			}
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConfigCheck(cmd.OutOrStdout(), cmd.ErrOrStderr(), output, args, time.Now())
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "json, yaml or table")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return &exitError{exitUsage, fmt.Errorf("config check: %w", err)}
	})
	return cmd
}

func runConfigCheck(stdout, stderr io.Writer, output string, paths []string, now time.Time) error {
	if !slices.Contains([]string{"json", "yaml", "table"}, output) {
		return &exitError{exitUsage, fmt.Errorf("config check: output %q is none of json, yaml, table", output)}
	}
	sum := checkConfig(paths, now)
	var err error
	switch output {
	case "json":
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(sum)
	case "yaml":
		var text []byte
		if text, err = yaml.Marshal(sum); err == nil {
			_, err = stdout.Write(text)
		}
	default:
		err = printSummary(stdout, stderr, sum)
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
		node, found = manifest.LoadNode(f)
		more = append(more, found...)
	}
	if node != nil {
		set, problems = manifest.Load(append(slices.Clone(paths), node.Manifests...))
	}
	mesh, found := manifest.Build(set, manifest.Options{Now: now, Node: node})
	return manifest.Report(mesh, slices.Concat(problems, more, found))
}

// printSummary writes the tables to stdout and the problems to stderr.
func printSummary(stdout, stderr io.Writer, sum manifest.Summary) error {
	w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	row := func(cells ...string) {
		for i, c := range cells {
			if c == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	row("SLICE", "MODE", "SUBNET", "SUBNET6", "CEILING", "GUARANTEED", "PRIORITY", "DSCP", "NAMESPACES")
	for _, s := range sum.Slices {
		row(s.Name, s.Mode, s.Subnet, s.Subnet6, fmt.Sprintf("%d kbit/s", s.QoS.CeilingKbps), fmt.Sprintf("%d kbit/s", s.QoS.GuaranteedKbps),
			fmt.Sprint(s.QoS.Priority), s.QoS.DSCP, strings.Join(s.Namespaces, ","))
	}
	fmt.Fprintln(w)
	row("SLICE", "SITE", "INDEX", "PREFIX", "PREFIX6")
	for _, s := range sum.Slices {
		for _, x := range s.Sites {
			row(s.Name, x.Name, fmt.Sprint(x.Index), x.Prefix, x.Prefix6)
		}
	}
	fmt.Fprintln(w)
	row("SLICE", "SERVICE", "PORTS", "NAMES")
	for _, s := range sum.Slices {
		for _, svc := range s.Services {
			var ports []string
			for _, p := range svc.Ports {
				ports = append(ports, fmt.Sprintf("%d/%s", p.Port, p.Protocol))
			}
			row(s.Name, svc.Namespace+"/"+svc.Name, strings.Join(ports, ","), strings.Join(svc.DNSNames, ","))
		}
	}
	fmt.Fprintln(w)
	row("CLUSTER", "NODE IPS", "SLICES")
	for _, c := range sum.Clusters {
		row(c.Name, strings.Join(c.NodeIPs, ","), strings.Join(c.Slices, ","))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, list := range [][]manifest.ProblemSummary{sum.Errors, sum.Warnings} {
		for _, p := range list {
			line := manifest.Problem{File: p.File, Line: p.Line, Object: p.Object, Message: p.Message}
			if _, err := fmt.Fprintln(stderr, line.String()); err != nil {
				return err
			}
		}
	}
	return nil
}
