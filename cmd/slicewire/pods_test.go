package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/overlay/pki/join"
	"slicewire/overlay/pki/podtoken"
)

// podSigner writes a cluster's key set and returns what signs a pod's token.
func podSigner(t *testing.T, file string) func(namespace, account, pod string, now time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	writeFile(t, file, fmt.Sprintf(`{"keys":[{"use":"sig","kty":"EC","kid":"k","alg":"ES256","crv":"P-256","x":%q,"y":%q}]}`, b64(point[1:33]), b64(point[33:])))
	return func(namespace, account, pod string, now time.Time) string {
		claims, err := json.Marshal(map[string]any{
			"iss": "https://cluster", "aud": []string{"slicewire"}, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			"sub":           "system:serviceaccount:" + namespace + ":" + account,
			"kubernetes.io": map[string]any{"namespace": namespace, "pod": map[string]string{"name": pod, "uid": "uid-" + pod}, "node": map[string]string{"name": "machine-7", "uid": "y"}, "serviceaccount": map[string]string{"name": account, "uid": "x"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		text := b64([]byte(`{"alg":"ES256","kid":"k"}`)) + "." + b64(claims)
		sum := sha256.Sum256([]byte(text))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		signature := make([]byte, 64)
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
		return text + "." + b64(signature)
	}
}

func TestAPodIsTheNodeOfItsOwnNameOnly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jwks.json")
	sign, now := podSigner(t, file), time.Now()
	clusters := []manifest.NodeJoinCluster{
		{Site: "a", Keys: file, Issuer: "https://cluster", Audience: "slicewire", Namespace: "slicewire-system", ServiceAccount: "slicewire", Gateway: true},
		{Site: "a", Keys: file, Issuer: "https://cluster", Audience: "slicewire", Namespace: "apps", ServiceAccount: "*"},
	}
	gateway, app := sign("slicewire-system", "slicewire", "slicewire-0", now), sign("apps", "default", "slicewire-0", now)
	for _, c := range []struct {
		name, site, node, token, refused string
		gateway                          bool
	}{
		{"a gateway by its pod's name", "a", "slicewire-0", gateway, "", true},
		{"an app by a name of its own", "a", podtoken.NodeName("apps", "slicewire-0"), app, "", false},
		{"an app by the gateway's name", "a", "slicewire-0", app, join.RefusedNode, false},
		{"a gateway by its machine's name", "a", "machine-7", gateway, "", true},
		{"a gateway by another machine's", "a", "machine-8", gateway, join.RefusedNode, false},
		{"an app by its machine's name", "a", "machine-7", app, join.RefusedNode, false},
		{"a gateway by an app's name", "a", podtoken.NodeName("slicewire-system", "slicewire-0"), gateway, join.RefusedNode, false},
		{"another site", "b", "slicewire-0", gateway, join.RefusedNode, false},
		{"an account that is not let in", "a", "slicewire-0", sign("kube-system", "default", "slicewire-0", now), join.RefusedToken, false},
		{"a token that is over", "a", "slicewire-0", sign("slicewire-system", "slicewire", "slicewire-0", now.Add(-2*time.Hour)), join.RefusedToken, false},
	} {
		_, cluster, err := judgePod(t.Context(), clusters, join.PodRequest{Want: overlay.NodeID{Site: c.site, Node: c.node}, Bearer: c.token}, podSources{}, now)
		refusal, _ := errors.AsType[join.Refusal](err)
		if refusal.Reason != c.refused || (err == nil) != (c.refused == "") || err == nil && cluster.Gateway != c.gateway {
			t.Errorf("%s: gateway %v, %v", c.name, cluster.Gateway, err)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, _, err := judgePod(t.Context(), clusters, join.PodRequest{Want: overlay.NodeID{Site: "a", Node: "slicewire-0"}, Bearer: gateway}, podSources{}, now)
	if _, refused := errors.AsType[join.Refusal](err); err == nil || refused {
		t.Errorf("without the keys: %v: want a fault of the issuer", err)
	}
}

func TestAPodHasOneKey(t *testing.T) {
	var p podKeys
	for _, x := range []struct {
		key  byte
		want bool
	}{{1, true}, {1, true}, {2, false}} {
		if p.take("u", [32]byte{x.key}) != x.want {
			t.Errorf("key %d: taken is %v: a pod has its first key and no other", x.key, !x.want)
		}
	}
	for i := range maxPods {
		p.take(fmt.Sprint(i), [32]byte{3})
	}
	if len(p.keys) != maxPods || len(p.order) != maxPods {
		t.Errorf("%d keys are kept, %d in order: at most %d", len(p.keys), len(p.order), maxPods)
	}
}

func TestGenerateReadsValues(t *testing.T) {
	dir := t.TempDir()
	ca, slices, values := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "s.yaml"), filepath.Join(dir, "values.yaml")
	writeFile(t, ca, "CERT\n")
	writeFile(t, slices, "kind: SliceConfig\n")
	writeFile(t, values, "mesh: {name: lab}\nreplicas: 1\n")
	out, said, code := program(t, "generate", "manifests", "-f", values, "--set", "site=a", "--set", "replicas=2", "--set", "mesh.issuers=192.0.2.1:1,192.0.2.2:1",
		"--set-file", "mesh.authority="+ca, "--set-file", "manifests.my.slices.yaml="+slices, "--set", "crds.install=false")
	if code != exitOK {
		t.Fatalf("%d %s", code, said)
	}
	for _, want := range []string{"replicas: 2\n", "192.0.2.1:1\n", "192.0.2.2:1\n", "  ca.crt: |\n    CERT\n", "my.slices.yaml: \"kind: SliceConfig\\n\"", "mesh: \"lab\"", "name: slicewire-1\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range [][]string{{"--set", "site"}, {"--set", "sight=x"}, {"--set", "site.x=y", "--set", "site=x", "--set", "site.x=y"}, {"--set-file", "mesh.authority=/no/such"}, {"--flavour", "x"}} {
		if _, said, code := program(t, append([]string{"generate", "manifests", "--set", "site=a"}, bad...)...); code == exitOK || said == "" {
			t.Errorf("%v is taken", bad)
		}
	}
}
