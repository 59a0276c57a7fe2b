package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/overlay"
	"slicewire/router"
)

// Bounds of what users may have the daemon hold. A node's block bounds the
// addresses anyway; these bound descriptors and goroutines, and keep one user
// from taking every address.
const (
	maxWorkloadsPerSlice = 128
	maxWorkloadsPerUID   = 32 // on all slices; root has no such bound
)

// Why a workload is not admitted, or has to go.
var (
	errNoSlice    = errors.New("not on this node")
	errWhichSlice = errors.New("choose one with --slice")
	errTooMany    = errors.New("too many workloads")
	errNameTaken  = errors.New("a living workload has that name")
	errBadName    = errors.New("a name is 1 to 63 letters, digits, dots and hyphens")
	errEnding     = errors.New("the daemon is ending")
	errNoPlace    = errors.New("the workload's address is no longer on this slice")
	errReopened   = errors.New("the slice was closed or opened anew")
	errLeft       = errors.New("it has ended or was detached")
)

// A workload is something on this node that is on a slice with addresses of its
// own: a program that was run there or a network namespace that was attached.
// It is admitted (it has addresses), then plugged (it has a port in the
// router), and in the end it leaves or is ended.
type workload struct {
	kind    string // workloadRun or workloadAttach
	slice   string
	name    string
	space   string // the namespace it is in; empty: none
	uid     uint32
	pid     int32 // of the client of a run
	command string
	netns   string
	device  string
	since   time.Time
	wish    netip.Addr    // the address it had before; the zero address: none
	ended   chan struct{} // closed by the loop when the workload is off its slice
	why     error         // of that, set before

	// Owned by the reconcile loop.
	node   *sliceNode
	place  overlay.AttachedWorkload
	link   router.Link // nil until it is plugged; the router closes it
	medium string
}

var runName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$`)

// newWorkload checks what a client asks for.
func newWorkload(req api.WorkloadRequest, cred unix.Ucred, now time.Time) (*workload, error) {
	w := &workload{
		kind: req.Kind, slice: req.Slice, name: req.Name, space: req.Namespace, uid: cred.Uid, pid: cred.Pid, since: now,
		command: req.Command, netns: req.Netns, device: req.Device, ended: make(chan struct{}),
	}
	switch w.kind {
	case api.WorkloadRun:
		if w.name != "" && !runName.MatchString(w.name) {
			return nil, fmt.Errorf("%q: %w", w.name, errBadName)
		}
		w.netns = ""
	case api.WorkloadAttach:
		if w.netns == "" || w.device == "" {
			return nil, errors.New("attach: no namespace or no device named")
		}
		w.name, w.pid, w.wish = attachName(w.netns, w.device), 0, req.Address
	default:
		return nil, fmt.Errorf("%q: no kind of workload", w.kind)
	}
	return w, nil
}

// attachName names an attached namespace; no run's name has a slash.
func attachName(netns, device string) string { return netns + "/" + device }

// within has the reconcile loop call f, and returns f's error. The loop owns
// slices and workloads.
func (d *daemon) within(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	select {
	case d.work <- func() { done <- f() }:
		return <-done // the loop calls what it has taken
	case <-d.looped:
		return errEnding
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Admit gives a workload its addresses. Whoever calls it has it leave.
func (d *daemon) Admit(ctx context.Context, req api.WorkloadRequest, cred unix.Ucred) (*workload, api.WorkloadOffer, error) {
	var offer api.WorkloadOffer
	w, err := newWorkload(req, cred, time.Now())
	if err != nil {
		return nil, offer, err
	}
	err = d.within(ctx, func() (err error) { offer, err = d.admit(w); return err })
	return w, offer, err
}

func (d *daemon) admit(w *workload) (api.WorkloadOffer, error) {
	v, err := d.sliceFor(w.slice)
	if err != nil {
		return api.WorkloadOffer{}, err
	}
	w.slice, w.node = v.node.name, v.node
	if s, ok := d.want.mesh.Slice(w.slice); ok {
		if w.space, err = s.NamespaceFor(d.id.authority().ID.Site, w.space); err != nil {
			return api.WorkloadOffer{}, err
		}
	}
	if w.name == "" {
		d.runs++
		w.name = fmt.Sprintf("run-%d", d.runs)
	}
	if err := mayJoin(d.workloads, w); err != nil {
		return api.WorkloadOffer{}, err
	}
	if taken(&v.attachment, w.wish) {
		w.wish = netip.Addr{}
	}
	d.workloads = append(d.workloads, w)
	d.reconcileFor(w)
	if !w.place.Addr.IsValid() {
		return api.WorkloadOffer{}, fmt.Errorf("slice %s, block %v: %w", w.slice, v.attachment.Block, w.why)
	}
	d.log.Info("workload admitted", "slice", w.slice, "workload", w.name, "addr", w.place.Addr.String(), "uid", w.uid)
	a := &v.attachment
	return api.WorkloadOffer{
		Slice: w.slice, Name: w.name, Address: w.place.Addr, Address6: w.place.Addr6,
		Subnet: a.Subnet, Subnet6: a.Subnet6, Routes: d.routesBeside(w), MTU: w.node.local.mtu,
		DNS: []netip.Addr{a.Addr, a.Addr6}, Search: []string{"svc." + overlay.Zone},
		Proxy: w.node.local.proxy,
	}, nil
}

// mayJoin holds the bounds on workloads, and that names are unique on a slice.
func mayJoin(living []*workload, w *workload) error {
	onSlice, ofUser := 0, 0
	for _, x := range living {
		if x.slice == w.slice {
			onSlice++
			if x.name == w.name {
				return fmt.Errorf("slice %s: %s: %w", w.slice, w.name, errNameTaken)
			}
		}
		if x.uid == w.uid {
			ofUser++
		}
	}
	switch {
	case onSlice >= maxWorkloadsPerSlice:
		return fmt.Errorf("slice %s has %d: %w", w.slice, onSlice, errTooMany)
	case ofUser >= maxWorkloadsPerUID && w.uid != 0:
		return fmt.Errorf("user %d has %d: %w", w.uid, ofUser, errTooMany)
	}
	return nil
}

// Plug gives an admitted workload its port; on success the slice's router
// closes the link.
func (d *daemon) Plug(ctx context.Context, w *workload, link router.Link, medium string) error {
	return d.within(ctx, func() error {
		if !slices.Contains(d.workloads, w) {
			return w.why
		}
		w.link, w.medium = link, medium
		d.reconcileFor(w)
		return w.why
	})
}

// Leave takes workloads off their slices and frees their addresses; it returns
// how many. Their devices are gone when it returns.
func (d *daemon) Leave(ctx context.Context, match func(*workload) bool) (n int, err error) {
	if err := d.unplug(ctx, match); err != nil {
		return 0, err
	}
	err = d.within(ctx, func() error {
		var last *workload
		for _, w := range slices.Clone(d.workloads) {
			if match(w) {
				d.end(w, errLeft)
				last = w
				n++
			}
		}
		if last != nil {
			d.reconcileFor(last)
		}
		return nil
	})
	return n, err
}

// unplug closes the links of workloads that are about to leave. The kernel takes
// tens of milliseconds to take an interface apart, so the loop is not kept
// waiting for it; what is still routed there meanwhile is counted as closed.
func (d *daemon) unplug(ctx context.Context, match func(*workload) bool) error {
	var links []router.Link
	err := d.within(ctx, func() error {
		for _, w := range d.workloads {
			if match(w) && w.link != nil {
				links = append(links, w.link)
			}
		}
		return nil
	})
	for _, link := range links {
		if err := link.Close(); err != nil {
			d.log.Warn("close the device of a workload that leaves", "err", err)
		}
	}
	return err
}

// reconcileFor brings everything in line after w has changed. What is wrong
// with other things is not w's fault: it is logged, as when they change.
func (d *daemon) reconcileFor(w *workload) {
	if err := d.reconcile(); err != nil {
		d.log.Error("not all of the configuration is in force", "slice", w.slice, "err", err)
	}
}

// end forgets a workload and says why to whoever waits for it. Its port goes
// with the next reconcile, or has gone with its slice.
func (d *daemon) end(w *workload, why error) {
	d.workloads = slices.DeleteFunc(d.workloads, func(x *workload) bool { return x == w })
	w.why = why
	close(w.ended)
	d.log.Info("workload gone", "slice", w.slice, "workload", w.name, "addr", w.place.Addr.String(), "err", why)
}

// living lists the workloads as addresses are assigned to them.
func (d *daemon) living() []overlay.Workload {
	out := make([]overlay.Workload, len(d.workloads))
	for i, w := range d.workloads {
		out[i] = overlay.Workload{Slice: w.slice, Name: w.name, Namespace: w.space, Addr: w.place.Addr}
		if !w.place.Addr.IsValid() {
			out[i].Addr = w.wish
		}
	}
	return out
}

// taken reports whether something on the slice has the address.
func taken(a *overlay.Attachment, addr netip.Addr) bool {
	return slices.ContainsFunc(a.Workloads, func(x overlay.AttachedWorkload) bool { return x.Addr == addr }) ||
		slices.Contains(a.Owned(), addr)
}

// settle gives every workload its place among the attachments and ends those
// that have none: a workload's address never changes while it lives.
func (d *daemon) settle(attachments []overlay.Attachment) {
	for _, w := range slices.Clone(d.workloads) {
		place, ok := placeOf(attachments, w)
		switch n := d.slices[w.slice]; {
		case n == nil || n != w.node:
			d.end(w, errReopened)
		case !ok && !w.place.Addr.IsValid():
			d.end(w, overlay.ErrBlockFull)
		case !ok, w.place.Addr.IsValid() && w.place != place:
			d.end(w, errNoPlace)
		default:
			w.place = place
		}
	}
}

func placeOf(attachments []overlay.Attachment, w *workload) (overlay.AttachedWorkload, bool) {
	for i := range attachments {
		if attachments[i].Slice == w.slice {
			return attachments[i].Workload(w.name)
		}
	}
	return overlay.AttachedWorkload{}, false
}

// on lists the workloads of a slice that have a port.
func (d *daemon) on(slice string) []*workload {
	return slices.DeleteFunc(slices.Clone(d.workloads), func(w *workload) bool { return w.slice != slice || w.link == nil })
}

// port is the workload's port in the router; what comes from it must come from
// its own two addresses.
func (w *workload) port() router.Port {
	return router.Port{Name: w.portName(), Link: w.link, Role: router.Inside, Sources: w.prefixes()}
}

func (w *workload) portName() string { return portOf(w.name) }

// portOf names the router's port of the workload with that name.
func portOf(name string) string { return "workload " + name }

func (w *workload) prefixes() []netip.Prefix {
	return hostPrefixes([]netip.Addr{w.place.Addr, w.place.Addr6})
}

// status is the workload as status shows it, but for its counters.
func (w *workload) status() api.WorkloadStatus {
	return api.WorkloadStatus{
		Name: w.name, Kind: w.kind, Namespace: w.space, Address: w.place.Addr, Address6: w.place.Addr6, UID: w.uid, PID: int(w.pid),
		Command: w.command, Netns: w.netns, Device: w.device, Medium: w.medium, Since: w.since,
	}
}

func statusOf(workloads []*workload) []api.WorkloadStatus {
	out := make([]api.WorkloadStatus, len(workloads))
	for i, w := range workloads {
		out[i] = w.status()
	}
	return out
}

// counted joins the slice's workloads with what their ports have counted.
func (v *sliceView) counted() []api.WorkloadStatus {
	out := slices.Clone(v.workloads)
	ports := v.node.router.Counters().Ports
	for i := range out {
		name := portOf(out[i].Name)
		if k := slices.IndexFunc(ports, func(p router.PortCount) bool { return p.Name == name }); k >= 0 {
			p := ports[k]
			out[i].RxPackets, out[i].RxBytes, out[i].TxPackets, out[i].TxBytes = p.OutPackets, p.OutBytes, p.InPackets, p.InBytes
		}
	}
	return out
}
