package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"slicewire/overlay/manifest"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
)

// varPodNode stands in a node file for what the pod is called as a node, if it is
// no gateway: see podtoken.NodeName.
const varPodNode = "SLICEWIRE_POD_NODE"

// varHostNode stands there for what the machine is called that the pod is on, for
// gateways of which every machine has one: they keep their names, and with them
// their addresses, when their pods are made anew. See podtoken.HostName.
const varHostNode = "SLICEWIRE_HOST_NODE"

// nodeVariable returns what a variable of a node file stands for.
func nodeVariable(name string) (string, bool) {
	namespace, pod := os.Getenv("POD_NAMESPACE"), os.Getenv("POD_NAME")
	if name == varPodNode && namespace != "" && pod != "" {
		return podtoken.NodeName(namespace, pod), true
	}
	if host := os.Getenv("NODE_NAME"); name == varHostNode && host != "" {
		return podtoken.HostName(host), true
	}
	return os.LookupEnv(name)
}

// maxPods is how many pods an issuer remembers the keys of; the oldest are
// forgotten first.
const maxPods = 4096

// podKeys notes which key each pod was let in with: a pod has one as long as it
// lives, so whoever shows its token with another one is not it.
type podKeys struct {
	mu    sync.Mutex
	keys  map[string][32]byte // by UID
	order []string            // oldest first
}

// take reports whether the pod has that key or had none.
func (p *podKeys) take(uid string, key [32]byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.keys[uid]; ok {
		return known == key
	}
	if p.keys == nil {
		p.keys = make(map[string][32]byte)
	}
	for len(p.order) >= maxPods {
		delete(p.keys, p.order[0])
		p.order = p.order[1:]
	}
	p.keys[uid], p.order = key, append(p.order, uid)
	return true
}

// podTerms judges a pod that wants to be a node, as the node file has it. The join
// server's connections call it.
func (d *daemon) podTerms(ctx context.Context, r join.PodRequest) (out join.Terms, err error) {
	var clusters []manifest.NodeJoinCluster
	if err := d.within(ctx, func() error {
		clusters = d.want.file.Join.Kubernetes
		return nil
	}); err != nil {
		return out, err
	}
	pod, c, err := judgePod(ctx, clusters, r, podSources{d.cluster.review, d.hub.podTokens}, d.id.clock.Now())
	if err != nil {
		return out, err
	}
	if !d.issue.pods.take(pod.UID, r.Key) {
		return out, join.Refusal{Reason: join.RefusedKey,
			Text: fmt.Sprintf("pod %s/%s was let in with another key: was its token stolen? A pod that lost its state has to be made anew", pod.Namespace, pod.Name)}
	}
	err = d.within(ctx, func() error {
		out, err = d.podGrants(r, pod, c)
		return err
	})
	if err == nil {
		err = d.issue.numbers.keep()
	}
	return out, err
}

// podSources are what tokens are judged by, besides files.
type podSources struct {
	review func(ctx context.Context, token, audience string) (podtoken.Review, error)
	keys   func(site string) (issuer, keys string, err error)
}

// errFault is a fault of the issuer or of whom it asks: the pod may ask again.
var errFault = errors.New("cannot judge pods now")

// judge returns the pod that a token speaks for, by what the node file says about
// one cluster. An error that is no errFault is about the token.
func (s *podSources) judge(ctx context.Context, c *manifest.NodeJoinCluster, token string, now time.Time) (podtoken.Pod, error) {
	terms := podtoken.Terms{Issuer: c.Issuer, Audience: c.Audience, Namespace: c.Namespace, ServiceAccount: c.ServiceAccount}
	fault := func(err error) (podtoken.Pod, error) {
		return podtoken.Pod{}, fmt.Errorf("%w: cluster of site %s: %w", errFault, c.Site, err)
	}
	var keys []byte
	switch c.Verify {
	case manifest.VerifyReview:
		if err := terms.Plausible(token); err != nil {
			return podtoken.Pod{}, err // the API server has other work
		}
		r, err := s.review(ctx, token, c.Audience)
		if err != nil {
			return fault(err)
		}
		return terms.Accept(r)
	case manifest.VerifyHub:
		issuer, told, err := s.keys(c.Site)
		if err == nil {
			err = podtoken.CheckRegistration(issuer, told)
		}
		if err != nil {
			return fault(fmt.Errorf("the hub: %w", err))
		}
		terms.Issuer, keys = issuer, []byte(told)
	default:
		var err error
		if keys, err = os.ReadFile(c.Keys); err != nil {
			return fault(err)
		}
	}
	cluster, err := podtoken.NewCluster(terms, keys)
	if err != nil {
		return fault(err)
	}
	return cluster.Verify(token, now)
}

// judgePod finds out which pod asks and by which of the clusters it may be the
// node that it wants to be.
func judgePod(ctx context.Context, clusters []manifest.NodeJoinCluster, r join.PodRequest, sources podSources, now time.Time) (podtoken.Pod, manifest.NodeJoinCluster, error) {
	var why []string
	for _, c := range clusters {
		if c.Site != r.Want.Site {
			continue
		}
		pod, err := sources.judge(ctx, &c, r.Bearer, now)
		if errors.Is(err, errFault) {
			return pod, c, err
		}
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		host := ""
		if c.Gateway && pod.Node != "" {
			host = podtoken.HostName(pod.Node)
		}
		if want := podNode(c.Gateway, pod.Namespace, pod.Name); r.Want.Node != want && r.Want.Node != cmp.Or(host, want) {
			return pod, c, join.Refusal{Reason: join.RefusedNode,
				Text: fmt.Sprintf("pod %s/%s on machine %q is the node %q of its site, not %q (Kubernetes 1.30 and later say in tokens which machine it is)", pod.Namespace, pod.Name, pod.Node, want, r.Want.Node)}
		}
		return pod, c, nil
	}
	if why == nil {
		return podtoken.Pod{}, manifest.NodeJoinCluster{}, join.Refusal{Reason: join.RefusedNode, Text: fmt.Sprintf("no pods of site %q are let in here: the issuer's node file does not have it in join.kubernetes", r.Want.Site)}
	}
	return podtoken.Pod{}, manifest.NodeJoinCluster{}, join.Refusal{Reason: join.RefusedToken, Text: strings.Join(why, "; or else: ")}
}
