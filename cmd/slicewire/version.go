package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/show"
)

// version is set at link time; a build without it tells the module's version.
var version string

func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "unknown"
}

func newVersionCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			v := struct {
				APIVersion string `json:"apiVersion"`
				Kind       string `json:"kind"`
				Version    string `json:"version"`
				Go         string `json:"go"`
				Platform   string `json:"platform"`
			}{api.Version, "Version", versionString(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			if output != "table" {
				return show.Document(cmd.OutOrStdout(), output, v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "slicewire %s %s %s\n", v.Version, v.Go, v.Platform)
			return err
		},
	}
	addOutputFlag(cmd, &output)
	return cmd
}

func newReloadCommand(opts *clientOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Have the daemon read its node file and manifests again",
		Long: "Has the daemon read its node file and manifests again, as SIGHUP does.\n" +
			"When they have errors, the old configuration goes on and the errors are printed.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return newClient(opts.socket).reload(cmd.Context())
		},
	}
}
