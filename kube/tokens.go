package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var tokenReviews = schema.GroupVersionResource{Group: "authentication.k8s.io", Version: "v1", Resource: "tokenreviews"}

// What the API server says of a token's pod.
const (
	extraPod    = "authentication.kubernetes.io/pod-name"
	extraPodUID = "authentication.kubernetes.io/pod-uid"
)

// A TokenReview is what an API server says of a token.
type TokenReview struct {
	Authenticated bool
	Error         string
	Username      string
	Audiences     []string
	Pod, PodUID   string
}

// Review asks the API server about a token for an audience. It says no to one
// whose pod or service account is gone.
func (c *Client) Review(ctx context.Context, token, audience string) (TokenReview, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	o, err := c.Dynamic.Resource(tokenReviews).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
		"spec": map[string]any{"token": token, "audiences": []any{audience}},
	}}, metav1.CreateOptions{})
	if err != nil {
		return TokenReview{}, fmt.Errorf("token review: %w", err)
	}
	text := func(path ...string) string { s, _, _ := unstructured.NestedString(o.Object, path...); return s }
	var r TokenReview
	r.Authenticated, _, _ = unstructured.NestedBool(o.Object, "status", "authenticated")
	r.Error, r.Username = text("status", "error"), text("status", "user", "username")
	r.Audiences, _, _ = unstructured.NestedStringSlice(o.Object, "status", "audiences")
	for field, to := range map[string]*string{extraPod: &r.Pod, extraPodUID: &r.PodUID} {
		if l, _, _ := unstructured.NestedStringSlice(o.Object, "status", "user", "extra", field); len(l) == 1 {
			*to = l[0]
		}
	}
	return r, nil
}

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// PodUID returns the UID of the pod of that name, as it is now; empty: there is
// none. It needs the right to list pods, and no other.
func (c *Client) PodUID(ctx context.Context, namespace, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, err := c.Dynamic.Resource(pods).Namespace(namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
	if err != nil {
		return "", fmt.Errorf("pod %s/%s: %w", namespace, name, err)
	}
	for i := range list.Items {
		if list.Items[i].GetName() == name {
			return string(list.Items[i].GetUID()), nil
		}
	}
	return "", nil
}

// Issuer returns how the server names itself in the tokens of service accounts,
// and the public keys that it signs them with, a JSON Web Key Set. Every service
// account may ask for both.
func (c *Client) Issuer(ctx context.Context) (issuer string, jwks []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	about, err := c.rest.Get().AbsPath("/.well-known/openid-configuration").Do(ctx).Raw()
	if err != nil {
		return "", nil, fmt.Errorf("issuer of service accounts: %w", err)
	}
	var config struct {
		Issuer string `json:"issuer"`
	}
	if err := json.Unmarshal(about, &config); err != nil {
		return "", nil, fmt.Errorf("issuer of service accounts: %w", err)
	}
	if config.Issuer == "" {
		return "", nil, errors.New("issuer of service accounts: the server does not say")
	}
	if jwks, err = c.rest.Get().AbsPath("/openid/v1/jwks").SetHeader("Accept", "application/jwk-set+json").Do(ctx).Raw(); err != nil {
		return "", nil, fmt.Errorf("keys of service accounts: %w", err)
	}
	return config.Issuer, jwks, nil
}
