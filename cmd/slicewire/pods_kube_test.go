//go:build !nokube

package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"slicewire/kube"
	"slicewire/kube/apitest"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki/join"
)

const testAudience = "slicewire"

// A tokenCluster is a real API server with pods.
type tokenCluster struct {
	t      *testing.T
	server *apitest.Server
	client *kube.Client
}

func newTokenCluster(t *testing.T) *tokenCluster {
	t.Helper()
	s := apitest.Serve(t)
	c, err := kube.NewClient(s.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	x := &tokenCluster{t, s, c}
	for _, n := range []string{"slicewire-system", "apps"} {
		x.must(apitest.Namespace(t.Context(), c, n))
		x.must(apitest.Put(t.Context(), c, n, "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: slicewire}\n"))
		x.must(apitest.PutPod(t.Context(), c, n, "slicewire-0", "slicewire", "10.244.0.7"))
	}
	return x
}

func (x *tokenCluster) must(err error) {
	x.t.Helper()
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *tokenCluster) token(namespace, pod, audience string) string {
	x.t.Helper()
	token, err := apitest.Token(x.t.Context(), x.client, namespace, "slicewire", pod, audience)
	x.must(err)
	return token
}

// again signs a token's claims once more, after edit, with the server's own key.
func (x *tokenCluster) again(token string, edit func(claims map[string]any)) string {
	x.t.Helper()
	parts := strings.Split(token, ".")
	header, err1 := base64.RawURLEncoding.DecodeString(parts[0])
	body, err2 := base64.RawURLEncoding.DecodeString(parts[1])
	var claims map[string]any
	x.must(errors.Join(err1, err2, json.Unmarshal(body, &claims)))
	edit(claims)
	text, err := json.Marshal(claims)
	x.must(err)
	token, err = x.server.Sign(header, text)
	x.must(err)
	return token
}

// asIssuer is a client with the shipped right to ask about tokens and no other.
func (x *tokenCluster) asIssuer() *kube.Client {
	x.t.Helper()
	rights, err := os.ReadFile("../../deploy/rbac/issuer.yaml")
	x.must(err)
	x.must(apitest.Put(x.t.Context(), x.client, "", string(rights)))
	return x.impersonate("system:serviceaccount:slicewire-system:slicewire")
}

func (x *tokenCluster) impersonate(user string) *kube.Client {
	x.t.Helper()
	c, err := x.server.As(user, "system:authenticated", "system:serviceaccounts")
	x.must(err)
	return c
}

func TestPodsAreJudgedByRealClusters(t *testing.T) {
	own, foreign := newTokenCluster(t), newTokenCluster(t)
	follow := newTokenKeys(own.impersonate("system:serviceaccount:slicewire-system:anybody"), slog.New(slog.DiscardHandler))
	if err := follow.look(t.Context()); err != nil {
		t.Fatal(err)
	}
	told := follow.now.Load()
	cluster := &kubeCluster{client: own.asIssuer()}
	sources := podSources{cluster.review, func(site string) (string, string, error) {
		if site != "a" {
			return "", "", errors.New("no such site")
		}
		return told.issuer, told.keys, nil
	}}
	good := own.token("slicewire-system", "slicewire-0", testAudience)
	apps := own.token("apps", "slicewire-0", testAudience)
	own.must(apitest.PutPod(t.Context(), own.client, "slicewire-system", "gone", "slicewire", "10.244.0.8"))
	gone := own.token("slicewire-system", "gone", testAudience)
	own.must(apitest.Kill(t.Context(), own.client, "slicewire-system", "gone"))
	hour := func(m map[string]any) {
		for _, k := range []string{"exp", "iat", "nbf"} {
			m[k] = m[k].(float64) - 3600
		}
	}
	parts := strings.Split(good, ".")
	flipped := "A"
	if strings.HasPrefix(parts[2], "A") {
		flipped = "B"
	}
	forged := parts[0] + "." + parts[1] + "." + flipped + parts[2][1:]
	for _, c := range []struct {
		name, token, node string
		review, hub       string // why each refuses; "": it does not
	}{
		{"its own pod", good, "slicewire-0", "", ""},
		{"its own pod as another", good, "slicewire-1", "is the node", "is the node"},
		{"another audience", own.token("slicewire-system", "slicewire-0", "https://kubernetes.default.svc"), "slicewire-0", "for the audience", "for the audience"},
		{"over", own.again(good, hour), "slicewire-0", "does not take it", "was good until"},
		{"a pod that is gone", gone, "gone", "does not take it", ""}, // keys know nothing of pods
		{"another cluster's", foreign.token("slicewire-system", "slicewire-0", testAudience), "slicewire-0", "does not take it", "signature"},
		{"another namespace's", apps, "slicewire-0", "not of slicewire-system/slicewire", "not of slicewire-system/slicewire"},
		{"forged", forged, "slicewire-0", "does not take it", "signature"},
		{"a pod that was never there", own.again(good, func(m map[string]any) {
			m["kubernetes.io"].(map[string]any)["pod"] = map[string]any{"name": "slicewire-9", "uid": "0b9a7c1e-0000-4000-8000-000000000000"}
		}), "slicewire-9", "does not take it", ""},
		{"no token", "x.y.z", "slicewire-0", "no token", "no token"},
	} {
		for verify, want := range map[string]string{manifest.VerifyReview: c.review, manifest.VerifyHub: c.hub} {
			admit := []manifest.NodeJoinCluster{{Site: "a", Verify: verify, Audience: testAudience, Namespace: "slicewire-system", ServiceAccount: "slicewire", Gateway: true}}
			pod, _, err := judgePod(t.Context(), admit, join.PodRequest{Want: overlay.NodeID{Site: "a", Node: c.node}, Bearer: c.token}, sources, time.Now())
			refusal, refused := errors.AsType[join.Refusal](err)
			switch {
			case want == "" && (err != nil || pod.UID == "" || pod.Name != c.node):
				t.Errorf("%s by %s: %+v, %v", c.name, verify, pod, err)
			case want != "" && (!refused || !strings.Contains(refusal.Text, want)):
				t.Errorf("%s by %s: %+v, %v: want a refusal for %q", c.name, verify, pod, err, want)
			}
		}
	}
	// A service account that is gone takes its tokens along.
	own.must(apitest.Remove(t.Context(), own.client, "slicewire-system", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: slicewire}\n"))
	review := []manifest.NodeJoinCluster{{Site: "a", Verify: manifest.VerifyReview, Audience: testAudience, Namespace: "slicewire-system", ServiceAccount: "slicewire", Gateway: true}}
	ask := func(c *kubeCluster, token string) error {
		_, _, err := judgePod(t.Context(), review, join.PodRequest{Want: overlay.NodeID{Site: "a", Node: "slicewire-0"}, Bearer: token}, podSources{review: c.review}, time.Now())
		return err
	}
	deadline, done := context.WithTimeout(t.Context(), patience)
	defer done()
	for {
		refusal, refused := errors.AsType[join.Refusal](ask(cluster, good))
		if refused && strings.Contains(refusal.Text, "does not take it") {
			break
		}
		if deadline.Err() != nil {
			t.Fatal("the token of an account that is gone is taken")
		}
	}
	// Without the right, or without the server, that is the issuer's fault and no
	// refusal: the pod asks again.
	if err := ask(&kubeCluster{client: own.impersonate("nobody")}, apps); !errors.Is(err, errFault) || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("without the right: %v", err)
	}
	own.onlyReviews()
	own.server.StopAPI()
	if err := ask(cluster, apps); !errors.Is(err, errFault) {
		t.Errorf("without the server: %v", err)
	}
}

// onlyReviews fails unless the issuer's client used its right, and asked for
// nothing that it has no right to.
func (x *tokenCluster) onlyReviews() {
	x.t.Helper()
	text, err := os.ReadFile(x.server.Audit)
	x.must(err)
	made := 0
	for line := range strings.Lines(string(text)) {
		var r struct {
			Verb             string
			RequestURI       string
			ImpersonatedUser struct{ Username string }
			ObjectRef        struct{ Resource string }
			ResponseStatus   struct{ Code int }
		}
		if json.Unmarshal([]byte(line), &r) != nil || r.ImpersonatedUser.Username != "system:serviceaccount:slicewire-system:slicewire" {
			continue
		}
		if r.Verb != "create" || r.ObjectRef.Resource != "tokenreviews" || r.ResponseStatus.Code != 201 {
			x.t.Errorf("%s %s: %d", r.Verb, r.RequestURI, r.ResponseStatus.Code)
		}
		made++
	}
	if made < 5 {
		x.t.Errorf("%d reviews seen", made)
	}
}

// The issuer's cluster says which pod has a name now, by the right to list pods.
func TestAClusterKnowsWhichPodsAreThere(t *testing.T) {
	x := newTokenCluster(t)
	rights, err := os.ReadFile("../../deploy/rbac/cluster.yaml")
	x.must(err)
	for _, part := range strings.Split(string(rights), "---\n") {
		x.must(apitest.Put(t.Context(), x.client, "slicewire-system", part))
	}
	k := &kubeCluster{client: x.impersonate("system:serviceaccount:slicewire-system:slicewire")}
	uid := func(name string) string {
		s, err := k.podUID(t.Context(), "apps", name)
		x.must(err)
		return s
	}
	first := uid("slicewire-0")
	if first == "" || uid("slicewire-1") != "" {
		t.Fatalf("the pod is %q", first)
	}
	x.must(apitest.Kill(t.Context(), x.client, "apps", "slicewire-0"))
	if s := uid("slicewire-0"); s != "" {
		t.Errorf("a pod that was killed is %q", s)
	}
	x.must(apitest.PutPod(t.Context(), x.client, "apps", "slicewire-0", "slicewire", "10.244.0.7"))
	if s := uid("slicewire-0"); s == "" || s == first {
		t.Errorf("its successor is %q", s)
	}
	if _, err := (&kubeCluster{client: x.impersonate("nobody")}).podUID(t.Context(), "apps", "slicewire-0"); err == nil {
		t.Error("nobody may ask, and got an answer")
	}
	x.server.StopAPI()
	if s, err := k.podUID(t.Context(), "apps", "slicewire-0"); err == nil {
		t.Errorf("without the server the pod is %q", s)
	}
}

func TestKeysOnAHubThatAreNoneLetNobodyIn(t *testing.T) {
	file := t.TempDir() + "/keys"
	sign := podSigner(t, file)
	now := time.Now()
	token := sign("slicewire-system", "slicewire", "slicewire-0", now)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	admit := []manifest.NodeJoinCluster{{Site: "a", Verify: manifest.VerifyHub, Audience: testAudience, Namespace: "slicewire-system", ServiceAccount: "slicewire", Gateway: true}}
	for _, c := range []struct {
		name, issuer, keys string
		fault              bool // of who says so, not of the token
		taken              bool
	}{
		{"right", "https://cluster", string(text), false, true},
		{"another issuer", "https://elsewhere", string(text), false, false},
		{"no issuer", "", string(text), true, false},
		{"an issuer with a newline", "https://cluster\nx", string(text), true, false},
		{"an issuer with markup", "<script>", string(text), true, false},
		{"a long issuer", strings.Repeat("x", 1<<20), string(text), true, false},
		{"no keys", "https://cluster", "", true, false},
		{"no JSON", "https://cluster", "-----BEGIN", true, false},
		{"a mebibyte", "https://cluster", string(text) + strings.Repeat(" ", 1<<20), true, false},
		{"a symmetric key", "https://cluster", `{"keys":[{"kty":"oct","kid":"k","k":"AAAA","alg":"HS256"}]}`, true, false},
		{"the same id twice", "https://cluster", strings.Replace(string(text), `{"keys":[`, `{"keys":[{"kty":"EC","kid":"k","crv":"P-256","x":"AA","y":"AA"},`, 1), true, false},
	} {
		sources := podSources{keys: func(string) (string, string, error) { return c.issuer, c.keys, nil }}
		pod, _, err := judgePod(t.Context(), admit, join.PodRequest{Want: overlay.NodeID{Site: "a", Node: "slicewire-0"}, Bearer: token}, sources, now)
		if taken := err == nil && pod.Name == "slicewire-0"; taken != c.taken || errors.Is(err, errFault) != c.fault {
			t.Errorf("%s: %+v, %v", c.name, pod, err)
		}
		if err != nil && (len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\n<")) && c.name != "an issuer with markup" {
			t.Errorf("%s: said in %d bytes: %.200q", c.name, len(err.Error()), err)
		}
	}
}
