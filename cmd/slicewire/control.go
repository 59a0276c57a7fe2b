package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/api"
)

// controlled is what the control socket needs of the daemon.
type controlled interface {
	Status(ctx context.Context) api.Status
	Ping(ctx context.Context, req api.PingRequest, reply func(api.PingReply) error) error
	Reload(ctx context.Context) error
}

// maxRequestBody bounds what a client may send; every request is a small JSON object.
const maxRequestBody = 64 << 10

// A control serves the command line on a unix socket. The socket's mode decides
// who may connect and ask; verbs that change something are further restricted
// to root and to the daemon's own user, by the credentials that the kernel
// reports for the connection.
type control struct {
	listener *net.UnixListener
	daemon   controlled
	cordoned cordoned
	host     host
	trust    trust
	policed  policed
	captured captured
	names    names
	hubbed   hubbed
	log      *slog.Logger

	certificates func() api.CertificateList

	mu     sync.Mutex
	ending bool           // no connection is held any more
	held   sync.WaitGroup // connections that left the HTTP server
}

// maxSocketPath is how long the path of a unix socket may be: sun_path less its
// final zero. tempSocket is what listenControl appends to the folder for a moment.
const (
	maxSocketPath = 107
	tempSocket    = "/.sw-0123456789/s"
)

// listenControl opens the socket at path with mode 0660. A socket left behind by
// a process that is gone is replaced; a live one is an error. The umask is not
// touched: the socket is made inside a new 0700 folder and moved into place
// once its mode is right.
func listenControl(path string) (*net.UnixListener, error) {
	if n := max(len(path), len(filepath.Dir(path))+len(tempSocket)); n > maxSocketPath {
		return nil, fmt.Errorf("control socket: the path %s is %d bytes too long for a unix socket: choose a shorter one", path, n-maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(path), ".sw-")
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer os.RemoveAll(tmp)
	inner := filepath.Join(tmp, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: inner, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(inner, 0o660), os.Rename(inner, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("control socket: %w", err), l.Close())
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("control socket: %s exists and is no socket: choose another path or remove it", path)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return fmt.Errorf("control socket: another daemon answers on %s", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

// run serves until ctx ends and removes the socket.
func (c *control) run(ctx context.Context, path string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", c.status)
	mux.HandleFunc("POST /v1/ping", c.ping)
	mux.HandleFunc("POST /v1/reload", c.reload)
	mux.HandleFunc("POST /v1/dns", c.dnsQuery)
	mux.HandleFunc("POST /v1/cordon", c.cordon)
	mux.HandleFunc("GET /v1/hub/metrics", c.hubMetrics)
	mux.HandleFunc("POST /v1/hub/confirm", c.confirmHub)
	mux.HandleFunc("POST /v1/workload", c.workload)
	mux.HandleFunc("POST /v1/detach", c.detach)
	mux.HandleFunc("POST /v1/capture", c.capture)
	c.handleTrust(mux)
	c.handlePolicy(mux)
	srv := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       withPeer,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelDebug),
	}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(c.listener) }()
	var fault error
	select {
	case <-ctx.Done():
		if err := srv.Close(); err != nil {
			c.log.Debug("control socket close", "err", err)
		}
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			fault = err
		}
	case fault = <-failed:
		cancel()
	}
	c.release()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fault = errors.Join(fault, err)
	}
	return fault
}

type peerKey struct{}

// withPeer records who is at the other end; a connection whose credentials
// cannot be read has none and may change nothing.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil || cred == nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, *cred)
}

// mayChange reports whether the client is root or the daemon's own user.
func mayChange(ctx context.Context) bool {
	cred, ok := ctx.Value(peerKey{}).(unix.Ucred)
	return ok && (cred.Uid == 0 || int(cred.Uid) == os.Getuid())
}

func (c *control) status(w http.ResponseWriter, r *http.Request) {
	c.answer(w, c.daemon.Status(r.Context()))
}

func (c *control) ping(w http.ResponseWriter, r *http.Request) {
	var req api.PingRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("ping request: %w", err))
		return
	}
	sent := false
	enc := json.NewEncoder(w)
	err := c.daemon.Ping(r.Context(), req, func(p api.PingReply) error {
		sent = true
		if err := enc.Encode(p); err != nil {
			return err
		}
		return http.NewResponseController(w).Flush()
	})
	if err != nil && !sent {
		c.refuse(w, http.StatusNotFound, err)
	}
}

func (c *control) reload(w http.ResponseWriter, r *http.Request) {
	if !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("reload is for root and for the user that the daemon runs as"))
		return
	}
	if err := c.daemon.Reload(r.Context()); err != nil {
		c.refuse(w, http.StatusUnprocessableEntity, err)
		return
	}
	c.answer(w, struct{}{})
}

func (c *control) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		c.log.Debug("control answer not written", "err", err)
	}
}

func (c *control) refuse(w http.ResponseWriter, code int, cause error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	c.answer(w, api.Error{Error: cause.Error()})
}
