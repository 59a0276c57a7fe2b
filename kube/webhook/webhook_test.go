package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/deploy/inject"
	"slicewire/kube"
	"slicewire/kube/apitest"
)

var server *apitest.Server

func TestMain(m *testing.M) {
	os.Exit(apitest.Main(m, func(s *apitest.Server) { server = s }))
}

var sidecar = inject.Sidecar{
	Image: "docker.io/library/slicewire:1", Mesh: "lab", Site: "worker-1", Slice: "iperf-slice", Authority: "-----BEGIN X-----\nabc\n-----END X-----\n",
	Issuers: []string{"192.0.2.1:51820"}, Gateways: []string{"192.0.2.1:7946"}, Manifests: "kind: SliceConfig\n", Proxy: "127.0.0.1:1080",
}

func request(object string) *admission.AdmissionRequest {
	return &admission.AdmissionRequest{UID: "u", Operation: admission.Create, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"}, Object: runtime.RawExtension{Raw: []byte(object)}}
}

const wanted = `{"metadata":{"labels":{"slicewire.io/inject":"true"},"annotations":{"own":"1"}},"spec":{"containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","emptyDir":{}}]}}`

func TestOnlyWhatAsksForItIsChanged(t *testing.T) {
	other := func(from, to string) string { return strings.Replace(wanted, from, to, 1) }
	for _, c := range []struct {
		name    string
		request *admission.AdmissionRequest
		patched bool
		refused string
	}{
		{"a pod that asks", request(wanted), true, ""},
		{"a pod that does not", request(other(`"true"`, `"false"`)), false, ""},
		{"a pod without labels", request(`{"metadata":{},"spec":{}}`), false, ""},
		{"a change of one", func() *admission.AdmissionRequest { r := request(wanted); r.Operation = admission.Update; return r }(), false, ""},
		{"another kind", func() *admission.AdmissionRequest { r := request(wanted); r.Kind.Kind = "Secret"; return r }(), false, ""},
		{"its ephemeral containers", func() *admission.AdmissionRequest { r := request(wanted); r.SubResource = "eviction"; return r }(), false, ""},
		{"what it publishes", request(other(`"own":"1"`, `"slicewire.io/publish":"web=8080, dns=53/udp"`)), true, ""},
		{"what it cannot publish", request(other(`"own":"1"`, `"slicewire.io/publish":"web"`)), false, "SERVICE=PORT"},
		{"a pod in its node's network", request(other(`"spec":{`, `"spec":{"hostNetwork":true,`)), false, "node's network"},
		{"no pod", request(`[]`), false, "the pod"},
	} {
		r := Mutate(c.request, sidecar)
		if r.UID != "u" || r.Allowed != (c.refused == "") || (r.Patch != nil) != c.patched || r.Result != nil && !strings.Contains(r.Result.Message, c.refused) {
			t.Errorf("%s: %+v", c.name, r)
		}
		if r.Patch != nil && strings.Contains(c.name, "publishes") && (!strings.Contains(string(r.Patch), "service: web") || !strings.Contains(string(r.Patch), "protocol: UDP")) {
			t.Errorf("%s: %s", c.name, r.Patch)
		}
	}
}

func TestABundleHasTheValidOnes(t *testing.T) {
	begin := time.Now()
	var live []byte
	var all []*x509.Certificate
	for i := range maxBundle + 4 {
		c, err := newCertificate("a.b.svc", begin.Add(time.Duration(i)*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c.Leaf)
		live = append(live, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Leaf.Raw})...)
	}
	count := func(b []byte) int { return strings.Count(string(b), "BEGIN CERT") }
	own := all[0] // the oldest is kept because it is its own
	got := Bundle(append(live, "junk"...), own, begin)
	if count(got) != maxBundle || !strings.Contains(string(got), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Raw}))) {
		t.Errorf("%d certificates", count(got))
	}
	if again := Bundle(got, own, begin); string(again) != string(got) {
		t.Error("writing it again changes it")
	}
	if other := Bundle(got, all[len(all)-1], begin); string(other) != string(got) {
		t.Error("another server writes another one")
	}
	if late := Bundle(live, own, begin.Add(100*time.Hour)); count(late) != 1 {
		t.Errorf("%d certificates that are over", count(late)-1)
	}
}

const configuration = `apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: NAME}
webhooks:
- name: sidecar.slicewire.io
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  timeoutSeconds: 5
  clientConfig: {url: "https://ADDR/mutate"}
  namespaceSelector: {matchLabels: {slicewire.io/inject: enabled}}
  objectSelector: {matchLabels: {slicewire.io/inject: "true"}}
  rules:
  - {apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE], scope: Namespaced}
`

// A hook is a server before a real API server.
type hook struct {
	t      *testing.T
	ctx    context.Context
	client *kube.Client
	name   string
	skew   atomic.Int64
}

func newHook(t *testing.T) *hook {
	t.Helper()
	if server == nil {
		t.Skip("no API server")
	}
	c, err := kube.NewClient(server.Config, "test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return &hook{t: t, ctx: ctx, client: c, name: strings.ToLower(t.Name())}
}

// start runs a server until end is called.
func (h *hook) start() (s *Server, addr string, end func()) {
	h.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	s, err = New(Config{Client: h.client, Listener: l, Host: "127.0.0.1", Name: h.name, Sidecar: sidecar, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }})
	if err != nil {
		h.t.Fatal(err)
	}
	s.every = 50 * time.Millisecond
	ctx, cancel := context.WithCancel(h.ctx)
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	return s, l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Error(err)
		}
	}
}

func (h *hook) put(text string) {
	h.t.Helper()
	if err := apitest.Put(h.ctx, h.client, "", text); err != nil {
		h.t.Fatal(err)
	}
}

// until asks until there is no error.
func (h *hook) until(ask func() error) {
	h.t.Helper()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-h.ctx.Done():
			h.t.Fatal(err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var pods = schema.GroupVersionResource{Version: "v1", Resource: "pods"}

// pod makes one and reports whether it got the sidecar.
func (h *hook) pod(namespace, name, label string) (bool, error) {
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": name, "labels": map[string]any{LabelInject: label}},
		"spec": map[string]any{"serviceAccountName": "default", "containers": []any{map[string]any{"name": "app", "image": "app:1"}}},
	}}
	made, err := h.client.Dynamic.Resource(pods).Namespace(namespace).Create(h.ctx, o, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	list, _, err := unstructured.NestedSlice(made.Object, "spec", "initContainers")
	notes := made.GetAnnotations()
	if len(list) == 0 {
		return false, err
	}
	if len(list) != 2 || !strings.Contains(notes["sidecar.slicewire.io/node.yaml"], "site: worker-1") {
		return true, fmt.Errorf("init containers %v, annotations %v", list, notes)
	}
	return true, err
}

func (h *hook) wantPod(namespace, name, label string, want bool) {
	h.t.Helper()
	if got, err := h.pod(namespace, name, label); err != nil || got != want {
		h.t.Errorf("pod %s/%s: sidecar %v, %v; want %v", namespace, name, got, err, want)
	}
}

func TestPodsThatAskGetTheSidecar(t *testing.T) {
	h := newHook(t)
	h.put("{apiVersion: v1, kind: Namespace, metadata: {name: asking, labels: {slicewire.io/inject: enabled}}}\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: quiet}}\n")
	h.skew.Store(-int64(certRenew)) // the API server has no clock but the real one
	s, addr, end := h.start()
	if s.ready.Load() {
		t.Error("ready before there is a configuration")
	}
	h.put(strings.NewReplacer("NAME", h.name, "ADDR", addr).Replace(configuration))
	tries := 0
	h.until(func() error { // the API server takes a moment to hear of a webhook
		tries++
		if got, err := h.pod("asking", fmt.Sprint("asks-", tries), "true"); err != nil || !got {
			return errors.Join(fmt.Errorf("sidecar %v", got), err)
		}
		return nil
	})
	if !s.ready.Load() {
		t.Error("not ready")
	}
	h.wantPod("asking", "asks-not", "false", false)
	h.wantPod("quiet", "other-namespace", "true", false)

	writes := func() string {
		o, err := h.client.Dynamic.Resource(configurations).Get(h.ctx, h.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return o.GetResourceVersion()
	}
	was := writes()
	if err := s.publish(h.ctx, s.cert.Load(), time.Now()); err != nil || writes() != was {
		t.Errorf("what is there is written again, %v", err)
	}
	second, _, endSecond := h.start()
	h.until(func() error {
		if !second.ready.Load() {
			return errors.New("the second server is not ready")
		}
		return nil
	})
	h.wantPod("asking", "two-servers", "true", true) // the first one's certificate is still there

	// In time a server has a new certificate, and no pod misses it.
	old := s.cert.Load()
	h.skew.Store(0)
	h.until(func() error {
		if s.cert.Load() == old {
			return errors.New("the certificate is not renewed")
		}
		return nil
	})
	h.until(func() error { // the API server hears of it by its watch
		tries++
		if got, err := h.pod("asking", fmt.Sprint("renewed-", tries), "true"); err != nil || !got {
			return errors.Join(fmt.Errorf("sidecar %v", got), err)
		}
		return nil
	})
	endSecond()
	end()
	h.wantPod("asking", "webhook-down", "true", false) // it starts all the same
}

func TestWhatIsNoReviewIsRefused(t *testing.T) {
	h := newHook(t)
	_, addr, end := h.start()
	defer end()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, body := range []string{"", "[]", "{}", `{"request":`} {
		r, err := c.Post("https://"+addr+PathMutate, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("%q: %s", body, r.Status)
		}
	}
	r, err := c.Get("https://" + addr + PathReady)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("ready without a configuration: %s", r.Status)
	}
}

func FuzzMutate(f *testing.F) {
	f.Add([]byte(wanted))
	f.Add([]byte(`{"metadata":{"labels":{"slicewire.io/inject":"true"}},"spec":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := Mutate(request(string(b)), sidecar)
		if r.Patch != nil && !json.Valid(r.Patch) || !r.Allowed && r.Result == nil {
			t.Errorf("%+v", r)
		}
	})
}
