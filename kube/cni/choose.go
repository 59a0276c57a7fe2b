package cni

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// A Slice is one that the node is on.
type Slice struct {
	Name       string   `json:"name"`
	Namespaces []string `json:"namespaces,omitempty"` // that are bound to it here
	Allowed    []string `json:"allowed,omitempty"`    // that may be on it besides
}

func (s *Slice) admits(namespace string) bool {
	return slices.Contains(s.Namespaces, namespace) || slices.Contains(s.Allowed, namespace)
}

// A choice is a slice for a pod, and which namespace it is in there.
type choice struct {
	slice     string // empty: none
	namespace string // of Kubernetes; empty where the slice has none
}

// errUnknown says that a pod's slice cannot be told from what is known.
var errUnknown = errors.New("the daemon has not said which namespaces are on slices")

// choose finds the slice of a pod. What the configuration says was said by an
// administrator and holds for slices without namespaces, too; what the pod's
// annotation says holds where the slice admits its namespace. Without either it
// is the slice that the namespace is bound to, if any. all is what the daemon
// has last said, known whether it ever said anything.
func choose(c *Conf, p pod, all []Slice, known bool) (choice, error) {
	if p.namespace != "" && slices.Contains(c.Exclude, p.namespace) && c.Slice == "" {
		return choice{}, nil
	}
	want := c.Slice
	if want == "" {
		want = c.RuntimeConfig.Annotations[AnnotationSlice]
	}
	switch {
	case want == "" && p.namespace == "":
		return choice{}, types.NewError(types.ErrInvalidNetworkConfig, "no slice: name one in the network's configuration (slice), or have the runtime pass K8S_POD_NAMESPACE", "")
	case !known:
		return choice{}, errUnknown
	case want != "":
		return chooseNamed(c, p, all, want)
	}
	var bound []string
	for i := range all {
		if slices.Contains(all[i].Namespaces, p.namespace) {
			bound = append(bound, all[i].Name)
		}
	}
	if len(bound) > 1 {
		return choice{}, types.NewError(codeAmbiguous, fmt.Sprintf("namespace %s is on the slices %s: choose one by the pod's annotation %s", p.namespace, strings.Join(bound, ", "), AnnotationSlice), "")
	}
	if len(bound) == 0 {
		return choice{}, nil
	}
	return choice{bound[0], p.namespace}, nil
}

func chooseNamed(c *Conf, p pod, all []Slice, want string) (choice, error) {
	i := slices.IndexFunc(all, func(s Slice) bool { return s.Name == want })
	if i < 0 {
		return choice{}, types.NewError(types.ErrTryAgainLater, fmt.Sprintf("slice %q is not on this node (yet)", want), "")
	}
	s := &all[i]
	if c.Slice != "" && (p.namespace == "" || len(s.Namespaces)+len(s.Allowed) == 0) {
		return choice{want, ""}, nil
	}
	if !s.admits(p.namespace) {
		return choice{}, types.NewError(codeNotAllowed, fmt.Sprintf("slice %s is not for pods of namespace %q: it has %s here",
			want, p.namespace, strings.Join(append(slices.Clone(s.Namespaces), s.Allowed...), ", ")), "")
	}
	return choice{want, p.namespace}, nil
}
