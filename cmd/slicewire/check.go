package main

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"slicewire/overlay"
)

const (
	// A target is tried every checkEvery, and again checkSoon after a miss: with
	// checkMisses in a row it is taken for dead, within 0.75 s if it refuses and
	// within 1.5 s if it is silent.
	checkEvery   = 500 * time.Millisecond
	checkSoon    = 250 * time.Millisecond
	checkTimeout = 500 * time.Millisecond
	checkMisses  = 2
)

// A checked backend is one whose target the node connects to again and again,
// to know whether it is there.
type checked struct {
	id      backendID
	network string
	addr    string
}

// A backendID names a published backend of this node.
type backendID struct{ slice, namespace, service, backend string }

func idOf(b overlay.Backend) backendID { return backendID{b.Slice, b.Namespace, b.Service, b.Name} }

// checksOf lists the targets that the node file wants to be checked: of a
// backend with several ports, the first that is TCP.
func checksOf(all published, a *overlay.Attachment) (out []checked) {
	for _, b := range a.Backends {
		p := all[idOf(b.Backend)]
		if p == nil || p.Check != "tcp" {
			continue
		}
		for _, port := range b.Service.Ports {
			to := p.TargetOf(port.Name)
			if port.Protocol != overlay.TCP || to == "" {
				continue
			}
			c := checked{id: idOf(b.Backend), network: "tcp", addr: to}
			if path, unix := strings.CutPrefix(to, "unix:"); unix {
				c.network, c.addr = "unix", path
			}
			out = append(out, c)
			break
		}
	}
	return out
}

// checkBackends connects to every target that is to be checked, until ctx ends.
// When one is found dead or back, the node tells others so.
func (d *daemon) checkBackends(ctx context.Context) error {
	misses := make(map[backendID]int)
	timer := time.NewTimer(checkEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		began, wait := time.Now(), checkEvery
		if checks := d.checks.Load(); checks != nil {
			misses = round(ctx, *checks, misses)
		}
		dead := make(map[backendID]bool)
		for id, n := range misses {
			if n >= checkMisses {
				dead[id] = true
			} else {
				wait = checkSoon
			}
		}
		if ctx.Err() == nil && d.noteDead(dead) {
			select {
			case d.turned <- struct{}{}:
			default: // it is about to
			}
		}
		timer.Reset(wait - time.Since(began)) // at once if the tries took that long
	}
}

// round tries every target once, all at a time, and returns how many tries in a
// row each has missed.
func round(ctx context.Context, checks []checked, before map[backendID]int) map[backendID]int {
	after := make(map[backendID]int, len(checks))
	var mu sync.Mutex // guards after
	var wg sync.WaitGroup
	for _, c := range checks {
		wg.Go(func() {
			dialer := net.Dialer{Timeout: checkTimeout}
			conn, err := dialer.DialContext(ctx, c.network, c.addr)
			if err == nil {
				conn.Close()
				return
			}
			mu.Lock()
			defer mu.Unlock()
			after[c.id] = before[c.id] + 1
		})
	}
	wg.Wait()
	return after
}

// noteDead keeps which backends are dead and reports whether that is news.
func (d *daemon) noteDead(dead map[backendID]bool) (changed bool) {
	var had map[backendID]bool
	if p := d.dead.Load(); p != nil {
		had = *p
	}
	for id := range dead {
		if !had[id] {
			changed = true
			d.log.Warn("backend does not answer and is withdrawn", "slice", id.slice, "service", id.namespace+"/"+id.service, "backend", id.backend)
		}
	}
	for id := range had {
		if !dead[id] {
			changed = true
			d.log.Info("backend answers again", "slice", id.slice, "service", id.namespace+"/"+id.service, "backend", id.backend)
		}
	}
	d.dead.Store(&dead)
	return changed
}

// alive returns the attachments without backends that are dead: these keep their
// addresses and ports, but are not told of.
func (d *daemon) alive(attachments []overlay.Attachment) []overlay.Attachment {
	dead := d.dead.Load()
	if dead == nil || len(*dead) == 0 {
		return attachments
	}
	out := slices.Clone(attachments)
	for i := range out {
		out[i].Backends = slices.DeleteFunc(slices.Clone(out[i].Backends), func(b overlay.AttachedBackend) bool { return (*dead)[idOf(b.Backend)] })
	}
	return out
}
