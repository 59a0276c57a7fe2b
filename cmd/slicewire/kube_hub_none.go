//go:build nokube

package main

import (
	"errors"
	"io"
	"log/slog"
	"net/netip"

	"slicewire/api"
	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/statedir"
)

type kubeHub struct{}

func openHub(file *manifest.NodeFile, _ statedir.Dir, _ *slog.Logger) (*kubeHub, error) {
	if file.Kubernetes.Hub != nil {
		return nil, errors.New("kubernetes.hub: this program was built without Kubernetes (build tag nokube): take another, or name files in manifests")
	}
	return nil, nil
}

func (*kubeHub) parts() []part { return nil }

func (*kubeHub) changed() <-chan struct{} { return nil }

func (*kubeHub) build(set *manifest.Set, opts manifest.Options) (overlay.Mesh, []manifest.Problem) {
	return manifest.Build(set, opts)
}

func (*kubeHub) worked(*manifest.Set, *overlay.Mesh, string) map[string]manifest.WorkerSlice {
	return nil // nobody asks for it
}

func (*kubeHub) silent() bool { return false }

func (*kubeHub) tell(string, []netip.AddrPort, []sliceView, *kubeCluster, func(string) []gateway.PeerStatus) {
}

func (*kubeHub) podTokens(string) (issuer, keys string, err error) { return "", "", errNoHub }

func (*kubeHub) confirm() error { return errNoHub }

func (*kubeHub) metrics(io.Writer, []gateway.TunnelStatus) error { return errNoHub }

func (*kubeHub) status() *api.HubStatus { return nil }
