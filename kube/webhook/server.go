package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	admission "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"slicewire/deploy/inject"
	"slicewire/kube"
)

// Paths that are served.
const (
	PathMutate = "/mutate"
	PathReady  = "/ready" // once the API server has been told of the certificate
)

// How often a server sees to its certificate, when all was well and when not.
const (
	lookEvery  = time.Minute
	retryEvery = time.Second
)

// maxReview bounds a request: API servers bound objects at 3 MiB, and show both
// the old one and the new one.
const maxReview = 8 << 20

// fieldManager owns the certificates in the configuration.
const fieldManager = "slicewire-webhook"

var configurations = schema.GroupVersionResource{Group: "admissionregistration.k8s.io", Version: "v1", Resource: "mutatingwebhookconfigurations"}

// Config says what a Server serves and where.
type Config struct {
	Client   *kube.Client
	Listener net.Listener // closed by Run
	Host     string       // name or address under which the API server calls: SERVICE.NAMESPACE.svc
	Name     string       // of the MutatingWebhookConfiguration; all of its webhooks are this one
	Sidecar  inject.Sidecar
	Log      *slog.Logger
	Now      func() time.Time // nil: the clock's
}

// A Server answers an API server. Run is for one goroutine.
type Server struct {
	cfg   Config
	cert  atomic.Pointer[tls.Certificate] // in use
	next  *tls.Certificate                // to be used once the API server knows it; the loop's
	ready atomic.Bool
	every time.Duration // how often it looks when all is well
}

// New checks the configuration and makes a first certificate.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Client == nil || cfg.Listener == nil || cfg.Log == nil || cfg.Host == "" || cfg.Name == "" {
		return nil, errors.New("webhook: want a client, a listener, a log, a host and the configuration's name")
	}
	if _, err := inject.Inject(nil, cfg.Sidecar); err != nil {
		return nil, fmt.Errorf("webhook: the sidecar: %w", err)
	}
	s := &Server{cfg: cfg, every: lookEvery}
	first, err := newCertificate(cfg.Host, cfg.Now())
	if err != nil {
		return nil, err
	}
	s.cert.Store(first)
	return s, nil
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+PathMutate, s.mutate)
	mux.HandleFunc("GET "+PathReady, s.readiness)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert.Load(), nil }},
		ErrorLog:  slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	failed, looked := make(chan error, 1), make(chan struct{})
	go func() { failed <- srv.ServeTLS(s.cfg.Listener, "", "") }()
	go func() { defer close(looked); s.look(ctx) }()
	var fault error
	select {
	case <-ctx.Done():
	case fault = <-failed:
	}
	cancel()
	grace, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if srv.Shutdown(grace) != nil { // who is still being answered has had time
		_ = srv.Close()
	}
	<-looked
	if fault == nil {
		if fault = <-failed; errors.Is(fault, http.ErrServerClosed) {
			fault = nil
		}
	}
	return fault
}

// look sees to the certificate until ctx ends.
func (s *Server) look(ctx context.Context) {
	failing := false
	for {
		err := s.certify(ctx)
		wait := s.every
		if err != nil {
			wait = retryEvery
			if !failing && ctx.Err() == nil {
				s.cfg.Log.Warn("certificate not in the webhook's configuration", "name", s.cfg.Name, "err", err)
			}
		} else {
			s.ready.Store(true)
		}
		failing = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// certify renews the certificate when it is time, and has the configuration name
// it. A new one is used only once it is there.
func (s *Server) certify(ctx context.Context) error {
	now := s.cfg.Now()
	if s.next == nil && now.Sub(s.cert.Load().Leaf.NotBefore) >= certRenew {
		next, err := newCertificate(s.cfg.Host, now)
		if err != nil {
			return err
		}
		s.next = next
	}
	own := s.cert.Load()
	if s.next != nil {
		own = s.next
	}
	if err := s.publish(ctx, own, now); err != nil {
		return err
	}
	if s.next != nil {
		s.cert.Store(s.next)
		s.next = nil
		s.cfg.Log.Info("webhook certificate renewed", "until", own.Leaf.NotAfter)
	}
	return nil
}

// publish writes the bundle by server-side apply, of the very configuration that
// was read: a second server that writes meanwhile has this one try again.
func (s *Server) publish(ctx context.Context, own *tls.Certificate, now time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	objects := s.cfg.Client.Dynamic.Resource(configurations)
	live, err := objects.Get(ctx, s.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	hooks, _, err := unstructured.NestedSlice(live.Object, "webhooks")
	if err != nil {
		return err
	}
	var want []any
	differs := false
	for _, h := range hooks {
		hook, _ := h.(map[string]any)
		old, _, _ := unstructured.NestedString(hook, "clientConfig", "caBundle")
		was, _ := base64.StdEncoding.DecodeString(old) // what is none is replaced
		bundle := Bundle(was, own.Leaf, now)
		differs = differs || !bytes.Equal(was, bundle)
		want = append(want, map[string]any{"name": hook["name"], "clientConfig": map[string]any{"caBundle": base64.StdEncoding.EncodeToString(bundle)}})
	}
	if len(want) == 0 {
		return fmt.Errorf("MutatingWebhookConfiguration %s has no webhooks", s.cfg.Name)
	}
	if !differs {
		return nil
	}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "webhooks": want,
		"metadata": map[string]any{"name": s.cfg.Name, "resourceVersion": live.GetResourceVersion()},
	}}
	_, err = objects.Apply(ctx, s.cfg.Name, o, metav1.ApplyOptions{FieldManager: fieldManager, Force: true})
	return err
}

func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) {
	if !s.ready.Load() {
		http.Error(w, "the API server does not know the certificate yet", http.StatusServiceUnavailable)
	}
}

func (s *Server) mutate(w http.ResponseWriter, r *http.Request) {
	var review admission.AdmissionReview
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxReview)).Decode(&review); err != nil || review.Request == nil {
		http.Error(w, "want an AdmissionReview with a request", http.StatusBadRequest)
		return
	}
	q := review.Request
	review.Response, review.Request = Mutate(q, s.cfg.Sidecar), nil
	if review.Response.Patch != nil {
		s.cfg.Log.Info("sidecar injected", "namespace", q.Namespace, "pod", q.Name, "dry_run", q.DryRun != nil && *q.DryRun)
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(&review); err != nil {
		s.cfg.Log.Debug("answer not written", "err", err)
	}
}
