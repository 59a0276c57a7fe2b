//go:build !nokube

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"slicewire/deploy/inject"
	"slicewire/kube"
	"slicewire/kube/apitest"
)

var webhookConfigurations = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}

// hookObjects are what the chart has for the webhook and an API server without
// nodes takes, and the ClusterRole among them.
func hookObjects(t *testing.T, ca, slice string) (text string, role *unstructured.Unstructured) {
	t.Helper()
	all := generate(t, "--set", "site=worker-1", "--set-file", "mesh.authority="+ca, "--set", "mesh.issuers=192.0.2.1:1", "--set", "mesh.gateways=192.0.2.1:2",
		"--set-file", "manifests.slices.yaml="+slice, "--set", "webhook.enabled=true", "--set", "webhook.slice=red")
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
	if err := initAuthority(stateDir(dir), "rig", time.Now()); err != nil {
		t.Fatal(err)
	}
	ca, slice := stateDir(dir).path(fileAuthorityCert), filepath.Join(dir, "slice.yaml")
	writeFile(t, slice, "kind: SliceConfig\n")
	text, role := hookObjects(t, ca, slice)
	if err := errors.Join(apitest.Namespace(t.Context(), admin, rigSpace), apitest.Put(t.Context(), admin, "", text)); err != nil {
		t.Fatal(err)
	}
	const user = "system:serviceaccount:" + rigSpace + ":slicewire-webhook"
	path := filepath.Join(dir, "kubeconfig")
	if err := server.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(config), "user: {client", `user: {as: "`+user+`", client`, 1))

	h := hooking{injecting: injecting{authority: ca, manifests: []string{slice}}, listen: "127.0.0.1:0", host: "slicewire-webhook." + rigSpace + ".svc", name: "slicewire-webhook", kubeconfig: path}
	h.sidecar = inject.Sidecar{Image: "slicewire:1", Site: "worker-1", Slice: "red", Issuers: []string{"192.0.2.1:1"}, Gateways: []string{"192.0.2.1:2"}}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ended := make(chan error, 1)
	var said strings.Builder
	go func() { ended <- h.serve(ctx, &said) }()
	for bundle := ""; bundle == ""; {
		o, err := admin.Dynamic.Resource(webhookConfigurations).Get(ctx, "slicewire-webhook", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
		bundle, _, _ = unstructured.NestedString(hooks[0].(map[string]any), "clientConfig", "caBundle")
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
	checkDenied(t, server, user)
}

// checkDenied asks for what the webhook has no use for.
func checkDenied(t *testing.T, server *apitest.Server, user string) {
	t.Helper()
	access := *server.Config
	access.Impersonate.UserName, access.Impersonate.Groups = user, []string{"system:authenticated"}
	c, err := kube.NewClient(&access, "test")
	if err != nil {
		t.Fatal(err)
	}
	hooks := c.Dynamic.Resource(webhookConfigurations)
	pods := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(rigSpace)
	secrets := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(rigSpace)
	ctx := t.Context()
	for what, ask := range map[string]func() error{
		"another's configuration": func() error { _, err := hooks.Get(ctx, "other", metav1.GetOptions{}); return err },
		"a change of another's": func() error {
			_, err := hooks.Patch(ctx, "other", types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
			return err
		},
		"a list of configurations":     func() error { _, err := hooks.List(ctx, metav1.ListOptions{}); return err },
		"an end of its configuration":  func() error { return hooks.Delete(ctx, "slicewire-webhook", metav1.DeleteOptions{}) },
		"pods":                         func() error { _, err := pods.List(ctx, metav1.ListOptions{}); return err },
		"Secrets of its own namespace": func() error { _, err := secrets.List(ctx, metav1.ListOptions{}); return err },
	} {
		if err := ask(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it to be forbidden", what, fmt.Sprint(err))
		}
	}
}
