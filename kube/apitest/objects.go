package apitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"

	"slicewire/kube"
)

// plurals are those that cannot be told from the kind.
var plurals = map[string]string{"SlicePolicy": "slicepolicies", "SliceClasses": "sliceclasses", "NetworkPolicy": "networkpolicies"}

// ResourceOf returns the resource of an object's kind.
func ResourceOf(o *unstructured.Unstructured) schema.GroupVersionResource {
	gvk := o.GroupVersionKind()
	plural := plurals[gvk.Kind]
	if plural == "" {
		plural = strings.ToLower(gvk.Kind) + "s"
	}
	return gvk.GroupVersion().WithResource(plural)
}

// Read returns the objects of a YAML stream.
func Read(text []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
}

// clusterWide are the kinds without a namespace.
var clusterWide = []string{"Namespace", "MutatingWebhookConfiguration", "CustomResourceDefinition", "ClusterRole", "ClusterRoleBinding"}

// Put creates the objects of a YAML stream, or brings them up to it, as kubectl
// apply does. Those without a namespace get the one that is given.
func Put(ctx context.Context, c *kube.Client, namespace, text string) error {
	objects, err := Read([]byte(text))
	if err != nil {
		return err
	}
	for _, o := range objects {
		if o.GetNamespace() == "" && !slices.Contains(clusterWide, o.GetKind()) {
			o.SetNamespace(namespace)
		}
		_, err := c.Dynamic.Resource(ResourceOf(o)).Namespace(o.GetNamespace()).Apply(ctx, o.GetName(), o, metav1.ApplyOptions{FieldManager: "kubectl", Force: true})
		if err != nil {
			return fmt.Errorf("%s %s/%s: %w", o.GetKind(), o.GetNamespace(), o.GetName(), err)
		}
	}
	return nil
}

// InstallCRDs applies the definitions in a folder and waits until they are
// served.
func InstallCRDs(ctx context.Context, c *kube.Client, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no definitions in %s: %w", folder, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		if err := Put(ctx, c, "", string(text)); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	for _, f := range files {
		plural, group, _ := strings.Cut(strings.TrimSuffix(filepath.Base(f), ".yaml"), ".")
		version := "v1alpha1"
		if group == kube.GroupNetworking {
			version = "v1beta1"
		}
		r := schema.GroupVersionResource{Group: group, Version: version, Resource: plural}
		for {
			_, err := c.Dynamic.Resource(r).List(ctx, metav1.ListOptions{Limit: 1})
			if err == nil {
				break
			}
			if ctx.Err() != nil || !apierrors.IsNotFound(err) && !apierrors.IsTooManyRequests(err) && !apierrors.IsServiceUnavailable(err) {
				return fmt.Errorf("%v is not served: %w", r, err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// Namespace makes a namespace.
func Namespace(ctx context.Context, c *kube.Client, name string) error {
	return Put(ctx, c, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: "+name+"}\n")
}

// List returns the objects of a kind in a namespace.
func List(ctx context.Context, c *kube.Client, apiVersion, kind, namespace string) ([]unstructured.Unstructured, error) {
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(apiVersion)
	o.SetKind(kind)
	list, err := c.Dynamic.Resource(ResourceOf(o)).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// Remove deletes the objects of a YAML stream.
func Remove(ctx context.Context, c *kube.Client, namespace, text string) error {
	objects, err := Read([]byte(text))
	if err != nil {
		return err
	}
	for _, o := range objects {
		if err := c.Dynamic.Resource(ResourceOf(o)).Namespace(namespace).Delete(ctx, o.GetName(), metav1.DeleteOptions{}); err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// PutPod makes a pod of a service account that runs and is ready at an address.
func PutPod(ctx context.Context, c *kube.Client, namespace, name, account, addr string) error {
	pods := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(namespace)
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": map[string]any{"containers": []any{map[string]any{"name": "x", "image": "x"}}, "automountServiceAccountToken": false, "serviceAccountName": account},
	}}
	apply := metav1.ApplyOptions{FieldManager: "kubectl", Force: true}
	if _, err := pods.Apply(ctx, name, o, apply); err != nil {
		return fmt.Errorf("pod %s: %w", name, err)
	}
	delete(o.Object, "spec")
	o.Object["status"] = map[string]any{"phase": "Running", "podIP": addr, "podIPs": []any{map[string]any{"ip": addr}}, "conditions": []any{map[string]any{"type": "Ready", "status": "True"}}}
	if _, err := pods.ApplyStatus(ctx, name, o, apply); err != nil {
		return fmt.Errorf("status of pod %s: %w", name, err)
	}
	return nil
}

// Token has the server make a token of a service account, bound to a pod, for an
// audience; good for ten minutes, the least that there is.
func Token(ctx context.Context, c *kube.Client, namespace, account, pod, audience string) (string, error) {
	v1 := schema.GroupVersion{Version: "v1"}
	p, err := c.Dynamic.Resource(v1.WithResource("pods")).Namespace(namespace).Get(ctx, pod, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	o, err := c.Dynamic.Resource(v1.WithResource("serviceaccounts")).Namespace(namespace).Create(ctx, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": map[string]any{"name": account, "namespace": namespace},
		"spec": map[string]any{"audiences": []any{audience}, "expirationSeconds": int64(600),
			"boundObjectRef": map[string]any{"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": string(p.GetUID())}},
	}}, metav1.CreateOptions{}, "token")
	if err != nil {
		return "", fmt.Errorf("token of %s/%s: %w", namespace, account, err)
	}
	token, _, _ := unstructured.NestedString(o.Object, "status", "token")
	return token, nil
}

// Kill removes a pod at once: there is no kubelet to end it.
func Kill(ctx context.Context, c *kube.Client, namespace, name string) error {
	return c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
}

// TextAt returns a text of an object, "" when there is none.
func TextAt(o *unstructured.Unstructured, path ...string) string {
	s, _, _ := unstructured.NestedString(o.Object, path...)
	return s
}
