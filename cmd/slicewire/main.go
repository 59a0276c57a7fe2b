// Command slicewire gives applications isolated, encrypted L3 networks across
// sites, entirely in userspace. One binary is the daemon, its command line and
// the tools around it.
//
// This package is where the parts meet: it reads configuration, files and the
// environment, hands the parts what they need, and starts and stops them. No
// other package of slicewire imports it, and none reads flags or files.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// clientOptions are the flags of every verb that speaks to a daemon.
type clientOptions struct {
	socket string
}

func main() {
	os.Exit(begin(context.Background(), os.Args))
}

// begin runs the program, or the plugin that it is to container runtimes, and
// returns the exit code.
func begin(ctx context.Context, args []string) int {
	if asPlugin(args) {
		return runPlugin(ctx, defaultSocket())
	}
	return execute(ctx, args[1:], os.Stdout, os.Stderr)
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var opts clientOptions
	started := false
	root := &cobra.Command{
		Use:           "slicewire",
		Short:         "Isolated, encrypted L3 networks across sites, in userspace",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			err := cmd.ValidateRequiredFlags() // cobra asks only afterwards
			started = err == nil
			return err
		},
	}
	root.PersistentFlags().StringVar(&opts.socket, "socket", defaultSocket(), "the daemon's control socket (SLICEWIRE_SOCKET)")
	root.AddCommand(
		newDaemonCommand(&opts), newDemoCommand(), newStatusCommand(&opts), newFlowsCommand(&opts), newTraceCommand(&opts), newCaptureCommand(&opts),
		newPolicyCommand(&opts), newPingCommand(&opts), newReloadCommand(&opts),
		newRunCommand(&opts), newRunInsideCommand(), newAttachCommand(&opts), newDetachCommand(&opts),
		newConfigCommand(), newSimulateCommand(), newCACommand(&opts), newTokenCommand(&opts), newJoinCommand(), newCertCommand(&opts),
		newGossipKeyCommand(&opts), newGenerateCommand(), newInjectCommand(), newCNICommand(&opts), newWebhookCommand(), newUninstallCommand(), newAwaitCommand(), newServicesCommand(&opts), newRoutesCommand(&opts), newDNSCommand(&opts), newHubCommand(&opts), newVersionCommand(),
	)
	root.AddCommand(newDrainCommands(&opts)...)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var coded *exitError
	if !errors.As(err, &coded) {
		coded = &exitError{code: exitFailure, err: err}
		if !started { // a wrong flag, verb or number of arguments
			coded = &exitError{exitUsage, fmt.Errorf("%w (see slicewire --help)", err)}
		}
	}
	if coded.err != nil {
		fmt.Fprintln(stderr, "slicewire:", coded.err)
	}
	return coded.code
}
