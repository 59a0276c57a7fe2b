//go:build !nokube

package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/deploy/inject"
	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/statedir"
)

var webhookPlace = apitest.Place{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations", Name: "slicewire-webhook"}

// chartSpace is the namespace that the chart's objects are in.
const chartSpace = "slicewire-system"

// hookObjects are what the chart has for the webhook and an API server without
// nodes takes, and the ClusterRole among them.
func hookObjects(t *testing.T, ca, slice string) (text string, role *apitest.Object) {
	t.Helper()
	all, said, code := program(t, "generate", "manifests", "--set", "mesh.name=rig", "--set", "site=worker-1", "--set-file", "mesh.authority="+ca, "--set", "mesh.issuers=192.0.2.1:1", "--set", "mesh.gateways=192.0.2.1:2",
		"--set-file", "manifests.slices.yaml="+slice, "--set", "webhook.enabled=true", "--set", "webhook.slice=red")
	if code != exitOK {
		t.Fatalf("generate manifests: exit %d: %s", code, said)
	}
	objects, err := apitest.Read([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, o := range objects {
		if o.GetName() != "slicewire-webhook" || o.GetKind() == "Deployment" || o.GetKind() == "Service" {
			continue
		}
		if o.GetKind() == "ClusterRole" {
			role = o
		}
		doc, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(doc))
	}
	if len(docs) != 4 || role == nil {
		t.Fatalf("the chart has %d objects for the webhook's rights", len(docs))
	}
	return strings.Join(docs, "\n---\n"), role
}

// The webhook, run with the rights that the chart gives its service account, is
// denied nothing and leaves no right unused; with these rights nothing else can
// be read or changed.
func TestTheWebhooksRightsAreWhatItNeedsAndNoMore(t *testing.T) {
	server := apitest.Serve(t)
	admin, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := initAuthority(statedir.Dir(dir), "rig", time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, slice := statedir.Dir(dir).Path(fileAuthorityCert), filepath.Join(dir, "slice.yaml")
	writeFile(t, slice, "kind: SliceConfig\n")
	text, role := hookObjects(t, ca, slice)
	if err := errors.Join(apitest.Namespace(t.Context(), admin, chartSpace), apitest.Put(t.Context(), admin, "", text)); err != nil {
		t.Fatal(err)
	}
	const user = "system:serviceaccount:" + chartSpace + ":slicewire-webhook"
	path := filepath.Join(dir, "kubeconfig")
	if err := server.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(config), "user: {client", `user: {as: "`+user+`", client`, 1))

	h := hooking{injecting: injecting{authority: ca, manifests: []string{slice}}, listen: "127.0.0.1:0", host: "slicewire-webhook." + chartSpace + ".svc", name: "slicewire-webhook", kubeconfig: path}
	h.sidecar = inject.Sidecar{Image: "slicewire:1", Site: "worker-1", Slice: "red", Issuers: []string{"192.0.2.1:1"}, Gateways: []string{"192.0.2.1:2"}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	var said strings.Builder
	go func() { ended <- h.serve(ctx, &said) }()
	for told := false; !told; {
		o, err := apitest.Get(ctx, admin, webhookPlace)
		if err != nil {
			t.Fatal(err)
		}
		text, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		told = strings.Contains(string(text), `"caBundle":"LS0t`) // a PEM block
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	made := server.Requests(t, user)
	for _, r := range made {
		if r.ResponseStatus.Code == http.StatusForbidden {
			t.Errorf("denied: %s %s", r.Verb, r.RequestURI)
		}
	}
	if rights := apitest.CheckUsed(t, role, made); rights != 2 {
		t.Errorf("%d rights", rights)
	}
	other, own := webhookPlace, webhookPlace
	other.Name = "other"
	pods := apitest.Place{Version: "v1", Resource: "pods", Namespace: chartSpace}
	secrets := apitest.Place{Version: "v1", Resource: "secrets", Namespace: chartSpace}
	all := apitest.Place{Group: own.Group, Version: own.Version, Resource: own.Resource}
	for _, x := range []struct {
		verb  string
		place apitest.Place
	}{{"get", other}, {"patch", other}, {"list", all}, {"delete", own}, {"list", pods}, {"list", secrets}} {
		server.CheckForbidden(t, user, x.verb, x.place)
	}
}
