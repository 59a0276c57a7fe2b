package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"slicewire/api"
)

// Exit codes of the command line. The daemon uses exitConfig for a
// configuration that it cannot start with.
const (
	exitOK          = 0
	exitFailure     = 1
	exitUsage       = 2
	exitDegraded    = 3
	exitUnreachable = 4
	exitNotAllowed  = 5
	exitNoDaemon    = 7
	exitConfig      = 78
)

// A client speaks to a daemon's control socket.
type client struct {
	path string
	http http.Client
}

func newClient(path string) *client {
	c := &client{path: path}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true, // a client asks little, and nobody closes it
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}
	return c
}

// defaultSocket is where the command line looks for a daemon: SLICEWIRE_SOCKET,
// else the system's socket for root, else the user's own.
func defaultSocket() string {
	if p := os.Getenv("SLICEWIRE_SOCKET"); p != "" {
		return p
	}
	return filepath.Join(runtimeDir(), "slicewire.sock")
}

func runtimeDir() string {
	if os.Getuid() == 0 {
		return "/run/slicewire"
	}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" {
		return filepath.Join(d, "slicewire")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("slicewire-%d", os.Getuid()))
}

// do sends a request and returns the body of a successful answer, which the
// caller closes. Errors carry the exit code that they deserve.
func (c *client) do(ctx context.Context, method, verb string, body any) (io.ReadCloser, error) {
	resp, err := c.open(ctx, method, verb, body)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// open is do for whoever wants more than the body.
func (c *client) open(ctx context.Context, method, verb string, body any) (*http.Response, error) {
	var data io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		data = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://slicewire/v1/"+verb, data)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, refusal(resp)
}

// refusal is an answer that is not a success, with the exit code it deserves.
func refusal(resp *http.Response) error {
	var e api.Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxRequestBody)).Decode(&e); err != nil || e.Error == "" {
		e.Error = resp.Status
	}
	code := exitFailure
	switch resp.StatusCode {
	case http.StatusForbidden:
		code = exitNotAllowed
	case http.StatusNotFound:
		code = exitUnreachable
	}
	return &exitError{code: code, err: errors.New(e.Error)}
}

// explain says what to do when the socket does not answer.
func (c *client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &exitError{exitNoDaemon, fmt.Errorf("no daemon answers on %s: start one with `slicewire daemon --config FILE`, or name its socket with --socket", c.path)}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitNotAllowed, fmt.Errorf("the socket %s is not for this user: it is open to its owner and its group", c.path)}
	}
	return &exitError{exitFailure, fmt.Errorf("ask the daemon: %w", err)}
}

func (c *client) status(ctx context.Context) (api.Status, error) {
	var s api.Status
	body, err := c.do(ctx, http.MethodGet, "status", nil)
	if err != nil {
		return s, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&s); err != nil {
		return s, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return s, nil
}

// ping calls reply for every answer, in order.
func (c *client) ping(ctx context.Context, req api.PingRequest, reply func(api.PingReply)) error {
	body, err := c.do(ctx, http.MethodPost, "ping", req)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var p api.PingReply
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the daemon's answer: %w", err)
		}
		reply(p)
	}
}

func (c *client) reload(ctx context.Context) error {
	body, err := c.do(ctx, http.MethodPost, "reload", nil)
	if err != nil {
		return err
	}
	return body.Close()
}
