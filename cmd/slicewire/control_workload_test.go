package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/router"
)

// full is a host that has no room, and nothing that could leave.
type full struct{ asked int }

func (f *full) Admit(context.Context, api.WorkloadRequest, unix.Ucred) (*workload, api.WorkloadOffer, error) {
	f.asked++
	return nil, api.WorkloadOffer{}, errTooMany
}
func (f *full) Plug(context.Context, *workload, router.Link, string) error { return errTooMany }
func (f *full) Leave(_ context.Context, match func(*workload) bool) (int, error) {
	f.asked++
	if match(&workload{kind: api.WorkloadRun, netns: "/x"}) {
		return 1, nil // a run is nobody's to detach
	}
	return 0, nil
}

func TestWhoMayAttachAndWhoMayRun(t *testing.T) {
	own, other := unix.Ucred{Uid: uint32(os.Getuid())}, unix.Ucred{Uid: uint32(os.Getuid()) + 1}
	for _, tc := range []struct {
		name, verb, body string
		cred             *unix.Ucred
		want             int
		asked            int
	}{
		{"a run needs credentials", "workload", `{"kind":"run"}`, nil, http.StatusForbidden, 0},
		{"a run is for whoever may connect", "workload", `{"kind":"run"}`, &other, http.StatusTooManyRequests, 1},
		{"attach is not", "workload", `{"kind":"attach"}`, &other, http.StatusForbidden, 0},
		{"nor is what has no kind", "workload", `{}`, &other, http.StatusForbidden, 0},
		{"attach is for the owner", "workload", `{"kind":"attach"}`, &own, http.StatusTooManyRequests, 1},
		{"detach is not for others", "detach", `{"netns":"/x"}`, &other, http.StatusForbidden, 0},
		{"detach needs credentials", "detach", `{"netns":"/x"}`, nil, http.StatusForbidden, 0},
		{"detach ends no run", "detach", `{"netns":"/x"}`, &own, http.StatusNotFound, 1},
		{"nonsense is refused", "detach", `{`, &own, http.StatusBadRequest, 0},
		{"and so is much of it", "workload", `{"kind":"` + strings.Repeat("x", maxRequestBody), &own, http.StatusBadRequest, 0},
	} {
		ctx := t.Context()
		if tc.cred != nil {
			ctx = context.WithValue(ctx, peerKey{}, *tc.cred)
		}
		f := new(full)
		c := &control{host: f, log: slog.New(slog.DiscardHandler)}
		handler := map[string]http.HandlerFunc{"workload": c.workload, "detach": c.detach}[tc.verb]
		w := httptest.NewRecorder()
		handler(w, httptest.NewRequestWithContext(ctx, http.MethodPost, "/v1/"+tc.verb, strings.NewReader(tc.body)))
		if w.Code != tc.want || f.asked != tc.asked {
			t.Errorf("%s: %d and %d questions, want %d and %d", tc.name, w.Code, f.asked, tc.want, tc.asked)
		}
	}
	c := &control{host: new(full), log: slog.New(slog.DiscardHandler)}
	c.release()
	w := httptest.NewRecorder()
	c.workload(w, httptest.NewRequestWithContext(context.WithValue(t.Context(), peerKey{}, own), http.MethodPost, "/v1/workload", strings.NewReader(`{"kind":"run"}`)))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("while ending: %d", w.Code)
	}
}

// roomy admits everybody and notes who is there.
type roomy struct {
	mu     sync.Mutex
	inside map[*workload]bool
}

func (r *roomy) Admit(_ context.Context, req api.WorkloadRequest, cred unix.Ucred) (*workload, api.WorkloadOffer, error) {
	w, err := newWorkload(req, cred, time.Now())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inside[w] = err == nil
	return w, api.WorkloadOffer{Slice: "blue"}, err
}
func (r *roomy) Plug(context.Context, *workload, router.Link, string) error { return errEnding }
func (r *roomy) Leave(_ context.Context, match func(*workload) bool) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for w := range r.inside {
		if match(w) {
			delete(r.inside, w)
			n++
		}
	}
	return n, nil
}

func TestAnEndingDaemonWaitsForNoClient(t *testing.T) {
	defer goleak.VerifyNone(t)
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	h := &roomy{inside: make(map[*workload]bool)}
	c := &control{listener: l, host: h, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, path) }()
	conn, err := newClient(path).workload(t.Context(), api.WorkloadRequest{Kind: api.WorkloadRun})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if m, _, err := conn.receive(); err != nil || m.Offer == nil || m.Offer.Slice != "blue" {
		t.Fatalf("%+v, %v", m, err)
	}
	cancel() // while the device is awaited
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
	if len(h.inside) != 0 {
		t.Error("the address is not freed")
	}
	for err = nil; err == nil; {
		_, _, err = conn.receive() // at most a word of farewell
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("the client sees %v", err)
	}
}
