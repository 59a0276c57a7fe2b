//go:build !nokube

package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slicewire/deploy"
	"slicewire/kube"
	"slicewire/kube/apitest"
)

// projectSpace is the namespace of a project on the hub.
const projectSpace = "kubeslice-demo"

// uninstallRights are the rights of the chart's uninstall hook: its service account,
// its Roles and what binds them, and the Roles alone.
func uninstallRights(t *testing.T, values map[string]any) (text string, roles []*apitest.Object) {
	t.Helper()
	all, err := deploy.Render(deploy.Release{Values: values, Hooks: true})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := apitest.Read([]byte(all))
	if err != nil {
		t.Fatal(err)
	}
	var docs []string
	for _, o := range objects {
		if o.GetName() != "slicewire-uninstall" || o.GetKind() == "Job" {
			continue
		}
		if strings.HasSuffix(o.GetKind(), "Role") {
			roles = append(roles, o)
		}
		doc, err := o.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(doc))
	}
	return strings.Join(docs, "\n---\n"), roles
}

// Objects that gateways have made in a cluster, and those of others into which they
// write: a status, or labels.
const gatewaysMade = `
{apiVersion: v1, kind: Service, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {ports: [{port: 80}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, addressType: IPv4, endpoints: []}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {podSelector: {}}}
---
{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceImport, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {slice: red}}
---
{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceImport, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {type: ClusterSetIP, ports: [{port: 80}]}}
---
{apiVersion: networking.kubeslice.io/v1beta1, kind: Slice, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}}
---
{apiVersion: networking.kubeslice.io/v1beta1, kind: SliceGateway, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}}
`

const gatewaysWroteInto = `
{apiVersion: networking.kubeslice.io/v1beta1, kind: ServiceExport, metadata: {name: theirs}, spec: {slice: red, selector: {matchLabels: {a: b}}, ports: [{containerPort: 80}]}}
---
{apiVersion: multicluster.x-k8s.io/v1beta1, kind: ServiceExport, metadata: {name: theirs}}
`

// The same of a project on a hub.
const nodesMade = `
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerSliceConfig, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {sliceName: red}}
---
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerSliceGateway, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {sliceName: red}}
---
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerServiceImport, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {serviceName: x, serviceNamespace: a, sliceName: red}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: VpnKeyRotation, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {sliceName: made}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: ServiceExportConfig, metadata: {name: made, labels: {app.kubernetes.io/managed-by: slicewire}}, spec: {serviceName: x, serviceNamespace: a, sourceCluster: one, sliceName: red}}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: slicewire-controller, labels: {app.kubernetes.io/managed-by: slicewire}}}
`

const nodesWroteInto = `
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerSliceConfig, metadata: {name: theirs}, spec: {sliceName: red}}
---
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerSliceGateway, metadata: {name: theirs}, spec: {sliceName: red}}
---
{apiVersion: worker.kubeslice.io/v1alpha1, kind: WorkerServiceImport, metadata: {name: theirs}, spec: {serviceName: x, serviceNamespace: a, sliceName: red}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: VpnKeyRotation, metadata: {name: theirs}, spec: {sliceName: theirs}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: ServiceExportConfig, metadata: {name: theirs}, spec: {serviceName: x, serviceNamespace: a, sourceCluster: one, sliceName: red}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: Cluster, metadata: {name: theirs}, spec: {nodeIPs: ["192.0.2.1"]}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: SliceConfig, metadata: {name: theirs}, spec: {sliceSubnet: 10.1.0.0/16, sliceGatewayProvider: {}, clusters: [theirs], standardQosProfileName: default}}
---
{apiVersion: controller.kubeslice.io/v1alpha1, kind: SliceQoSConfig, metadata: {name: theirs}, spec: {priority: 1, bandwidthCeilingKbps: 5000, bandwidthGuaranteedKbps: 2000, dscpClass: AF11}}
---
{apiVersion: slicewire.io/v1alpha1, kind: SlicePolicy, metadata: {name: theirs}, spec: {slice: red, appliesTo: [{namespaces: [a]}], ingress: []}}
---
{apiVersion: slicewire.io/v1alpha1, kind: SliceClasses, metadata: {name: theirs}, spec: {slice: red, classes: [{name: rest}]}}
`

// writeStatuses does what nodes do: it writes a condition into every object.
func writeStatuses(t *testing.T, admin *kube.Client, namespace, text string) {
	t.Helper()
	objects, err := apitest.Read([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		want := &apitest.Object{Object: map[string]any{"apiVersion": o.GetAPIVersion(), "kind": o.GetKind(), "metadata": map[string]any{"name": o.GetName(), "namespace": namespace},
			"status": map[string]any{"conditions": []any{map[string]any{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "in force", "lastTransitionTime": "2026-01-02T03:04:05Z"}}}}}
		if _, err := kube.NewApplier(admin).ApplyStatus(t.Context(), apitest.ResourceOf(o), want, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// What comes after `helm uninstall`, run with the rights that the chart gives it, is
// denied nothing and leaves no right unused, in a cluster and on a hub.
func TestTheUninstallHooksRightsAreWhatItNeedsAndNoMore(t *testing.T) {
	server := apitest.Serve(t)
	admin, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(apitest.InstallCRDs(t.Context(), admin, "../../deploy/crds"), apitest.Namespace(t.Context(), admin, chartSpace),
		apitest.Namespace(t.Context(), admin, projectSpace), apitest.Namespace(t.Context(), admin, "shop")); err != nil {
		t.Fatal(err)
	}
	const user = "system:serviceaccount:" + chartSpace + ":slicewire-uninstall"
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := server.Kubeconfig(path); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(string(config), "user: {client", `user: {as: "`+user+`", client`, 1))
	seen := 0
	for _, c := range []struct {
		name, namespace, made, wroteInto string
		values                           map[string]any
		hub                              string
		roles, rights, changed           int
	}{
		{"a cluster", "shop", gatewaysMade, gatewaysWroteInto, map[string]any{"site": "worker-1", "mesh": map[string]any{"authority": "x", "issuers": []any{"192.0.2.1:1"}, "gateways": []any{"192.0.2.1:2"}}}, "", 2, 21, 10},
		{"a hub", projectSpace, nodesMade, nodesWroteInto, map[string]any{"flavour": "hub", "hub": map[string]any{"namespace": projectSpace, "workers": []any{"worker-1"}}}, projectSpace, 1, 27, 16},
	} {
		t.Run(c.name, func(t *testing.T) {
			rights, roles := uninstallRights(t, c.values)
			if err := errors.Join(apitest.Put(t.Context(), admin, "", rights), apitest.Put(t.Context(), admin, c.namespace, c.made+"---\n"+c.wroteInto)); err != nil {
				t.Fatal(err)
			}
			writeStatuses(t, admin, c.namespace, c.wroteInto)
			space := &apitest.Object{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": "shop", "labels": map[string]any{kube.LabelSlice: "red"}}}}
			if _, err := kube.NewApplier(admin).ApplyShared(t.Context(), apitest.ResourceOf(space), space, nil); err != nil {
				t.Fatal(err)
			}
			u := uninstalling{kubeconfig: path, namespace: chartSpace, hub: c.hub, wait: patience}
			changed, err := u.run(t.Context())
			if err != nil || changed != c.changed {
				t.Errorf("%d objects are removed or cleaned, want %d: %v", changed, c.changed, err)
			}
			made := server.Requests(t, user)[seen:]
			seen += len(made)
			for _, r := range made {
				if r.ResponseStatus.Code == http.StatusForbidden {
					t.Errorf("denied: %s %s", r.Verb, r.RequestURI)
				}
			}
			if len(roles) != c.roles {
				t.Fatalf("%d Roles, want %d", len(roles), c.roles)
			}
			n := 0
			for _, role := range roles {
				n += apitest.CheckUsed(t, role, made)
			}
			if n != c.rights {
				t.Errorf("%d rights, want %d", n, c.rights)
			}
		})
	}
	for _, x := range []struct {
		verb  string
		place apitest.Place
	}{
		{"list", apitest.Place{Version: "v1", Resource: "secrets", Namespace: chartSpace}},
		{"list", apitest.Place{Version: "v1", Resource: "pods", Namespace: "shop"}},
		{"delete", apitest.Place{Version: "v1", Resource: "namespaces", Name: "shop"}},
		{"delete", apitest.Place{Group: "controller.kubeslice.io", Version: "v1alpha1", Resource: "sliceconfigs", Namespace: projectSpace, Name: "theirs"}},
		{"list", apitest.Place{Group: "controller.kubeslice.io", Version: "v1alpha1", Resource: "sliceconfigs", Namespace: "shop"}},
	} {
		server.CheckForbidden(t, user, x.verb, x.place)
	}
}
