package cni

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// A Daemon is the node's slicewire daemon, as the plugin and Keep need it. Its
// methods may be called concurrently.
type Daemon interface {
	// State says what the daemon has.
	State(ctx context.Context) (State, error)
	// Attach makes the device in the namespace and gives it to the daemon. An
	// address that is wanted is got unless it is another's by now.
	Attach(ctx context.Context, r Request) (Place, error)
	// Detach takes a device off its slice. None of that name is no error.
	Detach(ctx context.Context, slice, netns, device string) error
	// Present says what a namespace lacks of the device: nil is nothing.
	Present(netns, device string, addrs ...netip.Addr) error
}

// ErrAway is what a Daemon's methods return when no daemon answers.
var ErrAway = errors.New("no daemon answers")

// A State is what a daemon has.
type State struct {
	Slices   []Slice
	Attached []Attached
	Cordoned bool // nothing new is to come to the node
}

// Attached is one device that the daemon has.
type Attached struct {
	Slice, Netns, Device string
	Address              netip.Addr
}

func (s *State) has(r Record) bool {
	return slices.ContainsFunc(s.Attached, func(a Attached) bool {
		return a.Slice == r.Slice && a.Netns == r.Netns && a.Device == r.Device && a.Address == r.Address
	})
}

// A Request asks for a device in a namespace.
type Request struct {
	Slice, Namespace, Pod string
	Netns, Device         string
	Address               netip.Addr // that it had before; the zero address: any
}

// A Place is what an attached device has got.
type Place struct {
	Slice             string
	Address, Address6 netip.Addr
	MTU               int
	Routes            []netip.Prefix
}

// patience bounds one command: runtimes give up after minutes, and a pod's start
// waits for it.
const patience = 20 * time.Second

// Run is the plugin: one command from the environment and standard input, its
// result on standard output. It returns the exit code. open makes a Daemon of a
// socket's path, "" for the usual one.
func Run(ctx context.Context, open func(socket string) Daemon, about string) int {
	p := plugin{ctx, open}
	err := skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: p.add, Del: p.del, Check: p.check, GC: p.gc, Status: p.status}, version.All, about)
	if err == nil {
		return 0
	}
	if err := err.Print(); err != nil {
		fmt.Fprintln(os.Stderr, "slicewire cni:", err)
	}
	return 1
}

type plugin struct {
	ctx  context.Context // of one command: the library's callbacks have none
	open func(string) Daemon
}

// later is an error that another try may not have.
func later(what string, err error) error {
	return types.NewError(types.ErrTryAgainLater, what+": "+err.Error(), "")
}

// slicesOf asks the daemon which slices there are, or remembers.
func (c *Conf) slicesOf(ctx context.Context, d Daemon) (all []Slice, known bool, away error) {
	s, err := d.State(ctx)
	if err != nil {
		all, known = readKnown(c.State)
		return all, known, err
	}
	// What cannot be noted is only missed while the daemon is away.
	_ = writeKnown(c.State, s.Slices)
	return s.Slices, true, nil
}

// decide finds the pod's slice. An error with no known slices is the daemon's.
func (c *Conf) decide(ctx context.Context, d Daemon, p pod) (choice, error) {
	all, known, away := c.slicesOf(ctx, d)
	got, err := choose(c, p, all, known)
	switch {
	case errors.Is(err, errUnknown):
		return got, later(err.Error(), away)
	case err != nil:
		return got, err
	case got.slice != "" && away != nil:
		return got, later("slice "+got.slice, away)
	}
	return got, nil
}

func (x plugin) add(a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	p, err := podOf(a, c, c.PrevResult != nil)
	if err != nil {
		return err
	}
	d := x.open(c.Socket)
	to, err := c.decide(ctx, d, p)
	if err != nil {
		return err
	}
	if to.slice == "" {
		if c.PrevResult == nil {
			return types.NewError(codeNotAllowed, fmt.Sprintf("namespace %q is on no slice: name one in the network's configuration (slice)", p.namespace), "")
		}
		return types.PrintResult(c.PrevResult, c.CNIVersion)
	}
	place, err := attach(ctx, d, recordPath(c.State, c.Name, a.ContainerID, a.IfName), Record{
		Container: a.ContainerID, IfName: a.IfName, Network: c.Name, Netns: p.netns, Device: p.device,
		Slice: to.slice, Namespace: to.namespace, Pod: p.name,
	})
	if err != nil {
		return err
	}
	if c.PrevResult != nil {
		return types.PrintResult(c.PrevResult, c.CNIVersion)
	}
	return types.PrintResult(resultOf(place, p), c.CNIVersion)
}

// attach notes an attachment before it makes it, so that whatever happens there
// is something to clean up by.
func attach(ctx context.Context, d Daemon, path string, want Record) (Place, error) {
	r, err := lockRecord(path, true)
	if err != nil {
		return Place{}, err
	}
	defer r.Close()
	if old, err := r.read(); err == nil && old.Device != "" { // added twice: the runtime has forgotten the first
		if err := d.Detach(ctx, old.Slice, old.Netns, old.Device); err != nil {
			return Place{}, later("take the container off slice "+old.Slice, err)
		}
	}
	if err := r.write(want); err != nil {
		return Place{}, errors.Join(err, r.remove())
	}
	place, err := d.Attach(ctx, Request{Slice: want.Slice, Namespace: want.Namespace, Pod: want.Pod, Netns: want.Netns, Device: want.Device})
	if err != nil {
		return Place{}, errors.Join(later("slice "+want.Slice, err), r.remove())
	}
	want.Slice, want.Address, want.Address6 = place.Slice, place.Address, place.Address6
	if err := r.write(want); err != nil {
		return Place{}, errors.Join(err, d.Detach(ctx, want.Slice, want.Netns, want.Device), r.remove())
	}
	return place, nil
}

func resultOf(place Place, p pod) *current.Result {
	first := 0
	r := &current.Result{
		CNIVersion: current.ImplementedSpecVersion,
		Interfaces: []*current.Interface{{Name: p.device, Mtu: place.MTU, Sandbox: p.netns}},
	}
	for _, a := range []netip.Addr{place.Address, place.Address6} {
		if a.IsValid() {
			r.IPs = append(r.IPs, &current.IPConfig{Interface: &first, Address: ipNet(netip.PrefixFrom(a, a.BitLen()))})
		}
	}
	for _, to := range place.Routes {
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(to)})
	}
	return r
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (x plugin) del(a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	return forget(ctx, x.open(c.Socket), recordPath(c.State, c.Name, a.ContainerID, a.IfName), nil)
}

// forget ends an attachment and removes its record, unless keep wants it. One
// that is not there is no error, nor is a daemon that is away: with it went the
// device.
func forget(ctx context.Context, d Daemon, path string, keep func(Record) bool) error {
	r, err := lockRecord(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	rec, err := r.read() // a damaged one says nothing of what is attached: it goes
	if err == nil && keep != nil && keep(rec) {
		return nil
	}
	if err == nil && rec.Device != "" {
		if err := d.Detach(ctx, rec.Slice, rec.Netns, rec.Device); err != nil && !errors.Is(err, ErrAway) {
			return later("take the container off slice "+rec.Slice, err)
		}
	}
	return r.remove()
}

func (x plugin) check(a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	d := x.open(c.Socket)
	r, err := lockRecord(recordPath(c.State, c.Name, a.ContainerID, a.IfName), false)
	if errors.Is(err, fs.ErrNotExist) {
		return c.checkNone(ctx, d, a)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	rec, err := r.read()
	if err != nil {
		return types.NewError(codeMissing, "the record of the attachment is damaged: "+err.Error(), "")
	}
	s, err := d.State(ctx)
	if err != nil {
		return later("slice "+rec.Slice, err)
	}
	if !s.has(rec) {
		return types.NewError(codeMissing, fmt.Sprintf("the daemon has no device %s of %s on slice %s with address %v", rec.Device, rec.Netns, rec.Slice, rec.Address), "")
	}
	if err := d.Present(a.Netns, rec.Device, rec.Address); err != nil {
		return types.NewError(codeMissing, err.Error(), "")
	}
	return nil
}

// checkNone checks a container that has no record: it must be on no slice.
func (c *Conf) checkNone(ctx context.Context, d Daemon, a *skel.CmdArgs) error {
	p, err := podOf(a, c, c.PrevResult != nil)
	if err != nil {
		return err
	}
	to, err := c.decide(ctx, d, p)
	if err != nil || to.slice == "" {
		return err
	}
	return types.NewError(codeMissing, fmt.Sprintf("container %s is not on slice %s", a.ContainerID, to.slice), "")
}

func (x plugin) gc(a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	paths, err := recordPaths(c.State, c.Name)
	if err != nil {
		return err
	}
	d := x.open(c.Socket)
	valid := func(r Record) bool {
		return slices.Contains(c.ValidAttachments, types.GCAttachment{ContainerID: r.Container, IfName: r.IfName})
	}
	var faults []error
	for _, path := range paths { // each is tried, whatever became of the others
		faults = append(faults, forget(ctx, d, path, valid))
	}
	return errors.Join(faults...)
}

func (x plugin) status(a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(x.ctx, patience)
	defer cancel()
	c, err := parseConf(a.StdinData)
	if err != nil {
		return err
	}
	s, err := x.open(c.Socket).State(ctx)
	living, _ := recordPaths(c.State, c.Name) // which cannot be read, there are none to speak of
	return readiness(c, s, err, len(living))
}

// readiness is what STATUS says: a daemon that is away has taken the devices of
// those that are attached with it.
func readiness(c *Conf, s State, fault error, living int) error {
	switch {
	case fault != nil && living > 0:
		return types.NewError(types.ErrLimitedConnectivity, fmt.Sprintf("%d attached containers are cut off from their slices: %v", living, fault), "")
	case fault != nil:
		return types.NewError(types.ErrPluginNotAvailable, fault.Error(), "")
	case s.Cordoned:
		return types.NewError(types.ErrPluginNotAvailable, "the node is cordoned: nothing new comes to it", "")
	case len(s.Slices) == 0:
		return types.NewError(types.ErrPluginNotAvailable, "the node is on no slice yet", "")
	case c.Slice != "" && !slices.ContainsFunc(s.Slices, func(x Slice) bool { return x.Name == c.Slice }):
		return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("slice %q is not on this node", c.Slice), "")
	}
	return nil
}
