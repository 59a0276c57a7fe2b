package podtoken

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"slicewire/overlay"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var terms = Terms{Issuer: "https://kubernetes.default.svc.cluster.local", Audience: "slicewire", Namespace: "slicewire-system", ServiceAccount: "slicewire"}

// A signer signs as a cluster does.
type signer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
}

func newSigner(t testing.TB) *signer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{r, e}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (s *signer) jwks() []byte {
	point, _ := s.ec.PublicKey.Bytes()
	return fmt.Appendf(nil, `{"keys":[
		{"use":"sig","kty":"RSA","kid":"r","alg":"RS256","n":%q,"e":"AQAB"},
		{"use":"sig","kty":"EC","kid":"e","alg":"ES256","crv":"P-256","x":%q,"y":%q},
		{"use":"sig","kty":"OKP","kid":"o","alg":"EdDSA","crv":"Ed25519","x":"AA"}]}`,
		b64(s.rsa.N.Bytes()), b64(point[1:33]), b64(point[33:]))
}

func (s *signer) sign(kid, header string, payload []byte) string {
	text := b64([]byte(header)) + "." + b64(payload)
	sum := sha256.Sum256([]byte(text))
	if kid == "r" {
		sig, _ := rsa.SignPKCS1v15(nil, s.rsa, crypto.SHA256, sum[:])
		return text + "." + b64(sig)
	}
	x, y, _ := ecdsa.Sign(rand.Reader, s.ec, sum[:])
	sig := make([]byte, 64)
	x.FillBytes(sig[:32])
	y.FillBytes(sig[32:])
	return text + "." + b64(sig)
}

// good is what Kubernetes says of a pod.
func good() map[string]any {
	return map[string]any{
		"aud": []string{"slicewire"}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(), "nbf": now.Unix(), "iss": terms.Issuer, "jti": "x",
		"sub": "system:serviceaccount:slicewire-system:slicewire",
		"kubernetes.io": map[string]any{
			"namespace": "slicewire-system", "node": map[string]any{"name": "n", "uid": "u"},
			"pod":            map[string]any{"name": "slicewire-0", "uid": "0b9a7c1e-0000-4000-8000-000000000000"},
			"serviceaccount": map[string]any{"name": "slicewire", "uid": "v"},
		},
	}
}

func payload(change func(c, k map[string]any)) []byte {
	c := good()
	if change != nil {
		change(c, c["kubernetes.io"].(map[string]any))
	}
	b, _ := json.Marshal(c)
	return b
}

const rs, es = `{"alg":"RS256","kid":"r"}`, `{"alg":"ES256","kid":"e"}`

func TestTokensOfTheConfiguredPodsAreAccepted(t *testing.T) {
	s := newSigner(t)
	c, err := NewCluster(terms, s.jwks())
	if err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{s.sign("r", rs, payload(nil)), s.sign("e", es, payload(nil)),
		s.sign("e", es, payload(func(c, _ map[string]any) { c["aud"] = "slicewire" })),
		s.sign("e", es, payload(func(c, _ map[string]any) { delete(c, "nbf") }))} {
		pod, err := c.Verify(token, now)
		if err != nil || pod.Name != "slicewire-0" || pod.Namespace != "slicewire-system" || pod.Node != "n" || !pod.Expires.Equal(now.Add(time.Hour)) {
			t.Errorf("pod %+v, %v", pod, err)
		}
	}
}

func TestOtherTokensAreRefused(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	c, err := NewCluster(terms, s.jwks())
	if err != nil {
		t.Fatal(err)
	}
	claim := func(change func(c, k map[string]any)) string { return s.sign("e", es, payload(change)) }
	text := b64([]byte(`{"alg":"HS256","kid":"r"}`)) + "." + b64(payload(nil))
	mac := hmac.New(sha256.New, s.jwks())
	mac.Write([]byte(text))
	token := s.sign("e", es, payload(nil))
	parts := strings.Split(token, ".")
	for _, x := range []struct{ name, token, want string }{
		{"nobody's signature", other.sign("e", es, payload(nil)), "signature"},
		{"no algorithm", b64([]byte(`{"alg":"none","kid":"e"}`)) + "." + parts[1] + "." + b64([]byte{0}), `"none"`},
		{"a MAC with the public key", text + "." + b64(mac.Sum(nil)), `"HS256"`},
		{"an algorithm that is not the key's", s.sign("r", `{"alg":"ES256","kid":"r"}`, payload(nil)), "ES256"},
		{"a key that is not known", s.sign("e", `{"alg":"ES256","kid":"z"}`, payload(nil)), "none has the id"},
		{"no key named", s.sign("e", `{"alg":"ES256"}`, payload(nil)), "none has the id"},
		{"a critical extension", s.sign("e", `{"alg":"ES256","kid":"e","crit":["x"]}`, payload(nil)), "no token"},
		{"a changed payload", parts[0] + "." + b64(payload(func(c, _ map[string]any) { c["jti"] = "y" })) + "." + parts[2], "signature"},
		{"a signature of the other form", parts[0] + "." + parts[1] + "." + parts[2] + "AAAA", "signature"},
		{"a zero signature", parts[0] + "." + parts[1] + "." + b64(make([]byte, 64)), "signature"},
		{"a trailing line", token + "\n", "no token"},
		{"padding", token + "==", "no token"},
		{"four parts", token + ".AA", "no token"},
		{"nothing", "", "no token"},
		{"much", strings.Repeat("a", maxToken) + token, "no token"},
		{"another audience", claim(func(c, _ map[string]any) { c["aud"] = []string{"api", "slicewire2"} }), "audience"},
		{"no audience", claim(func(c, _ map[string]any) { delete(c, "aud") }), "audience"},
		{"another issuer", claim(func(c, _ map[string]any) { c["iss"] = "https://elsewhere" }), "issuer"},
		{"no end", claim(func(c, _ map[string]any) { delete(c, "exp") }), "until when"},
		{"no beginning", claim(func(c, _ map[string]any) { delete(c, "iat") }), "until when"},
		{"an end that overflows", claim(func(c, _ map[string]any) { c["exp"] = int64(1) << 62 }), "until when"},
		{"an end with a fraction", claim(func(c, _ map[string]any) { c["exp"] = 1.5 }), "no token"},
		{"over", claim(func(c, _ map[string]any) { c["iat"], c["exp"] = now.Add(-2*time.Hour).Unix(), now.Unix() }), "was good until"},
		{"not yet", claim(func(c, _ map[string]any) { c["nbf"] = now.Add(2 * time.Minute).Unix() }), "not good yet"},
		{"issued later", claim(func(c, _ map[string]any) { c["iat"] = now.Add(2 * time.Minute).Unix() }), "not good yet"},
		{"good for a year", claim(func(c, _ map[string]any) { c["exp"] = now.AddDate(1, 0, 0).Unix() }), "more than"},
		{"no pod", claim(func(_, k map[string]any) { delete(k, "pod") }), "not bound"},
		{"no Kubernetes", claim(func(c, _ map[string]any) { delete(c, "kubernetes.io") }), "not bound"},
		{"a pod without UID", claim(func(_, k map[string]any) { k["pod"] = map[string]any{"name": "p"} }), "not bound"},
		{"a pod's name with a line", claim(func(_, k map[string]any) { k["pod"] = map[string]any{"name": "p\n", "uid": "u"} }), "does not allow"},
		{"another subject", claim(func(c, _ map[string]any) { c["sub"] = "system:serviceaccount:kube-system:slicewire" }), "subject"},
		{"another account", claim(func(c, k map[string]any) {
			c["sub"] = "system:serviceaccount:slicewire-system:default"
			k["serviceaccount"] = map[string]any{"name": "default", "uid": "v"}
		}), "not of slicewire-system/slicewire"},
		{"another namespace", claim(func(c, k map[string]any) {
			c["sub"], k["namespace"] = "system:serviceaccount:apps:slicewire", "apps"
		}), "not of slicewire-system/slicewire"},
	} {
		if pod, err := c.Verify(x.token, now); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: pod %+v, %v: want %q", x.name, pod, err, x.want)
		}
	}
}

func TestAnyAccountOfANamespace(t *testing.T) {
	s := newSigner(t)
	each := terms
	each.ServiceAccount = Any
	c, err := NewCluster(each, s.jwks())
	if err != nil {
		t.Fatal(err)
	}
	token := s.sign("e", es, payload(func(c, k map[string]any) {
		c["sub"] = "system:serviceaccount:slicewire-system:default"
		k["serviceaccount"] = map[string]any{"name": "default", "uid": "v"}
	}))
	if pod, err := c.Verify(token, now); err != nil || pod.ServiceAccount != "default" {
		t.Errorf("%+v, %v", pod, err)
	}
}

func TestKeySetsThatAreNoGoodAreRefused(t *testing.T) {
	weak := b64(new(big.Int).Lsh(big.NewInt(1), 1023).Bytes())
	for name, text := range map[string]string{
		"no JSON":                     "-----BEGIN",
		"no keys":                     `{"keys":[]}`,
		"only strange":                `{"keys":[{"kty":"OKP","kid":"a","alg":"EdDSA"}]}`,
		"a weak key":                  fmt.Sprintf(`{"keys":[{"kty":"RSA","kid":"a","alg":"RS256","n":%q,"e":"AQAB"}]}`, weak),
		"a point that is on no curve": `{"keys":[{"kty":"EC","kid":"a","crv":"P-256","x":"` + b64(make([]byte, 32)) + `","y":"` + b64(make([]byte, 32)) + `"}]}`,
	} {
		if _, err := NewCluster(terms, []byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestNodeNamesAreLabelsAndApart(t *testing.T) {
	long := strings.Repeat("a", 250)
	seen := make(map[string]string)
	for _, x := range [][2]string{{"a", "b-c"}, {"a-b", "c"}, {"a", "b"}, {"b", "b"}, {"a", long}, {"b", long}, {"a", "web.0"}, {"a", strings.Repeat("a", 49) + "-b"}} {
		name := NodeName(x[0], x[1])
		if !overlay.ValidLabel(name) {
			t.Errorf("%v is called %q, which is no label", x, name)
		}
		if before, twice := seen[name]; twice {
			t.Errorf("%v and %s are both called %q", x, before, name)
		}
		seen[name] = fmt.Sprint(x)
	}
}

func TestMachinesAreCalledByLabels(t *testing.T) {
	for name, plain := range map[string]bool{"node-1": true, "ip-10-0-0-1.ec2.internal": false, strings.Repeat("a", 64): false} {
		if got := HostName(name); !overlay.ValidLabel(got) || (got == name) != plain {
			t.Errorf("%s is called %s", name, got)
		}
	}
	if HostName("a.b") == HostName("a-b") || HostName("a.b") == NodeName("a", "b") {
		t.Error("machines of two names are called the same")
	}
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f)
	c, err := NewCluster(terms, s.jwks())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.sign("e", es, payload(nil)))
	f.Add("e30.e30.AA")
	f.Fuzz(func(t *testing.T, token string) {
		pod, err := c.Verify(token, now)
		if err == nil && pod.Name != "slicewire-0" {
			t.Errorf("%q is accepted for %+v", token, pod)
		}
	})
}

func TestNamesOfPodsAreKnownByTheirForm(t *testing.T) {
	for name, want := range map[string]bool{
		NodeName("apps", "web-0"): true, NodeName("apps", strings.Repeat("x", 253)): true, "slicewire-0": false, "gw": false,
		"web-0123456789ab": true, "-0123456789ab": false, "web-0123456789ag": false, "web0123456789ab": false, "": false,
	} {
		if IsNodeName(name) != want {
			t.Errorf("%q is taken for a pod's: %v", name, !want)
		}
	}
}
