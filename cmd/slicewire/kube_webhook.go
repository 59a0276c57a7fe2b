//go:build !nokube

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"slicewire/kube"
	"slicewire/kube/webhook"
)

// A hooking is one `slicewire webhook`.
type hooking struct {
	injecting
	listen, host, name, kubeconfig string
}

func newWebhookCommand() *cobra.Command {
	var h hooking
	cmd := &cobra.Command{
		Use:   "webhook --host SERVICE.NAMESPACE.svc --name CONFIGURATION --site SITE --slice SLICE --authority FILE --issuer HOST:PORT --gateway HOST:PORT --manifests FILE",
		Short: "Put slicewire as a sidecar into pods as they are made",
		Long: "Answers an API server that shows it new pods (a mutating webhook): those with the label\n" +
			webhook.LabelInject + ": \"true\" get the sidecar that `slicewire inject` would put in, with the annotation\n" +
			webhook.AnnotationPublish + " in place of --publish. It makes its own certificate and writes it into the\n" +
			"MutatingWebhookConfiguration, for which it needs get and patch of that one object.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return h.serve(ctx, cmd.ErrOrStderr())
		},
	}
	h.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&h.listen, "listen", ":8443", "address to listen on")
	f.StringVar(&h.host, "host", "", "name by which the API server calls it: SERVICE.NAMESPACE.svc")
	f.StringVar(&h.name, "name", "", "name of the MutatingWebhookConfiguration")
	f.StringVar(&h.kubeconfig, "kubeconfig", "", "kubeconfig file; empty: what the pod is given")
	return cmd
}

func (h *hooking) serve(ctx context.Context, said io.Writer) error {
	if h.host == "" || h.name == "" {
		return &exitError{exitUsage, errors.New("--host and --name are needed: by which name the API server calls, and of which MutatingWebhookConfiguration")}
	}
	if err := h.prepare(); err != nil {
		return err
	}
	client, err := kube.Connect(h.kubeconfig, "webhook")
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", h.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	s, err := webhook.New(webhook.Config{
		Client: client, Listener: l, Host: h.host, Name: h.name, Sidecar: h.sidecar, Log: slog.New(slog.NewJSONHandler(said, nil)),
	})
	if err != nil {
		return errors.Join(&exitError{exitUsage, err}, l.Close())
	}
	return s.Run(ctx)
}
