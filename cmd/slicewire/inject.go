package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"slicewire/deploy/inject"
	"slicewire/overlay/pki"
	"slicewire/show"
)

// defaultProxy is where a pod's other containers find the slice.
const defaultProxy = "127.0.0.1:1080"

// An injecting is one `slicewire inject`.
type injecting struct {
	sidecar   inject.Sidecar
	undo      bool
	authority string
	manifests []string
	publish   []string
}

func newInjectCommand() *cobra.Command {
	var x injecting
	cmd := &cobra.Command{
		Use:   "inject --site SITE --slice SLICE --authority FILE --issuer HOST:PORT --gateway HOST:PORT --manifests FILE < IN > OUT",
		Short: "Put slicewire as a sidecar into pods, in manifests",
		Long: "Reads YAML documents from standard input and writes them to standard output: Pods, Deployments,\n" +
			"StatefulSets, DaemonSets, ReplicaSets, Jobs and CronJobs with a sidecar that needs no privilege,\n" +
			"everything else as it was. The pod gets an address of its own on the slice; its other containers\n" +
			"reach the slice through the sidecar's proxy, and --publish offers what they serve. To inject again\n" +
			"is to bring up to date; --uninject takes out what was put in. The issuer's node file has to let in\n" +
			"the pods' service account (join.kubernetes).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return x.run(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&x.undo, "uninject", false, "take the sidecar out")
	x.flags(cmd)
	return cmd
}

// flags are those that say what the sidecar is.
func (x *injecting) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&x.sidecar.Image, "image", "docker.io/library/slicewire:"+imageTag(), "slicewire's image")
	f.StringVar(&x.sidecar.Site, "site", "", "name of the pods' cluster in the mesh")
	f.StringVar(&x.sidecar.Slice, "slice", "", "slice that the pods are on")
	f.StringVar(&x.authority, "authority", "", "file with the certificate of the mesh's authority")
	f.StringSliceVar(&x.sidecar.Issuers, "issuer", nil, "host:port of a gateway that lets the pods in")
	f.StringSliceVar(&x.sidecar.Gateways, "gateway", nil, "host:port of a gateway's gossip")
	f.StringArrayVar(&x.manifests, "manifests", nil, "file with the slice's manifests")
	f.StringVar(&x.sidecar.Proxy, "proxy", defaultProxy, "where the pod's containers find the slice; empty: nowhere")
	f.StringArrayVar(&x.publish, "publish", nil, "SERVICE=PORT or SERVICE=PORT/udp: what a container of the pod serves")
}

// imageTag is the tag of this version's image.
func imageTag() string {
	return strings.NewReplacer("+", "-", "(", "", ")", "").Replace(versionString())
}

func (x *injecting) run(in io.Reader, out, said io.Writer) error {
	text, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	var r inject.Result
	if x.undo {
		r, err = inject.Uninject(text)
	} else {
		if err := x.prepare(); err != nil {
			return err
		}
		r, err = inject.Inject(text, x.sidecar)
	}
	if err != nil {
		return err
	}
	if _, err := out.Write(r.Out); err != nil {
		return err
	}
	for _, name := range r.Changed {
		fmt.Fprintln(said, show.Clean(name))
	}
	return nil
}

func (x *injecting) prepare() error {
	if x.authority == "" {
		return &exitError{exitUsage, errors.New("--authority is needed: the file with the certificate of the mesh's authority (ca.crt)")}
	}
	text, err := os.ReadFile(x.authority)
	if err != nil {
		return err
	}
	roots, err := pki.ParseRoots(text)
	if err != nil {
		return fmt.Errorf("%s: %w", x.authority, err)
	}
	x.sidecar.Authority, x.sidecar.Mesh = string(text), roots.Mesh()
	for _, path := range x.manifests {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if x.sidecar.Manifests != "" {
			x.sidecar.Manifests += "---\n"
		}
		x.sidecar.Manifests += strings.TrimRight(string(text), "\n") + "\n"
	}
	for _, text := range x.publish {
		p, err := inject.ParsePublished(text)
		if err != nil {
			return &exitError{exitUsage, fmt.Errorf("--publish %w", err)}
		}
		x.sidecar.Publish = append(x.sidecar.Publish, p)
	}
	return nil
}
