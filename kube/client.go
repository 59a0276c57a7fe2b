package kube

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How much a node may ask of an API server: far above what it needs when
// nothing changes, and enough for a thousand objects in the first seconds.
const (
	requestsPerSecond = 100
	requestBurst      = 200
)

// askTimeout bounds a request that is no watch.
const askTimeout = 10 * time.Second

// A Client speaks to one API server.
type Client struct {
	Dynamic dynamic.Interface
	Config  *rest.Config // not to be changed

	rest rest.Interface // for paths that are no objects
}

// Connect makes a client from a kubeconfig file, or from what the cluster gives
// a pod when kubeconfig is "". It does not speak to the server yet. agent names
// the part that asks, for the server's logs.
func Connect(kubeconfig, agent string) (*Client, error) {
	return ConnectRate(kubeconfig, agent, requestsPerSecond, requestBurst)
}

// ConnectRate is Connect for a part that may make so many requests a second, and
// so many at once.
func ConnectRate(kubeconfig, agent string, perSecond float32, burst int) (*Client, error) {
	var c *rest.Config
	var err error
	if kubeconfig == "" {
		if c, err = rest.InClusterConfig(); errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("not in a pod of a cluster: name a kubeconfig file, or let the pod have its service account's token")
		}
	} else {
		rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: kubeconfig}
		c, err = clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, nil).ClientConfig()
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %q: %w", kubeconfig, err)
	}
	c = rest.CopyConfig(c)
	c.QPS, c.Burst = perSecond, burst
	return NewClient(c, agent)
}

// NewClient makes a client of a configuration, which is copied. Where it does not
// say how much may be asked, little is.
func NewClient(config *rest.Config, agent string) (*Client, error) {
	c := rest.CopyConfig(config)
	c.UserAgent = "slicewire/" + agent
	if c.QPS == 0 {
		c.QPS, c.Burst = requestsPerSecond, requestBurst
	}
	c.ContentType, c.AcceptContentTypes = "application/json", "application/json"
	d, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", c.Host, err)
	}
	plain := dynamic.ConfigFor(c)
	plain.GroupVersion, plain.APIPath = nil, "/"
	r, err := rest.UnversionedRESTClientFor(plain)
	if err != nil {
		return nil, fmt.Errorf("client for %s: %w", c.Host, err)
	}
	return &Client{Dynamic: d, Config: c, rest: r}, nil
}

// Ask reports whether the server answers and is ready. A server that forbids the
// question has answered it.
func (c *Client) Ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout/2)
	defer cancel()
	err := c.rest.Get().AbsPath("/readyz").Do(ctx).Error()
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
