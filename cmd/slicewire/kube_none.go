//go:build nokube

package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/netstack/publish"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki/podtoken"
	"slicewire/statedir"
)

// A kubeCluster is the node's part in a Kubernetes cluster; this program was
// built without.
type kubeCluster struct{}

func openCluster(file *manifest.NodeFile, _ statedir.Dir, _ *slog.Logger) (*kubeCluster, error) {
	if file.Kubernetes.Cluster != nil {
		return nil, errors.New("node file: kubernetes.cluster: this slicewire was built without Kubernetes (build tag nokube): take another build, or leave the section out")
	}
	return nil, nil
}

func (*kubeCluster) leave(context.Context)                                 {}
func (*kubeCluster) close()                                                {}
func (*kubeCluster) changed() <-chan struct{}                              { return nil }
func (*kubeCluster) exports() ([]overlay.SliceService, []manifest.Publish) { return nil, nil }
func (*kubeCluster) doors(string) []publish.Backend                        { return nil }
func (*kubeCluster) guard(string) doorGuard                                { return nil }
func (*kubeCluster) tell(string, *siteView, []overlay.Record)              {}
func (*kubeCluster) relinked(*siteView)                                    {}
func (*kubeCluster) held() (objects, changes int)                          { return 0, 0 }
func (*kubeCluster) tokenNews() <-chan struct{}                            { return nil }
func (*kubeCluster) tokenKeys() (issuer, keys string)                      { return "", "" }
func (*kubeCluster) parts() []part                                         { return nil }
func (*kubeCluster) reached(map[string]*sliceNode)                         {}
func (*kubeCluster) status() *api.ClusterStatus                            { return nil }

func (*kubeCluster) review(context.Context, string, string) (podtoken.Review, error) {
	return podtoken.Review{}, errors.New("this slicewire was built without Kubernetes (build tag nokube): it can ask no cluster about tokens")
}

func (*kubeCluster) podUID(context.Context, string, string) (string, error) {
	return "", errors.New("this slicewire was built without Kubernetes (build tag nokube): it can ask no cluster about pods")
}

func newWebhookCommand() *cobra.Command   { return notBuilt("webhook") }
func newUninstallCommand() *cobra.Command { return notBuilt("uninstall") }

func notBuilt(verb string) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: "Not in this build", Hidden: true, DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return errors.New(verb + ": this slicewire was built without Kubernetes (build tag nokube): take another build")
		},
	}
}
