package apitest

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
