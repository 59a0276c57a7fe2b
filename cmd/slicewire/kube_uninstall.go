//go:build !nokube

package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"slicewire/deploy"
	"slicewire/kube"
	"slicewire/kube/cluster"
	"slicewire/kube/hub"
)

// An uninstalling is one `slicewire uninstall`.
type uninstalling struct {
	kubeconfig, namespace, hub string
	wait                       time.Duration
}

func newUninstallCommand() *cobra.Command {
	var u uninstalling
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take out of a cluster what slicewire has written into it",
		Long: "Removes what gateways have made in a cluster for imported services and isolation (what has the\n" +
			"label " + kube.LabelManagedBy + "=" + kube.ManagedBy + "), and the labels, annotations and statuses that they\n" +
			"wrote into objects of others. It does so once no gateway runs any more, so uninstall these first:\n\n" +
			"  kubectl delete -k my-overlay && slicewire uninstall --kubeconfig ~/.kube/config\n\n" +
			"`helm uninstall` does it by itself. With --hub it removes what nodes wrote into a project's namespace\n" +
			"on a hub instead.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			n, err := u.run(ctx)
			fmt.Fprintf(cmd.OutOrStdout(), "%d objects removed or cleaned\n", n)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: what the pod is given")
	f.StringVarP(&u.namespace, "namespace", "n", deploy.DefaultNamespace, "namespace that the gateways ran in")
	f.StringVar(&u.hub, "hub", "", "a project's namespace on a hub (kubeslice-PROJECT), to clean instead")
	f.DurationVar(&u.wait, "wait", 2*time.Minute, "how long to wait for gateways to end, and all of it may take")
	return cmd
}

func (u *uninstalling) run(ctx context.Context) (changed int, err error) {
	if u.wait <= 0 {
		return 0, &exitError{exitUsage, errors.New("--wait: want more than 0")}
	}
	ctx, cancel := context.WithTimeout(ctx, u.wait)
	defer cancel()
	client, err := kube.Connect(u.kubeconfig, "uninstall")
	if err != nil {
		return 0, err
	}
	if u.hub != "" {
		return hub.Remove(ctx, client, u.hub)
	}
	return cluster.Remove(ctx, client, u.namespace)
}
