package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

// A host is what the control socket needs of the daemon for workloads.
type host interface {
	Admit(ctx context.Context, req api.WorkloadRequest, cred unix.Ucred) (*workload, api.WorkloadOffer, error)
	Plug(ctx context.Context, w *workload, link router.Link, medium string) error
	Leave(ctx context.Context, match func(*workload) bool) (int, error)
}

// upgradeName is the protocol that a connection changes to for linkMessages.
const upgradeName = "slicewire-workload"

// plugPatience is how long a client may take to make its device once it has an
// address. Half a minute is what a machine needs that swaps.
const plugPatience = 30 * time.Second

// hold counts a connection that has left the HTTP server, so that run waits for
// it; false when the server is ending.
func (c *control) hold() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending {
		return false
	}
	c.held.Add(1)
	return true
}

// release waits for every connection that was held; there will be no more.
func (c *control) release() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.held.Wait()
}

// workload serves one attachment: it is admitted while this is still HTTP, and
// then the connection carries linkMessages. A run lives as long as its
// connection; an attached namespace until somebody detaches it.
func (c *control) workload(w http.ResponseWriter, r *http.Request) {
	cred, known := r.Context().Value(peerKey{}).(unix.Ucred)
	var req api.WorkloadRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("workload request: %w", err))
		return
	}
	if !known || req.Kind != api.WorkloadRun && !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("attach is for root and for the user that the daemon runs as"))
		return
	}
	if !c.hold() {
		c.refuse(w, http.StatusServiceUnavailable, errEnding)
		return
	}
	defer c.held.Done()
	wl, offer, err := c.host.Admit(r.Context(), req, cred)
	if err != nil {
		c.refuse(w, admitCode(err), err)
		return
	}
	var conn *linkConn
	defer func() {
		if conn != nil {
			conn.Close() // last: a client that sees it may have the same name again
		}
	}()
	stays := false
	defer func() {
		if stays {
			return
		}
		// The client may be gone and the daemon ending: the address is freed all the same.
		if _, err := c.host.Leave(context.WithoutCancel(r.Context()), func(x *workload) bool { return x == wl }); err != nil && !errors.Is(err, errEnding) {
			c.log.Warn("workload does not leave", "slice", wl.slice, "workload", wl.name, "err", err)
		}
	}()
	if conn, err = hijack(w); err != nil {
		c.log.Debug("workload connection", "err", err)
		return
	}
	// Whatever is being read or written ends when the daemon does.
	stop := context.AfterFunc(r.Context(), func() { _ = conn.conn.SetDeadline(time.Unix(1, 0)) })
	err = c.plug(r.Context(), conn, wl, offer)
	stop()
	switch {
	case err != nil:
		c.log.Info("workload not plugged", "slice", wl.slice, "workload", wl.name, "err", err)
		_ = conn.send(linkMessage{Error: err.Error()}, nil) // it may be gone
	case wl.kind == api.WorkloadAttach:
		stays = true
	default:
		c.attend(r.Context(), conn, wl)
	}
}

// admitCode is the status of a refusal.
func admitCode(err error) int {
	switch {
	case errors.Is(err, errNoSlice), errors.Is(err, errWhichSlice):
		return http.StatusNotFound
	case errors.Is(err, errTooMany):
		return http.StatusTooManyRequests
	case errors.Is(err, errNameTaken), errors.Is(err, overlay.ErrBlockFull):
		return http.StatusConflict
	case errors.Is(err, errEnding):
		return http.StatusServiceUnavailable
	}
	return http.StatusBadRequest
}

// hijack takes the connection from the HTTP server and says that the protocol
// changes.
func hijack(w http.ResponseWriter) (*linkConn, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok || rw.Reader.Buffered() > 0 {
		conn.Close()
		return nil, errors.New("client spoke out of turn")
	}
	if err := errors.Join(uc.SetDeadline(time.Now().Add(plugPatience)), sayUpgrade(uc)); err != nil {
		conn.Close()
		return nil, err
	}
	return &linkConn{conn: uc}, nil
}

func sayUpgrade(conn net.Conn) error {
	_, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", upgradeName)
	return err
}

// plug makes the offer, takes the device and has its packets flow.
func (c *control) plug(ctx context.Context, conn *linkConn, wl *workload, offer api.WorkloadOffer) error {
	if err := conn.send(linkMessage{Offer: &offer}, nil); err != nil {
		return err
	}
	m, file, err := conn.receive()
	if err != nil {
		return err
	}
	if m.Error != "" || m.Medium == "" || file == nil {
		if file != nil {
			file.Close()
		}
		return fmt.Errorf("no device: %s", cmp.Or(m.Error, "none was passed"))
	}
	link, err := adopt(file, m.Medium, offer, c.log)
	if err != nil {
		return err
	}
	if err := c.host.Plug(ctx, wl, link, m.Medium); err != nil {
		return errors.Join(err, link.Close())
	}
	return errors.Join(conn.send(linkMessage{Ready: true}, nil), conn.conn.SetDeadline(time.Time{}))
}

// attend waits until the client hangs up, the workload is ended or the daemon
// ends, and says so to a client that is still there.
func (c *control) attend(ctx context.Context, conn *linkConn, wl *workload) {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = conn.conn.Read(make([]byte, 1)) // the client has nothing to say: this is its end
	}()
	why := error(nil)
	select {
	case <-gone:
		if ctx.Err() != nil { // both at once
			why = errEnding
		}
	case <-wl.ended:
		why = wl.why
	case <-ctx.Done():
		why = errEnding
	}
	if why != nil {
		_ = conn.conn.SetDeadline(time.Now().Add(time.Second))
		_ = conn.send(linkMessage{Error: why.Error()}, nil)
	}
	_ = conn.conn.SetReadDeadline(time.Unix(1, 0)) // closed it is once the workload has left
	<-gone
}

// detach takes an attached namespace off its slice.
func (c *control) detach(w http.ResponseWriter, r *http.Request) {
	if !mayChange(r.Context()) {
		c.refuse(w, http.StatusForbidden, errors.New("detach is for root and for the user that the daemon runs as"))
		return
	}
	var req api.DetachRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequestBody)).Decode(&req); err != nil {
		c.refuse(w, http.StatusBadRequest, fmt.Errorf("detach request: %w", err))
		return
	}
	n, err := c.host.Leave(r.Context(), func(x *workload) bool {
		return x.kind == api.WorkloadAttach && x.netns == req.Netns && (req.Slice == "" || x.slice == req.Slice) && (req.Device == "" || x.device == req.Device)
	})
	switch {
	case err != nil:
		c.refuse(w, http.StatusServiceUnavailable, err)
	case n == 0:
		c.refuse(w, http.StatusNotFound, fmt.Errorf("nothing of %s is attached: see slicewire status", req.Netns))
	default:
		c.answer(w, struct{}{})
	}
}
