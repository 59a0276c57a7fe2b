package hub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"slicewire/kube"
	"slicewire/overlay/manifest"
)

// How often the writer looks and how long it waits after a fault.
const (
	writePause    = 500 * time.Millisecond // between two looks: what changes together is written once
	writeRetryMin = 2 * time.Second
	writeRetryMax = time.Minute
	deniedPause   = 10 * time.Minute // after the hub forbade something
)

// names of the leases. A site's is its name after leaseSite.
const (
	leaseWorked = "slicewire-controller"
	leaseSite   = "slicewire-site-"
)

func (h *Hub) list(kind string) []*unstructured.Unstructured { return h.watch.Objects(resources[kind]) }

// write brings the hub up to date whenever something may differ, until ctx ends.
func (h *Hub) write(ctx context.Context) {
	retry := writeRetryMin
	denied := map[string]time.Time{} // leases: when their part was forbidden
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.poke:
		case <-timer.C:
		}
		again, err := h.writeOnce(ctx, denied)
		switch {
		case ctx.Err() != nil:
			return
		case apierrors.IsForbidden(err):
			h.deny(err.Error())
			timer.Reset(deniedPause)
		case err != nil:
			h.cfg.Log.Warn("the hub was not told", "err", err)
			timer.Reset(retry)
			retry = min(2*retry, writeRetryMax)
		case again > 0:
			timer.Reset(again)
		default:
			if len(denied) == 0 {
				h.deny("")
			}
			retry = writeRetryMin
		}
		pause := time.NewTimer(writePause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

func (h *Hub) deny(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if why != "" && h.denied == "" {
		h.cfg.Log.Warn("the hub does not let this node write: give it the Role of deploy/hub, or set kubernetes.hub.controller to reader", "err", why)
	}
	h.denied = why
}

// writeOnce writes what differs now. It returns after what time to look again
// though nothing may have changed, 0: never.
func (h *Hub) writeOnce(ctx context.Context, denied map[string]time.Time) (again time.Duration, err error) {
	now := time.Now()
	may := func(lease string) bool { return now.Sub(denied[lease]) > deniedPause }
	do := func(lease string, plan []write) (time.Duration, error) {
		wait, err := h.do(ctx, lease, plan)
		if delete(denied, lease); apierrors.IsForbidden(err) {
			denied[lease] = now
		}
		return wait, err
	}
	h.mu.Lock()
	m, facts, verdicts := h.merged, h.facts, h.verdicts
	ready := h.state.Synced && h.state.Err == "" && !h.state.Stale && m != nil
	h.mu.Unlock()
	if !ready {
		return 0, nil
	}
	theirs := h.cfg.Controller != "slicewire" && foreign(h)
	var errs []error
	if h.cfg.Controller != "reader" && !theirs && may(leaseWorked) {
		all := manifest.Work(m.set, &m.mesh, now)
		plan := slices.Concat(planWorked(h, all, h.cfg.Controller == "slicewire"), planConditions(h, verdicts, now), planStrays(h, all, h.lacking, now))
		wait, err := do(leaseWorked, plan)
		again, errs = wait, append(errs, err)
	}
	if facts != nil && may(leaseSite+h.cfg.Site) {
		s := site{name: h.cfg.Site, namespace: h.cfg.Namespace, cniSubnets: h.cfg.CNISubnets, facts: facts, mesh: &m.mesh, set: m.set, health: h.Status(), conditions: !theirs}
		plan := planSite(h, s, now)
		if facts.Links != nil {
			plan = append(plan, planStatus(h, s, h.lacking, now)...)
		}
		wait, err := do(leaseSite+h.cfg.Site, plan)
		again, errs = max(again, wait), append(errs, err)
	}
	return again, firstOf(errs)
}

// firstOf returns the first error, a refusal of rights before others: it lasts.
func firstOf(errs []error) error {
	for _, err := range errs {
		if apierrors.IsForbidden(err) {
			return err
		}
	}
	return errors.Join(errs...)
}

// do writes under a lease, which it takes only if there is something to write.
func (h *Hub) do(ctx context.Context, lease string, plan []write) (wait time.Duration, err error) {
	if len(plan) == 0 {
		return 0, nil
	}
	var errs []error
	taken := time.Time{}
	for _, w := range plan {
		if time.Since(taken) > leaseFresh {
			if wait, err := h.takeLease(ctx, lease); err != nil || wait > 0 {
				return wait, err
			}
			taken = time.Now()
		}
		err := h.one(ctx, w)
		if apierrors.IsForbidden(err) {
			return 0, err
		}
		if err != nil && len(errs) < 3 {
			errs = append(errs, err)
		}
		if ctx.Err() != nil {
			return 0, nil
		}
	}
	return 0, errors.Join(errs...)
}

// lack notes that the hub's definition of a kind has no room for what would be said,
// as KubeSlice's has not.
func (h *Hub) lack(kind string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lacks = append(h.lacks, kind)
}

func (h *Hub) lacking(kind string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Contains(h.lacks, kind)
}

func (h *Hub) one(ctx context.Context, w write) (err error) {
	r := resources[w.kind]
	switch {
	case w.want == nil:
		err = h.applier.Delete(ctx, r, w.live)
	case w.status:
		if _, err = h.applier.ApplyStatus(ctx, r, w.want, w.live); err != nil && w.kind != "Cluster" && strings.Contains(err.Error(), noRoom) {
			h.lack(w.kind)
			return nil
		}
	case h.cfg.Controller == "slicewire":
		_, err = h.applier.ApplyShared(ctx, r, w.want, w.live)
	default:
		_, err = h.applier.Apply(ctx, r, w.want, w.live)
	}
	on := w.live
	if on == nil {
		on = w.want
	}
	name, message := w.event, w.kind+" "+on.GetName()
	if err != nil {
		name, message = w.failed, err.Error()
	} else if w.event == "HubObjectRefused" {
		if c := conditionOf(w.want, conditionAccepted); c != nil {
			message, _ = c["message"].(string)
		}
	}
	if name != "" {
		h.recorder.Record(kube.Event{Name: name, Message: message, On: on, Project: project(h.cfg.Namespace), Cluster: h.cfg.Site, Slice: w.slice})
	}
	return err
}
