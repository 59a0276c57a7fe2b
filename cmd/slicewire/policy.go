package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/router"
	"slicewire/show"
)

func newPolicyCommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Try policies before they are in force",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(newPolicyTestCommand(), newPolicyDiffCommand(opts))
	return cmd
}

func newPolicyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test FILE...",
		Short: "Run assertions about what manifests allow and deny",
		Long: `Reads files of assertions and the manifests that they name, and says which
hold. It needs no daemon and no network. A file looks like this:

  manifests: [manifests/]      # from the file's own place
  slice: blue
  tests:
  - name: the shop reaches the page
    from: {namespace: shop, site: worker-2}
    to:   {service: shop/web, site: worker-1}
    port: 80                   # protocol: TCP unless it says another
    expect: allow
    rule: SlicePolicy web      # a part of the name of a rule that decides

An end is known by site, node, namespace, service, workload and address; what is
left out is nobody's in particular. Both directions are asked, as both nodes would.

Exits 0 when all hold, 1 when one does not or a file has errors.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			failed, total := 0, 0
			for _, file := range args {
				f, n, err := runPolicyTests(cmd.OutOrStdout(), cmd.ErrOrStderr(), file)
				if err != nil {
					return err
				}
				failed, total = failed+f, total+n
			}
			if failed > 0 {
				return &exitError{exitFailure, fmt.Errorf("%d of %d assertions do not hold", failed, total)}
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "all %d hold\n", total)
			return err
		},
	}
}

// runPolicyTests runs one file and returns how many of how many failed.
func runPolicyTests(stdout, stderr io.Writer, file string) (failed, total int, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	tests, problems := manifest.ParsePolicyTests(file, data)
	var mesh overlay.Mesh
	if !manifest.HasErrors(problems) {
		paths := make([]string, len(tests.Manifests))
		for i, p := range tests.Manifests {
			if paths[i] = p; !filepath.IsAbs(p) {
				paths[i] = filepath.Join(filepath.Dir(file), p)
			}
		}
		mesh, problems = manifest.ReadMesh(paths, manifest.Options{Mesh: tests.Mesh, Now: time.Now()})
	}
	for _, p := range problems {
		fmt.Fprintln(stderr, show.Clean(p.String()))
	}
	if manifest.HasErrors(problems) {
		return 0, 0, &exitError{exitFailure, fmt.Errorf("%s: not run: there are errors", file)}
	}
	results, err := judgePolicyTests(&mesh, tests)
	if err != nil {
		return 0, 0, &exitError{exitFailure, fmt.Errorf("%s: %w", file, err)}
	}
	t := show.NewTable(stdout)
	for _, r := range results {
		word := "ok"
		if !r.holds {
			word = "FAIL"
			failed++
		}
		t.Row(word, fmt.Sprintf("%s:%d", show.Clean(file), r.line), show.Clean(r.name), r.said)
	}
	t.Flush()
	return failed, len(results), t.Err
}

func newPolicyDiffCommand(opts *clientOptions) *cobra.Command {
	var manifests []string
	var slice string
	cmd := &cobra.Command{
		Use:   "diff --manifests PATH [--slice SLICE]",
		Short: "Say which of the daemon's flows other manifests would end",
		Long: "Asks the daemon for the flows that it remembers and for what it knows of addresses, and asks the\n" +
			"policies of the manifests at PATH about each flow's first packet. Nothing is changed. What is\n" +
			"denied now is in no flow, so that newly allowed traffic is not listed.\n\n" +
			"Exits 0 when no flow would end, 3 when some would, 1 when the manifests have errors.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			facts, err := ask[[]api.PolicyFacts](cmd.Context(), opts, http.MethodGet, "policy?slice="+url.QueryEscape(slice), nil)
			if err != nil {
				return err
			}
			return diffPolicies(cmd.OutOrStdout(), cmd.ErrOrStderr(), facts, manifests)
		},
	}
	cmd.Flags().StringSliceVar(&manifests, "manifests", nil, "manifests that are proposed: files and folders, all that the daemon would have")
	cmd.Flags().StringVar(&slice, "slice", "", "slice (default: all)")
	_ = cmd.MarkFlagRequired("manifests") // fails only for a flag that does not exist
	return cmd
}

// diffPolicies replays flows against the policies of other manifests.
func diffPolicies(stdout, stderr io.Writer, facts []api.PolicyFacts, paths []string) error {
	opts := manifest.Options{Now: time.Now(), Existing: make(map[string]map[string]int)}
	for _, f := range facts {
		opts.Mesh = f.Mesh
		for slice, indexes := range f.Indexes {
			opts.Existing[slice] = indexes
		}
	}
	mesh, problems := manifest.ReadMesh(paths, opts)
	for _, p := range problems {
		fmt.Fprintln(stderr, show.Clean(p.String()))
	}
	if manifest.HasErrors(problems) {
		return &exitError{exitFailure, fmt.Errorf("the manifests have errors: the daemon would refuse them")}
	}
	t := show.NewTable(stdout)
	t.Row("SLICE", "FLOW", "NOW", "THEN")
	asked, end, other := 0, 0, 0
	for _, f := range facts {
		s, known := mesh.Slice(f.Slice)
		var policy *router.Policy
		if known {
			var err error
			if policy, err = policyFor(s, f.Nodes, f.Known); err != nil {
				return err
			}
		}
		for _, x := range f.Flows {
			asked++
			v := policy.Decide(x.Flow, x.SrcHere, x.DstHere)
			now, then := joinRules(x.Egress, x.Ingress), joinRules(v.Egress, v.Ingress)
			switch {
			case !known:
				then = "ENDS: there is no such slice"
				end++
			case !v.Allowed:
				then = "ENDS: " + v.Denied + " denied by " + joinRulesOf(v)
				end++
			case now != then:
				other++
			default:
				continue
			}
			p := protocolName(x.Proto)
			t.Row(show.Clean(f.Slice), p+" "+socketOf(x.Src, x.SrcPort, p)+" > "+socketOf(x.Dst, x.DstPort, p), show.Dash(now), show.Dash(then))
		}
	}
	if end+other > 0 {
		t.Flush()
	}
	if t.Err != nil {
		return t.Err
	}
	if _, err := fmt.Fprintf(stdout, "%d flows: %d would end, %d would be allowed by other rules, %d would not notice\n", asked, end, other, asked-end-other); err != nil {
		return err
	}
	for _, f := range facts {
		if f.Open {
			fmt.Fprintf(stderr, "slice %s has no policy now and remembers no flow: what a new one would end is not known\n", show.Clean(f.Slice))
		}
	}
	if end > 0 {
		return &exitError{code: exitDegraded}
	}
	return nil
}

// joinRulesOf names the rule that denies.
func joinRulesOf(v router.Verdict) string {
	if v.Denied == "ingress" {
		return v.Ingress
	}
	return v.Egress
}

// policyFor compiles what a slice would ask; nil if it asks nothing.
func policyFor(s *overlay.Slice, nodes []overlay.Node, known []overlay.Known) (*router.Policy, error) {
	rules := overlay.CompileRules(s, nodes, known)
	if len(rules) == 0 {
		return nil, nil
	}
	return router.NewPolicy(rules)
}
