package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/api"
)

// asked is a daemon that notes what it was asked for.
type asked struct{ reloads, cordons int }

func (a *asked) Cordon(context.Context, CordonRequest) (CordonReply, error) {
	a.cordons++
	return CordonReply{Alone: []string{"red"}}, nil
}

func (a *asked) Status(context.Context) api.Status {
	return api.Status{APIVersion: api.Version, Node: "n1"}
}
func (a *asked) Reload(context.Context) error { a.reloads++; return nil }
func (a *asked) Ping(_ context.Context, req api.PingRequest, reply func(api.PingReply) error) error {
	if req.Target == "nobody" {
		return errTarget
	}
	return errors.Join(reply(api.PingReply{Seq: 0, RTTMs: 1}), reply(api.PingReply{Seq: 1, Error: "no answer"}))
}

func serveControl(t *testing.T) (path string, d *asked) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "slicewire.sock")
	l, err := listenControl(path)
	if err != nil {
		t.Fatal(err)
	}
	d = new(asked)
	c := &control{listener: l, daemon: d, log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx, path) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left behind", path)
		}
	})
	return path, d
}

func TestTheSocketAnswersItsOwner(t *testing.T) {
	path, d := serveControl(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket mode %v, %v; want 0660", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("folder mode %v, %v; want nothing for others", info.Mode(), err)
	}
	c := newClient(path)
	if s, err := c.status(t.Context()); err != nil || s.Node != "n1" {
		t.Errorf("status: %+v, %v", s, err)
	}
	var replies []api.PingReply
	if err := c.ping(t.Context(), api.PingRequest{Target: "x"}, func(p api.PingReply) { replies = append(replies, p) }); err != nil || len(replies) != 2 {
		t.Errorf("ping: %v, %v", replies, err)
	}
	var coded *exitError
	if err := c.ping(t.Context(), api.PingRequest{Target: "nobody"}, nil); !errors.As(err, &coded) || coded.code != exitUnreachable {
		t.Errorf("ping of an unknown target: %v", err)
	}
	if err := c.reload(t.Context()); err != nil || d.reloads != 1 {
		t.Errorf("reload: %v, %d reloads", err, d.reloads)
	}
}

func TestOnlyRootAndTheOwnerMayChange(t *testing.T) {
	for _, tc := range []struct {
		name string
		ctx  context.Context
		want int
	}{
		{"a connection without credentials", t.Context(), http.StatusForbidden},
		{"another user", context.WithValue(t.Context(), peerKey{}, unix.Ucred{Uid: uint32(os.Getuid()) + 1}), http.StatusForbidden},
		{"the daemon's own user", context.WithValue(t.Context(), peerKey{}, unix.Ucred{Uid: uint32(os.Getuid())}), http.StatusOK},
		{"root", context.WithValue(t.Context(), peerKey{}, unix.Ucred{Uid: 0}), http.StatusOK},
	} {
		d := new(asked)
		c := &control{daemon: d, log: slog.New(slog.DiscardHandler)}
		w := httptest.NewRecorder()
		c.reload(w, httptest.NewRequestWithContext(tc.ctx, http.MethodPost, "/v1/reload", nil))
		if w.Code != tc.want || (d.reloads == 1) != (tc.want == http.StatusOK) {
			t.Errorf("%s: %d and %d reloads, want %d", tc.name, w.Code, d.reloads, tc.want)
		}
		c.cordoned = d
		w = httptest.NewRecorder()
		c.cordon(w, httptest.NewRequestWithContext(tc.ctx, http.MethodPost, "/v1/cordon", strings.NewReader(`{"cordon":true}`)))
		if w.Code != tc.want || (d.cordons == 1) != (tc.want == http.StatusOK) {
			t.Errorf("%s: %d and %d cordons, want %d", tc.name, w.Code, d.cordons, tc.want)
		}
		c.captured = new(noCapture)
		w = httptest.NewRecorder()
		c.capture(w, httptest.NewRequestWithContext(tc.ctx, http.MethodPost, "/v1/capture", strings.NewReader(`{}`)))
		if w.Code != tc.want {
			t.Errorf("%s: %d for a capture, want %d", tc.name, w.Code, tc.want)
		}
	}
}

func TestVerbsNeedTheirMethod(t *testing.T) {
	path, d := serveControl(t)
	c := newClient(path)
	for _, tc := range []struct{ method, verb string }{{http.MethodGet, "reload"}, {http.MethodGet, "ping"}, {http.MethodPost, "status"}, {http.MethodGet, "debug"}} {
		if body, err := c.do(t.Context(), tc.method, tc.verb, nil); err == nil {
			body.Close()
			t.Errorf("%s %s was answered", tc.method, tc.verb)
		}
	}
	if d.reloads != 0 {
		t.Error("a GET reloaded")
	}
}

func TestASocketLeftBehindIsReplacedAndALiveOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := listenControl(path)
	if err != nil {
		t.Fatalf("a dead socket is in the way: %v", err)
	}
	defer l.Close()
	if _, err := listenControl(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a live socket: %v", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100), "s.sock")
	if _, err := listenControl(long); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("a path that no socket can have: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenControl(file); err == nil || !strings.Contains(err.Error(), "no socket") {
		t.Errorf("a file: %v", err)
	}
}

func TestAMissingDaemonIsExplained(t *testing.T) {
	_, err := newClient(filepath.Join(t.TempDir(), "none.sock")).status(t.Context())
	var coded *exitError
	if !errors.As(err, &coded) || coded.code != exitNoDaemon || !strings.Contains(err.Error(), "slicewire daemon") {
		t.Errorf("%v", err)
	}
}

// noCapture captures nothing, well.
type noCapture struct{}

func (noCapture) Capture(_ context.Context, _ api.CaptureRequest, _ io.Writer, ready func(), flush func() error) (matched, lost uint64, err error) {
	ready()
	return 0, 0, flush()
}
