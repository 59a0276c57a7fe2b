package overlay

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Exported are labels and annotations that go along with an exported service to
// those who import it.
type Exported struct {
	Labels      map[string]string `json:"l,omitempty"`
	Annotations map[string]string `json:"a,omitempty"`
}

// MaxExported bounds, in bytes, what Encode makes: a record travels to every node.
const MaxExported = 1024

// Forms of the keys of both and of the values of labels, as Kubernetes has them.
var (
	exportedKey   = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
	exportedLabel = regexp.MustCompile(`^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$`)
)

// reservedDomains are those whose keys mean something to Kubernetes, to KubeSlice
// or to slicewire: another cluster must not set them here.
var reservedDomains = []string{"kubernetes.io", "k8s.io", "kubeslice.io", "slicewire.io"}

// reserved reports whether a key is one that no other cluster may set. What
// app.kubernetes.io has is for people, but for who manages an object.
func reserved(key string) bool {
	domain, name, prefixed := strings.Cut(key, "/")
	if !prefixed || domain == "app.kubernetes.io" && name != "managed-by" {
		return false
	}
	return slices.ContainsFunc(reservedDomains, func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) })
}

// check returns what is wrong with it.
func (e Exported) check() error {
	for _, part := range []struct {
		what string
		has  map[string]string
	}{{"label", e.Labels}, {"annotation", e.Annotations}} {
		for _, key := range slices.Sorted(maps.Keys(part.has)) {
			v := part.has[key]
			switch {
			case !exportedKey.MatchString(key):
				return fmt.Errorf("%s %.80q: not a key as Kubernetes has them", part.what, key)
			case reserved(key):
				return fmt.Errorf("%s %.80q: its domain is one that other clusters may not set", part.what, key)
			case part.what == "label" && !exportedLabel.MatchString(v):
				return fmt.Errorf("label %.80q: %.80q is no value as Kubernetes has them", key, v)
			case strings.ContainsFunc(v, unicode.IsControl) || strings.ToValidUTF8(v, "") != v:
				return fmt.Errorf("annotation %.80q: its value has control characters", key)
			}
		}
	}
	return nil
}

// Encode returns it as one text: the same for the same, empty for none.
func (e Exported) Encode() (string, error) {
	if len(e.Labels)+len(e.Annotations) == 0 {
		return "", nil
	}
	if err := e.check(); err != nil {
		return "", err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return "", err
	}
	if len(b) > MaxExported {
		return "", fmt.Errorf("labels and annotations take %d bytes: at most %d", len(b), MaxExported)
	}
	return string(b), nil
}

// DecodeExported reads what Encode made. Of what anything is wrong with it takes
// nothing: it comes from other nodes.
func DecodeExported(text string) Exported {
	var e Exported
	if text == "" || len(text) > MaxExported || json.Unmarshal([]byte(text), &e) != nil || e.check() != nil {
		return Exported{}
	}
	return e
}
