//go:build !nokube

package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"slicewire/kube"
	"slicewire/overlay/pki/podtoken"
)

// How often a cluster's keys for pods' tokens are looked at: Kubernetes changes
// them with a restart of its API servers, and signs with a new one only after.
const (
	tokenKeysEvery = 5 * time.Minute
	tokenKeysRetry = 15 * time.Second
)

// tokenKeys follows by what the cluster's pods prove who they are.
type tokenKeys struct {
	client *kube.Client
	log    *slog.Logger
	now    atomic.Pointer[toldKeys] // nil: not known
	news   chan struct{}            // level-triggered: now is another
}

// toldKeys are an issuer and its key set.
type toldKeys struct{ issuer, keys string }

func newTokenKeys(client *kube.Client, log *slog.Logger) *tokenKeys {
	return &tokenKeys{client: client, log: log, news: make(chan struct{}, 1)}
}

// run looks until ctx ends.
func (k *tokenKeys) run(ctx context.Context) error {
	said := ""
	for ctx.Err() == nil {
		wait := tokenKeysEvery
		if err := k.look(ctx); err != nil {
			if wait = tokenKeysRetry; err.Error() != said && ctx.Err() == nil {
				said = err.Error()
				k.log.Warn("the hub is not told by what pods of this cluster prove who they are", "err", err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return nil
}

func (k *tokenKeys) look(ctx context.Context) error {
	issuer, jwks, err := k.client.Issuer(ctx)
	if err != nil {
		return err
	}
	keys, err := podtoken.Normal(jwks)
	if err == nil {
		err = podtoken.CheckRegistration(issuer, keys)
	}
	if err != nil {
		return err
	}
	if before := k.now.Swap(&toldKeys{issuer, keys}); before == nil || *before != (toldKeys{issuer, keys}) {
		select {
		case k.news <- struct{}{}:
		default:
		}
	}
	return nil
}

// tokenNews is told when tokenKeys would say something else.
func (k *kubeCluster) tokenNews() <-chan struct{} {
	if k == nil {
		return nil
	}
	return k.tokens.news
}

// tokenKeys returns by what pods of the cluster prove who they are; empty: not
// known.
func (k *kubeCluster) tokenKeys() (issuer, keys string) {
	if k == nil {
		return "", ""
	}
	if t := k.tokens.now.Load(); t != nil {
		return t.issuer, t.keys
	}
	return "", ""
}

// review asks the cluster about a token.
func (k *kubeCluster) review(ctx context.Context, token, audience string) (podtoken.Review, error) {
	if k == nil {
		return podtoken.Review{}, errors.New("this node is in no cluster that it could ask: name it in kubernetes.cluster of its node file")
	}
	r, err := k.client.Review(ctx, token, audience)
	return podtoken.Review(r), err
}

// podUID asks the cluster which pod has a name now; empty: none.
func (k *kubeCluster) podUID(ctx context.Context, namespace, name string) (string, error) {
	return k.client.PodUID(ctx, namespace, name)
}

// podTokens returns by what a site's pods prove who they are, as the hub has it.
func (k *kubeHub) podTokens(site string) (issuer, keys string, err error) {
	if k == nil {
		return "", "", errNoHub
	}
	return k.hub.PodTokens(site)
}
