package apitest

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"slicewire/kube"
)

// A Request is what a server wrote down of one.
type Request struct {
	Verb             string
	RequestURI       string
	ImpersonatedUser struct{ Username string }
	ObjectRef        struct{ Resource, Subresource, APIGroup, Namespace, Name string }
	ResponseStatus   struct{ Code int }
}

// Requests returns what somebody asked of the server in the name of a user.
func (s *Server) Requests(t testing.TB, user string) []Request {
	t.Helper()
	f, err := os.Open(s.Audit)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []Request
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r Request
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.ImpersonatedUser.Username == user {
			out = append(out, r)
		}
	}
	return out
}

// CheckUsed fails the test for every right of a Role or ClusterRole that no
// request needed, and for rights to everything or to Secrets. It returns how many
// rights there are.
func CheckUsed(t testing.TB, role *unstructured.Unstructured, made []Request) (rights int) {
	t.Helper()
	rules, _, _ := unstructured.NestedSlice(role.Object, "rules")
	for _, x := range rules {
		rule, _ := x.(map[string]any)
		list := func(key string) []string { l, _, _ := unstructured.NestedStringSlice(rule, key); return l }
		for _, group := range list("apiGroups") {
			for _, resource := range list("resources") {
				for _, verb := range list("verbs") {
					rights++
					if resource == "secrets" || resource == "*" || verb == "*" {
						t.Errorf("%s: %s %s", role.GetName(), verb, resource)
					}
					if !slices.ContainsFunc(made, func(r Request) bool { return r.needs(group, resource, verb, list("resourceNames")) }) {
						t.Errorf("%s: nobody needs %s %s in %q", role.GetName(), verb, resource, group)
					}
				}
			}
		}
	}
	return rights
}

// needs reports whether a request that was granted needed a right.
func (r *Request) needs(group, resource, verb string, names []string) bool {
	plain, sub, _ := strings.Cut(resource, "/")
	ref := r.ObjectRef
	return ref.APIGroup == group && ref.Resource == plain && ref.Subresource == sub && r.ResponseStatus.Code < 400 &&
		(r.Verb == verb || verb == "create" && r.Verb == "patch" && r.ResponseStatus.Code == 201) && // applying what is not there needs both
		(len(names) == 0 || slices.Contains(names, ref.Name))
}

// An Object is any object of a server.
type Object = unstructured.Unstructured

// A Place is where an object is; without Name it is all of them.
type Place struct{ Group, Version, Resource, Namespace, Name string }

func (p *Place) in(c *kube.Client) dynamic.ResourceInterface {
	return c.Dynamic.Resource(schema.GroupVersionResource{Group: p.Group, Version: p.Version, Resource: p.Resource}).Namespace(p.Namespace)
}

// Get returns an object.
func Get(ctx context.Context, c *kube.Client, p Place) (*Object, error) {
	return p.in(c).Get(ctx, p.Name, metav1.GetOptions{})
}

// CheckForbidden fails the test for each of what a user could ask that the server
// does not refuse: verbs are get, list, patch and delete.
func (s *Server) CheckForbidden(t testing.TB, user string, verb string, p Place) {
	t.Helper()
	access := *s.Config
	access.Impersonate.UserName, access.Impersonate.Groups = user, []string{"system:authenticated"}
	c, err := kube.NewClient(&access, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, at := t.Context(), p.in(c)
	switch verb {
	case "get":
		_, err = at.Get(ctx, p.Name, metav1.GetOptions{})
	case "list":
		_, err = at.List(ctx, metav1.ListOptions{})
	case "patch":
		_, err = at.Patch(ctx, p.Name, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
	case "delete":
		err = at.Delete(ctx, p.Name, metav1.DeleteOptions{})
	default:
		t.Fatalf("no verb %q", verb)
	}
	if !apierrors.IsForbidden(err) {
		t.Errorf("%s %+v: %v, want it to be forbidden", verb, p, err)
	}
}
