package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"slicewire/api"
)

// demoPolicy closes blue's web service to every site but worker-3.
const demoPolicy = `# Who may ask blue's web service, and for what.
apiVersion: slicewire.io/v1alpha1
kind: SlicePolicy
metadata: {name: web, namespace: shop}
spec:
  slice: blue
  appliesTo:
  - services: [shop/web]
  ingress:
  - from: [{sites: [worker-3]}]
    ports: [{port: 80}]
`

// demoDenied is how long a fetch is tried that policy denies.
const demoDenied = 500 * time.Millisecond

// checkPolicy puts a policy into force at the service's site, sees that one site
// is denied and another is not, has trace say why, and takes the policy away.
func (d *demo) checkPolicy(ctx context.Context) (_ string, err error) {
	const page = "http://web.shop.svc.slice.local/"
	at := newClient(d.server().socket)
	file := filepath.Join(d.dir, "manifests", "policy.yaml")
	if err := os.WriteFile(file, []byte(demoPolicy), 0o600); err != nil {
		return "", err
	}
	defer func() {
		err = errors.Join(err, os.Remove(file), at.reload(context.WithoutCancel(ctx)))
	}()
	if err := at.reload(ctx); err != nil {
		return "", err
	}
	if body, err := fetch(ctx, d.nodes["worker-3"].slices["blue"].proxy, page); err != nil || body != demoPage("blue") {
		return "", fmt.Errorf("worker-3, which the policy allows, got %q, %w", body, err)
	}
	short, cancel := context.WithTimeout(ctx, demoDenied)
	defer cancel()
	if body, err := fetch(short, d.client().slices["blue"].proxy, page); err == nil {
		return "", fmt.Errorf("%s, which no policy allows, got %q", d.client().site, body)
	}
	opts := &clientOptions{socket: d.server().socket}
	trace := func(site string) (api.TraceReply, error) {
		return ask[api.TraceReply](ctx, opts, http.MethodPost, "trace", api.TraceRequest{Slice: "blue", From: site + "/" + demoNodeName, To: "shop/web", Protocol: "tcp", Sport: 40000, Dport: 80})
	}
	denied, err := trace(d.client().site)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(denied.Stages, func(s api.TraceStage) bool { return s.Stage == "policy" })
	if denied.Passes || denied.Drop != "policy" || i < 0 {
		return "", fmt.Errorf("trace says of the denied site: %+v", denied)
	}
	allowed, err := trace("worker-3")
	if err != nil || !allowed.Passes {
		return "", fmt.Errorf("trace says of the allowed site: %+v, %w", allowed, err)
	}
	s, err := at.status(ctx)
	if err != nil {
		return "", err
	}
	dropped := uint64(0)
	for _, x := range s.Slices {
		if x.Name == "blue" {
			dropped = x.Drops["policy"]
		}
	}
	if dropped == 0 {
		return "", errors.New("no dropped packet was counted as policy")
	}
	return fmt.Sprintf("a SlicePolicy lets worker-3 reach blue's web service and %s not (%d packets dropped); slicewire trace:\n%s",
		d.client().site, dropped, denied.Stages[i].Result), nil
}
