package podtoken

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"slicewire/overlay"
)

// Bounds of a token.
const (
	maxToken = 8 << 10
	// maxLife is far above what Kubernetes gives a token for an audience of its
	// own, an hour: one that is good for longer was not made for a pod.
	maxLife = 25 * time.Hour
	// skew is how far the clocks of a cluster and an issuer may differ.
	skew = time.Minute
)

// Any stands for any namespace's service account of Terms.
const Any = "*"

// Terms say whose tokens are accepted.
type Terms struct {
	Issuer         string // as the cluster names itself: its --service-account-issuer
	Audience       string // that the tokens are for
	Namespace      string
	ServiceAccount string // Any: each of the namespace
}

// A Cluster accepts tokens that one cluster signed.
type Cluster struct {
	terms Terms
	keys  map[string]publicKey // by kid
}

// A Pod is who a token speaks for.
type Pod struct {
	Namespace, Name, UID string
	Node                 string // the machine it is on, in its cluster; empty: the token does not say
	ServiceAccount       string
	Expires              time.Time // of the token
}

// NewCluster reads a cluster's public keys, a JSON Web Key Set as its API server
// has it at /openid/v1/jwks.
func NewCluster(t Terms, jwks []byte) (*Cluster, error) {
	if t.Issuer == "" || t.Audience == "" || t.Namespace == "" || t.ServiceAccount == "" {
		return nil, errors.New("pod tokens: issuer, audience, namespace and service account are needed")
	}
	keys, err := parseKeys(jwks)
	if err != nil {
		return nil, err
	}
	return &Cluster{terms: t, keys: keys}, nil
}

// claims are those of Kubernetes' tokens that matter. Times are seconds since
// 1970.
type claims struct {
	Issuer    string     `json:"iss"`
	Subject   string     `json:"sub"`
	Audience  audience   `json:"aud"`
	Expires   *time1970  `json:"exp"`
	NotBefore *time1970  `json:"nbf"`
	Issued    *time1970  `json:"iat"`
	Bound     kubernetes `json:"kubernetes.io"`
}

type kubernetes struct {
	Namespace      string  `json:"namespace"`
	Pod            *object `json:"pod"`
	Node           *object `json:"node"`
	ServiceAccount *object `json:"serviceaccount"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// audience is one string or several.
type audience []string

// UnmarshalJSON reads either form.
func (a *audience) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audience{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(a))
}

// time1970 is whole seconds, of which RFC 7519 allows fractions and Kubernetes
// makes none.
type time1970 int64

func (t time1970) time() time.Time { return time.Unix(int64(t), 0).UTC() }

// maxTime is the last second of the year 9999.
const maxTime = 253402300799

var (
	errForm      = errors.New("it is no token of a service account: want three parts in base64url, joined by dots")
	errSignature = errors.New("its signature is not of the cluster's keys")
)

// Verify returns the pod that a token speaks for, at the time now.
func (c *Cluster) Verify(token string, now time.Time) (Pod, error) {
	payload, err := c.payload(token)
	if err != nil {
		return Pod{}, fmt.Errorf("pod token: %w", err)
	}
	var x claims
	if err := json.Unmarshal(payload, &x); err != nil {
		return Pod{}, fmt.Errorf("pod token: %w: %w", errForm, err)
	}
	if err := c.judge(&x, now); err != nil {
		return Pod{}, fmt.Errorf("pod token: %w", err)
	}
	p := Pod{
		Namespace: x.Bound.Namespace, Name: x.Bound.Pod.Name, UID: x.Bound.Pod.UID,
		ServiceAccount: x.Bound.ServiceAccount.Name, Expires: x.Expires.time(),
	}
	if n := x.Bound.Node; n != nil && overlay.ValidDNSName(n.Name) {
		p.Node = n.Name
	}
	return p, nil
}

// payload returns what the token's signature vouches for.
func (c *Cluster) payload(token string) ([]byte, error) {
	decoded, err := split(token)
	if err != nil {
		return nil, err
	}
	var header struct {
		Algorithm string          `json:"alg"`
		Key       string          `json:"kid"`
		Critical  json.RawMessage `json:"crit"`
	}
	d := json.NewDecoder(bytes.NewReader(decoded[0]))
	if err := d.Decode(&header); err != nil || header.Critical != nil {
		return nil, errForm
	}
	key, ok := c.keys[header.Key]
	if !ok {
		return nil, fmt.Errorf("%w: none has the id %q", errSignature, header.Key)
	}
	// The key says how it signs. What the token says has to be the same and
	// decides nothing.
	if header.Algorithm != key.algorithm {
		return nil, fmt.Errorf("%w: it says %q and the key is for %s", errSignature, header.Algorithm, key.algorithm)
	}
	if !key.verifies([]byte(token[:strings.LastIndexByte(token, '.')]), decoded[2]) {
		return nil, errSignature
	}
	return decoded[1], nil
}

// split decodes a token's three parts.
func split(token string) (decoded [3][]byte, err error) {
	parts := strings.Split(token, ".")
	if len(token) > maxToken || len(parts) != 3 {
		return decoded, errForm
	}
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil || len(b) == 0 || strings.ContainsAny(p, "\r\n") {
			return decoded, errForm
		}
		decoded[i] = b
	}
	return decoded, nil
}

func (c *Cluster) judge(x *claims, now time.Time) error {
	t := c.terms
	pod, account := x.Bound.Pod, x.Bound.ServiceAccount
	switch {
	case x.Issuer != t.Issuer:
		return fmt.Errorf("it is of the issuer %q, not of %q", x.Issuer, t.Issuer)
	case !slices.Contains(x.Audience, t.Audience):
		return fmt.Errorf("it is for the audience %q, not for %q", []string(x.Audience), t.Audience)
	case x.Expires == nil || x.Issued == nil || outside(x.Expires) || outside(x.Issued) || outside(x.NotBefore):
		return errors.New("it does not say from when until when it is good")
	case x.Expires.time().Sub(x.Issued.time()) > maxLife:
		return fmt.Errorf("it is good for more than %v: pods get tokens that are good for an hour", maxLife)
	case !now.Before(x.Expires.time()):
		return fmt.Errorf("it was good until %s", x.Expires.time().Format(time.RFC3339))
	case now.Add(skew).Before(x.Issued.time()) || x.NotBefore != nil && now.Add(skew).Before(x.NotBefore.time()):
		return errors.New("it is not good yet: do the clocks differ?")
	case pod == nil || account == nil || pod.UID == "" || len(pod.UID) > maxUID:
		return errUnbound
	case !overlay.ValidLabel(x.Bound.Namespace) || !overlay.ValidDNSName(pod.Name) || !overlay.ValidDNSName(account.Name):
		return errors.New("it has names that Kubernetes does not allow")
	case x.Subject != accountPrefix+x.Bound.Namespace+":"+account.Name:
		return fmt.Errorf("its subject %q is not the service account that it names", x.Subject)
	case !t.lets(x.Bound.Namespace, account.Name):
		return fmt.Errorf("it is of the service account %s/%s, not of %s/%s", x.Bound.Namespace, account.Name, t.Namespace, t.ServiceAccount)
	}
	return nil
}

func outside(t *time1970) bool { return t != nil && (*t <= 0 || *t > maxTime) }

// maxLabel is how long a node's name may be.
const maxLabel = 63

// HostName is how a machine of a cluster, by its name there, is called as a node
// of its site: as it is, or like a pod of no namespace where that is no label.
func HostName(machine string) string {
	if overlay.ValidLabel(machine) {
		return machine
	}
	return NodeName("", machine)
}

// sumDigits is how many characters a pod's sum has in its node's name.
const sumDigits = 12

// IsNodeName reports whether a node's name has the form of what NodeName returns.
func IsNodeName(name string) bool {
	at := len(name) - sumDigits - 1
	return at > 0 && name[at] == '-' && strings.Trim(name[at+1:], "0123456789abcdef") == ""
}

// NodeName is how a pod is called as a node of its site: by its name and by a sum
// of its namespace and name, since pods of several namespaces may have one name.
// The sum makes it no other pod's.
func NodeName(namespace, pod string) string {
	sum := sha256.Sum256([]byte(namespace + "/" + pod))
	tail := "-" + hex.EncodeToString(sum[:sumDigits/2])
	name := strings.ReplaceAll(pod, ".", "-")
	if len(name)+len(tail) > maxLabel {
		name = strings.TrimRight(name[:maxLabel-len(tail)], "-")
	}
	return name + tail
}
