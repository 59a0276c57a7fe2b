package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/manifest"
	"slicewire/statedir"
)

// given is what the node has decided before and sticks to: each site's index in
// each slice, and the address of each backend it publishes.
type given struct {
	Indexes  map[string]map[string]int        `json:"indexes"`  // slice, site
	Backends map[string]map[string]netip.Addr `json:"backends"` // slice, namespace/service/backend
}

// A reloadRequest has the loop read the configuration again; the answer goes to
// done when somebody waits for it.
type reloadRequest struct{ done chan<- error }

// loadNodeFile reads the node file; its warnings are logged.
func loadNodeFile(path string, log *slog.Logger) (*manifest.NodeFile, error) {
	file, problems := manifest.LoadNodeIn(path, nodeVariable)
	return file, sortOut(problems, log, nil)
}

// sortOut logs warnings, collects them and joins the errors.
func sortOut(problems []manifest.Problem, log *slog.Logger, warned *[]string) error {
	var errs []error
	for _, p := range problems {
		if p.Severity == manifest.Error {
			errs = append(errs, errors.New(p.String()))
			continue
		}
		log.Warn("configuration", "err", p.String())
		if warned != nil {
			*warned = append(*warned, p.String())
		}
	}
	return errors.Join(errs...)
}

// loadMesh reads the manifests that file names and, if they have no errors,
// makes both the daemon's configuration.
func (d *daemon) loadMesh(file *manifest.NodeFile) error {
	set, problems := manifest.Load(file.Manifests)
	return d.makeMesh(file, set, problems, nil)
}

// makeMesh is loadMesh for manifests that were read already, with problems. What
// was said before is not logged again.
func (d *daemon) makeMesh(file *manifest.NodeFile, set *manifest.Set, problems []manifest.Problem, said []string) error {
	mesh, more := d.hub.build(set, manifest.Options{Now: time.Now(), Existing: d.given.Indexes, Node: file})
	var warned []string
	if err := sortOut(slices.Concat(problems, more), slog.New(slog.DiscardHandler), &warned); err != nil {
		return err
	}
	for _, w := range warned {
		if !slices.Contains(said, w) {
			d.log.Warn("configuration", "err", w)
		}
	}
	d.want = desired{file: file, set: set, read: problems, base: mesh, warned: warned, worked: d.hub.worked(set, &mesh, file.Site)}
	d.addExports()
	return nil
}

// reload reads node file and manifests again. Whatever is wrong with them, the
// old configuration goes on.
func (d *daemon) reload() error {
	file, err := loadNodeFile(d.path, d.log)
	if err != nil {
		return err
	}
	if err := sameNode(d.want.file, file); err != nil {
		return err
	}
	old := d.want
	if err := d.loadMesh(file); err != nil {
		return err
	}
	d.gossip.SetSeeds(file.Gossip.Join)
	trust := d.reloadTrust()
	if err := d.reconcile(); err != nil {
		d.want = old
		d.gossip.SetSeeds(old.file.Gossip.Join)
		return errors.Join(err, trust, d.reconcile())
	}
	return trust
}

// sameNode refuses a reload of what is fixed while the process runs.
func sameNode(old, file *manifest.NodeFile) error {
	for _, f := range []struct {
		name    string
		was, is any
	}{
		{"mesh", old.Mesh, file.Mesh}, {"site", old.Site, file.Site}, {"node", old.Node, file.Node},
		{"listen", old.Listen, file.Listen}, {"gossip.listen", old.Gossip.Listen, file.Gossip.Listen},
		{"gossip.advertise", old.Gossip.Advertise, file.Gossip.Advertise},
		{"gossip.reachable", old.Gossip.Reachable, file.Gossip.Reachable}, {"join.listen", old.Join.Listen, file.Join.Listen}, {"state", old.State, file.State}, {"socket", old.Socket, file.Socket},
		{"metrics", old.Metrics, file.Metrics}, {"kubernetes.hub", hubOf(old), hubOf(file)},
		{"kubernetes.cluster", clusterOf(old), clusterOf(file)},
	} {
		if f.was != f.is {
			return fmt.Errorf("node file: %s changed from %v to %v: that needs a restart", f.name, f.was, f.is)
		}
	}
	return nil
}

// hubOf is what a node file says of its hub, in one text.
func hubOf(file *manifest.NodeFile) string {
	if file.Kubernetes.Hub == nil {
		return "none"
	}
	return fmt.Sprintf("%+v", *file.Kubernetes.Hub)
}

// clusterOf is what the node file says of its cluster; a zero one is none.
func clusterOf(file *manifest.NodeFile) (c manifest.NodeCluster) {
	if file.Kubernetes.Cluster != nil {
		c = *file.Kubernetes.Cluster
	}
	return c
}

// loop makes real, again and again, what configuration and records say. It
// owns the slices.
func (d *daemon) loop(ctx context.Context) error {
	defer close(d.looped)
	defer d.stopSlices()
	look := time.NewTicker(rekeyLook)
	defer look.Stop()
	share := time.NewTicker(shareLook)
	defer share.Stop()
	names := time.NewTicker(namesLook)
	defer names.Stop()
	numbers := time.NewTicker(numbersLook)
	defer numbers.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-d.faults:
			return err
		case <-d.gossip.Changed():
			d.turn()
			d.swelling.turns++
			select {
			case d.persist <- struct{}{}:
			default: // a save is due already
			}
		case <-names.C:
			d.lookNames()
		case <-numbers.C:
			d.tendNumbers()
		case <-d.relinked:
			d.lookNames()
			d.tellHub(d.view.Load())
			d.relinkCluster(d.view.Load())
		case now := <-share.C:
			if d.sharing {
				d.shape(now)
			}
		case now := <-look.C:
			if !d.sharing {
				d.shape(now)
			}
			objects, changes := d.cluster.held()
			d.swelling.settle(d.gossip.Held()+objects, changes, residentHeap, giveBack)
			if d.rootsDue() || d.keysDue() {
				d.turn()
			}
		case <-d.turned:
			d.turn()
		case <-d.hub.changed():
			d.takeHub()
		case <-d.cluster.tokenNews():
			d.turn()
		case <-d.cluster.changed():
			d.addExports()
			d.turn()
		case f := <-d.work:
			f()
		case req := <-d.reloads:
			err := d.reload()
			if err != nil {
				d.log.Error("reload refused, the old configuration goes on", "err", err)
			} else {
				d.log.Info("reloaded")
			}
			if req.done != nil {
				req.done <- err
			}
		}
	}
}

// turn reconciles and says what went wrong.
func (d *daemon) turn() {
	if err := d.reconcile(); err != nil {
		d.log.Error("not all of the configuration is in force", "err", err)
	}
}

// reconcile brings slices, tunnels and what the node tells in line with
// configuration and records:
//
//  1. addresses: what the node is attached to, with what was given before;
//  2. slices: those that went or changed are stopped, new ones opened, and
//     workloads that have no place any more are ended;
//  3. telling: the node's own records;
//  4. seeing: every slice's peers, routes and names, from the records;
//  5. keys: a change of keys goes one step on, see overlay.Rekeying;
//  6. tunnels;
//  7. names, which depend on the state of the tunnels' links;
//  8. rates.
//
// It does as much as it can and returns what went wrong. Doing it again without
// a change does nothing.
func (d *daemon) reconcile() error {
	self := d.id.authority()
	attachments, unattached := overlay.Attach(&d.want.mesh, self, backendsOf(d.want.publish), d.living(), d.given.Backends)
	unattached = append(unattached, overlay.AttachRoutes(&d.want.mesh, self, attachments, subnetRoutes(d.want.file), d.plugged)...)
	unattached = append(unattached, overlay.AttachHosts(&d.want.mesh, attachments, backendsOf(d.want.publish))...)
	overlay.AttachExports(attachments, d.want.exports)
	errs := []error{d.remember(attachments)}
	for name, n := range d.slices {
		same := func(a overlay.Attachment) bool { return a.Slice == name && n.local.equal(localOf(d.want.file, &a)) }
		if !slices.ContainsFunc(attachments, same) {
			errs = append(errs, d.stopSlice(n))
		}
	}
	keys := make(map[string]overlay.KeyBody)
	for i := range attachments {
		a := &attachments[i]
		n, err := d.ensureSlice(a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys[a.Slice] = n.keys.told()
	}
	d.settle(attachments)
	published := index(d.want.publish)
	var checks []checked
	for i := range attachments {
		checks = append(checks, checksOf(published, &attachments[i])...)
	}
	d.checks.Store(&checks)
	d.facts = append(overlay.Tell(self.ID, d.endpoints(), d.alive(attachments), keys), d.issuerFacts()...)
	errs = append(errs, d.gossip.Set(slices.Concat(d.facts, d.lostFacts())))

	records := d.gossip.Records()
	d.noticeKeys(records)
	errs = append(errs, d.noticeRoots(records), d.carryRevocations(records))
	view := &daemonView{warnings: slices.Clone(d.want.warned)}
	for _, err := range unattached { // the rest of the node is none the worse
		view.warnings = append(view.warnings, err.Error())
	}
	var tunnels []gateway.Tunnel
	for i := range attachments {
		a := &attachments[i]
		n := d.slices[a.Slice]
		s, known := d.want.mesh.Slice(a.Slice)
		if n == nil || !known {
			continue
		}
		v := n.imports.Look(self.ID, s, a, records)
		workloads := d.on(a.Slice)
		errs = append(errs, n.set(self.ID, a, s, v, published.of(a), workloads), n.setDoors(d.cluster))
		errs = append(errs, d.turnKeys(n, s, v.Peers, records))
		tunnels = append(tunnels, n.tunnels(self.ID, v)...)
		bound, allowed := s.NamespacesAt(self.ID.Site)
		view.slices = append(view.slices, sliceView{self: self.ID, node: n, attachment: *a, view: v, keys: n.keys.status(), workloads: statusOf(workloads), sites: s.Sites, bound: bound, allowed: allowed})
	}
	errs = append(errs, d.gateway.Set(tunnels))
	for i := range view.slices {
		x := &view.slices[i]
		x.node.setNames(self.ID, &x.attachment, x.sites, x.view, d.want.file.SliceSettings(x.node.name), d.linksOf(x.node, time.Now()))
	}
	err := errors.Join(errs...)
	if err != nil {
		view.warnings = append(view.warnings, strings.Split(err.Error(), "\n")...)
	}
	d.view.Store(view)
	d.tellHub(view)
	d.cluster.reached(d.slices)
	d.cluster.tell(self.ID.Site, d.siteView(view.slices), records)
	d.shape(time.Now())
	return err
}

// ensureSlice returns the running slice, opened if need be.
func (d *daemon) ensureSlice(a *overlay.Attachment) (*sliceNode, error) {
	if n := d.slices[a.Slice]; n != nil {
		return n, nil
	}
	keys, err := d.openKeys(a.Slice)
	if err != nil {
		return nil, err
	}
	n, err := openSlice(a, localOf(d.want.file, a), keys, d.uplink, &d.taps, d.cluster.guard(a.Slice), d.log, d.faults)
	if err != nil {
		return nil, err
	}
	d.slices[a.Slice] = n
	d.log.Info("slice up", "slice", a.Slice, "prefix", a.Block.String(), "addr", a.Addr.String())
	return n, nil
}

func (d *daemon) stopSlice(n *sliceNode) error {
	delete(d.slices, n.name)
	d.log.Info("slice down", "slice", n.name)
	return n.stop()
}

func (d *daemon) stopSlices() {
	for _, n := range d.slices {
		if err := d.stopSlice(n); err != nil {
			d.log.Error("slice did not end well", "slice", n.name, "err", err)
		}
	}
}

// remember saves indexes and backend addresses when they have changed.
func (d *daemon) remember(attachments []overlay.Attachment) error {
	now := given{Indexes: make(map[string]map[string]int), Backends: make(map[string]map[string]netip.Addr)}
	for _, s := range d.want.mesh.Slices {
		m := make(map[string]int)
		for _, site := range s.Sites {
			m[site.Name] = site.Index
		}
		now.Indexes[s.Name] = m
	}
	for i := range attachments {
		now.Backends[attachments[i].Slice] = attachments[i].Addresses()
	}
	if d.hub.silent() { // what is missing was not taken back
		for name, m := range d.given.Indexes {
			if now.Indexes[name] == nil {
				now.Indexes[name] = m
			}
		}
		for name, m := range d.given.Backends {
			if now.Backends[name] == nil {
				now.Backends[name] = m
			}
		}
	}
	if equalGiven(now, d.given) {
		return nil
	}
	if err := d.state.WriteJSON(statedir.FileAddresses, now); err != nil {
		return err
	}
	d.given = now
	return nil
}
