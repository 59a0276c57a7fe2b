package main

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"slicewire/deploy"
)

// A generation is one `slicewire generate manifests`.
type generation struct {
	flavour, namespace, name string
	values                   []string // files
	set, setFile             []string // path=text, path=file
}

func newGenerateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "generate", Short: "Print what runs slicewire elsewhere"}
	cmd.AddCommand(newGenerateManifestsCommand())
	return cmd
}

func newGenerateManifestsCommand() *cobra.Command {
	var g generation
	cmd := &cobra.Command{
		Use:   "manifests",
		Short: "Print Kubernetes manifests, the same as the Helm chart's",
		Long: "Prints what runs slicewire in a cluster: pipe it into kubectl apply -f -. Values are those of the\n" +
			"chart (deploy/chart/slicewire/values.yaml). A gateway without any privilege needs at least its\n" +
			"site's name, the certificate of the mesh's authority and an issuer:\n\n" +
			"  slicewire generate manifests --set site=worker-1 --set-file mesh.authority=ca.crt \\\n" +
			"    --set mesh.issuers=203.0.113.7:51820 --set mesh.gateways=203.0.113.7:7946 \\\n" +
			"    --set-file manifests.slices.yaml=slices.yaml | kubectl apply -f -",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out, err := g.render()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), out)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&g.flavour, "flavour", "", strings.Join(deploy.Flavours, "|")+" (default: rootless)")
	f.StringVarP(&g.namespace, "namespace", "n", deploy.DefaultNamespace, "namespace to run in")
	f.StringVar(&g.name, "name", "slicewire", "name of the objects")
	f.StringArrayVarP(&g.values, "values", "f", nil, "file with values; later ones win")
	f.StringArrayVar(&g.set, "set", nil, "a value: path=text; a number, true, false or a list like a,b as what it looks like")
	f.StringArrayVar(&g.setFile, "set-file", nil, "a value that is a file's text: path=file")
	return cmd
}

func (g *generation) render() (string, error) {
	values := make(map[string]any)
	for _, path := range g.values {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		var m map[string]any
		if err := yaml.Unmarshal(text, &m); err != nil {
			return "", fmt.Errorf("%s: %w", path, err)
		}
		overlayValues(values, m)
	}
	for _, s := range g.set {
		path, text, ok := strings.Cut(s, "=")
		if !ok {
			return "", fmt.Errorf("--set %q: want path=value", s)
		}
		if err := setValue(values, path, valueOf(path, text)); err != nil {
			return "", fmt.Errorf("--set %q: %w", s, err)
		}
	}
	for _, s := range g.setFile {
		path, file, ok := strings.Cut(s, "=")
		if !ok {
			return "", fmt.Errorf("--set-file %q: want path=file", s)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		if err := setValue(values, path, string(text)); err != nil {
			return "", fmt.Errorf("--set-file %q: %w", s, err)
		}
	}
	if g.flavour != "" {
		values["flavour"] = g.flavour
	}
	return deploy.Render(deploy.Release{Name: g.name, Namespace: g.namespace, Values: values})
}

// overlayValues puts from over into, key by key.
func overlayValues(into, from map[string]any) {
	for k, v := range from {
		old, wasMap := into[k].(map[string]any)
		if m, isMap := v.(map[string]any); isMap && wasMap {
			overlayValues(old, m)
			continue
		}
		into[k] = v
	}
}

// openValues are maps whose keys are names that may have dots in them.
var openValues = []string{"manifests"}

// setValue sets the value at a path of keys joined by dots.
func setValue(values map[string]any, path string, v any) error {
	for {
		key, rest, deeper := strings.Cut(path, ".")
		if !deeper {
			values[key] = v
			return nil
		}
		next, ok := values[key].(map[string]any)
		if !ok {
			if values[key] != nil {
				return fmt.Errorf("%s has no keys", key)
			}
			next = make(map[string]any)
			values[key] = next
		}
		if slices.Contains(openValues, key) {
			next[rest] = v
			return nil
		}
		values, path = next, rest
	}
}

// listValues are those that --set takes as lists, whatever they look like.
var listValues = []string{"mesh.issuers", "mesh.gateways", "hub.workers", "image.pullSecrets"}

// valueOf reads what was given on a command line.
func valueOf(path, text string) any {
	if slices.Contains(listValues, path) {
		var out []any
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
		return out
	}
	var v any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return text
	}
	switch v.(type) {
	case bool, float64, int64:
		return v
	}
	return text
}
