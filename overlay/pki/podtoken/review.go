package podtoken

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"slicewire/overlay"
)

// A Review is what a cluster's API server says of a token that it was shown
// (TokenReview), for the audience of Terms.
type Review struct {
	Authenticated bool
	Error         string // why not
	Username      string // "system:serviceaccount:" + namespace + ":" + name
	Audiences     []string
	Pod, PodUID   string // that the token is bound to
}

// accountPrefix begins the user name of every service account.
const accountPrefix = "system:serviceaccount:"

// Plausible reports whether a token is worth showing to an API server: it has the
// form of one, and says that it is for the audience.
func (t Terms) Plausible(token string) error {
	var x claims
	parts, err := split(token)
	if err == nil {
		err = json.Unmarshal(parts[1], &x)
	}
	switch {
	case err != nil:
		return fmt.Errorf("pod token: %w", errForm)
	case !slices.Contains(x.Audience, t.Audience):
		return fmt.Errorf("pod token: it is for the audience %q, not for %q", []string(x.Audience), t.Audience)
	}
	return nil
}

// Accept returns the pod that a token speaks for, by what the API server says of
// it. Issuer does not matter: the server knows its own.
func (t Terms) Accept(r Review) (Pod, error) {
	rest, account := strings.CutPrefix(r.Username, accountPrefix)
	namespace, name, _ := strings.Cut(rest, ":")
	fail := func(format string, args ...any) (Pod, error) {
		return Pod{}, fmt.Errorf("pod token: "+format, args...)
	}
	switch {
	case !r.Authenticated:
		why := r.Error
		if why == "" {
			why = "no reason given"
		}
		return fail("the cluster does not take it: %.200q", why)
	case !slices.Contains(r.Audiences, t.Audience):
		return fail("the cluster takes it for the audience %q, not for %q", r.Audiences, t.Audience)
	case !account || !overlay.ValidLabel(namespace) || !overlay.ValidDNSName(name):
		return fail("it is of the user %.100q, who is no service account", r.Username)
	case r.PodUID == "" || len(r.PodUID) > maxUID || !overlay.ValidDNSName(r.Pod):
		return Pod{}, fmt.Errorf("pod token: %w", errUnbound)
	case !t.lets(namespace, name):
		return fail("it is of the service account %s/%s, not of %s/%s", namespace, name, t.Namespace, t.ServiceAccount)
	}
	return Pod{Namespace: namespace, Name: r.Pod, UID: r.PodUID, ServiceAccount: name}, nil
}

// lets reports whether pods of a service account are accepted.
func (t Terms) lets(namespace, account string) bool {
	return (namespace == t.Namespace || t.Namespace == Any) && (account == t.ServiceAccount || t.ServiceAccount == Any)
}

// maxUID bounds a pod's UID.
const maxUID = 64

var errUnbound = errors.New("it is not bound to a pod: have it projected into one")

// maxIssuer bounds the name of an issuer.
const maxIssuer = 512

// CheckRegistration reports what is wrong with an issuer and a key set that
// somebody tells of a cluster.
func CheckRegistration(issuer, jwks string) error {
	if issuer == "" || len(issuer) > maxIssuer || strings.ContainsFunc(issuer, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"<>\\`, r) }) {
		return fmt.Errorf("the issuer %.100q is none: want what the cluster's --service-account-issuer is", issuer)
	}
	_, err := parseKeys([]byte(jwks))
	return err
}

// Normal returns a key set so that the same keys are the same text, whichever of
// a cluster's API servers gave them.
func Normal(jwks []byte) (string, error) {
	if _, err := parseKeys(jwks); err != nil {
		return "", err
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		return "", err
	}
	var texts [][]byte
	for _, k := range set.Keys {
		text, err := json.Marshal(k)
		if err != nil {
			return "", err
		}
		texts = append(texts, text)
	}
	slices.SortFunc(texts, bytes.Compare)
	return `{"keys":[` + string(bytes.Join(texts, []byte(","))) + `]}`, nil
}
