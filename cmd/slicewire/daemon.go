package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/gateway"
	"slicewire/overlay"
	"slicewire/overlay/gossip"
	"slicewire/overlay/manifest"
	"slicewire/shaper"
	"slicewire/statedir"
)

func newDaemonCommand(opts *clientOptions) *cobra.Command {
	var config, level, format string
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "Run a node",
		Long: "Runs a node as its node file says, until SIGTERM or SIGINT; a second one ends it at once.\n" +
			"SIGHUP and `slicewire reload` have it read the node file and the manifests again.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), level, format)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			socket := ""
			if cmd.Flags().Changed("socket") {
				socket = opts.socket
			}
			return runDaemon(cmd.Context(), config, socket, log)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&config, "config", "c", filepath.Join(configDir(), "node.yaml"), "node file")
	f.StringVar(&level, "log-level", "info", "debug|info|warn|error")
	f.StringVar(&format, "log-format", "text", "text|json")
	return cmd
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: choose debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: choose text or json", format)
}

func configDir() string {
	if os.Getuid() == 0 {
		return "/etc/slicewire"
	}
	if d, err := os.UserConfigDir(); err == nil {
		return filepath.Join(d, "slicewire")
	}
	return "/etc/slicewire"
}

func defaultStateDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/slicewire"
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "slicewire")
	}
	if d, err := os.UserHomeDir(); err == nil {
		return filepath.Join(d, ".local", "state", "slicewire")
	}
	return filepath.Join(runtimeDir(), "state")
}

// A daemon is one running node.
type daemon struct {
	path    string // of the node file
	log     *slog.Logger
	started time.Time
	wall    func() time.Time // as the machine has it; id.clock is better
	state   statedir.Dir
	id      *identity
	issue   *issuance // nil: this node certifies nobody
	keys    *gossipKeys
	gossip  *gossip.Gossip
	leaf    bool // of the gossip: it only dials
	gateway *gateway.Gateway
	taps    overlay.Taps // the captures that run
	tracer  *tracer
	uplink  *shaper.Uplink // what the slices share
	listen  netip.AddrPort // where the tunnels' socket is bound
	metrics net.Listener   // nil: none
	reloads chan reloadRequest
	persist chan struct{} // level-triggered: the records should be saved
	renews  chan renewRequest
	moves   chan struct{}          // level-triggered: somebody certifies below a newer authority than this node's certificate has
	forked  atomic.Pointer[string] // what was said of an authority that has two successors
	unable  atomic.Pointer[string] // why the certificate was not renewed; nil: it was, or was not due
	view    atomic.Pointer[daemonView]

	cordoned atomic.Bool // for the status

	// Owned by the reconcile loop once the daemon runs.
	want    desired
	retired int // how many authorities were, when records were last judged by it
	given   given
	slices  map[string]*sliceNode
	sharing bool          // some slice's ceiling is shared with other gateways
	turned  chan struct{} // level-triggered: keys have come one step on
	faults  chan error

	relinked chan struct{} // level-triggered: links have gone up or down

	checks atomic.Pointer[[]checked]          // which targets are to be checked
	dead   atomic.Pointer[map[backendID]bool] // whose target does not answer

	swelling swelling

	facts []overlay.Record // what this node tells, but for the nodes that it does not reach

	workloads []*workload   // admitted and not ended
	runs      int           // how many were named by number
	work      chan func()   // called by the loop, one after another
	looped    chan struct{} // closed when the loop has ended

	hub     *kubeHub     // nil: all that should be is in files
	cluster *kubeCluster // nil: the node is in no cluster
}

// desired is what the configuration says should be.
type desired struct {
	file    *manifest.NodeFile
	set     *manifest.Set      // of the manifests
	read    []manifest.Problem // on reading them
	base    overlay.Mesh       // of the manifests and the hub
	mesh    overlay.Mesh       // and what the cluster exports
	publish []manifest.Publish
	exports []overlay.SliceService // of the cluster
	worked  map[string]manifest.WorkerSlice
	warned  []string
}

// A daemonView is what the daemon last made real, for those who ask.
type daemonView struct {
	warnings []string
	slices   []sliceView
}

type sliceView struct {
	self       overlay.NodeID
	node       *sliceNode
	attachment overlay.Attachment
	view       overlay.View
	keys       api.KeyStatus
	workloads  []api.WorkloadStatus // but for their counters
	bound      []string             // namespaces of this site
	allowed    []string
	sites      []overlay.SliceSite
}

// gcPercent is how much garbage there may be beside what is in use. Packets make
// none; what does is the control plane of a large mesh, where a third of
// Go's default saves tens of MiB and costs next to nothing.
const gcPercent = 30

// runDaemon runs a node until ctx or a signal ends it. Errors before it runs
// carry exitConfig: starting again would not help.
func runDaemon(ctx context.Context, path, socket string, log *slog.Logger) error {
	askForShortTurns()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	d, parts, closeAll, err := newDaemon(path, socket, wallClock(ctx), log)
	if err != nil {
		return &exitError{exitConfig, err}
	}
	defer closeAll()
	handled := make(chan struct{})
	quit := make(chan struct{})
	go func() {
		defer close(handled)
		d.handleSignals(signals, cancel, quit)
	}()
	err = run(ctx, parts...)
	close(quit)
	<-handled
	if err != nil {
		return err
	}
	log.Info("ended")
	return nil
}

// handleSignals ends the daemon at the first SIGTERM or SIGINT, once its peers
// have taken other ways, and the process at the second, and has SIGHUP reload.
func (d *daemon) handleSignals(signals <-chan os.Signal, cancel func(), quit <-chan struct{}) {
	ending := false
	for {
		select {
		case <-quit:
			return
		case s := <-signals:
			switch {
			case s == syscall.SIGHUP:
				select {
				case d.reloads <- reloadRequest{}:
				default: // one is waiting already and will see the same files
				}
			case ending:
				os.Exit(exitFailure)
			default:
				d.log.Info("ending", "signal", s.String())
				ending = true
				go func() {
					d.leave(context.Background())
					cancel()
				}()
			}
		}
	}
}

// newDaemon reads the configuration and opens everything that the node needs.
// closeAll ends what the parts do not close themselves.
func newDaemon(path, socket string, wall func() time.Time, log *slog.Logger) (_ *daemon, _ []part, closeAll func(), err error) {
	var undo []func()
	undoAll := func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	defer func() {
		if err != nil {
			undoAll()
		}
	}()
	d := &daemon{
		path: path, log: log, started: time.Now(), wall: wall,
		reloads: make(chan reloadRequest, 1), persist: make(chan struct{}, 1),
		uplink: shaper.NewUplink(0), slices: make(map[string]*sliceNode), turned: make(chan struct{}, 1), relinked: make(chan struct{}, 1), faults: make(chan error, 1),
		work: make(chan func()), looped: make(chan struct{}), renews: make(chan renewRequest), moves: make(chan struct{}, 1),
	}
	d.tracer = newTracer(&d.taps)
	if d.want.file, err = loadNodeFile(path, log); err != nil {
		return nil, nil, nil, err
	}
	d.state = statedir.Dir(cmp.Or(d.want.file.State, defaultStateDir()))
	if err := d.state.Create(); err != nil {
		return nil, nil, nil, err
	}
	release, err := d.state.Lock()
	if err != nil {
		return nil, nil, nil, err
	}
	undo = append(undo, release)
	if err := d.state.Sweep(); err != nil {
		return nil, nil, nil, err
	}
	if d.id, err = loadIdentity(d.state, d.want.file.Mesh, wall); err != nil {
		return nil, nil, nil, err
	}
	if err := d.checkClock(wall()); err != nil {
		return nil, nil, nil, err
	}
	if id := d.id.authority().ID; id.Site != d.want.file.Site || id.Node != d.want.file.Node {
		return nil, nil, nil, fmt.Errorf("%s: the certificate is for %v, the node file for %s/%s", path, id, d.want.file.Site, d.want.file.Node)
	}
	if d.hub, err = openHub(d.want.file, d.state, log); err != nil {
		return nil, nil, nil, err
	}
	if d.cluster, err = openCluster(d.want.file, d.state, log); err != nil {
		return nil, nil, nil, err
	}
	undo = append(undo, d.cluster.close)
	if err := statedir.ReadJSON(d.state, statedir.FileAddresses, &d.given); err != nil {
		log.Warn("addresses given before are lost and given anew", "err", err)
	}
	if err := d.loadMesh(d.want.file); err != nil {
		return nil, nil, nil, err
	}
	conn, err := listenTunnels(d.want.file.Listen)
	if err != nil {
		return nil, nil, nil, err
	}
	undo = append(undo, func() { conn.Close() })
	d.listen = conn.LocalAddr().(*net.UDPAddr).AddrPort()
	if d.gateway, err = gateway.New(gateway.Config{Conn: conn, Log: log, Taps: &d.taps, Told: d.tracer.take, Relinked: d.relink, OuterTOS: outerTOS(d.want.file.OuterTOS)}); err != nil {
		return nil, nil, nil, err
	}
	var cordon bool
	if err := statedir.ReadJSON(d.state, statedir.FileCordon, &cordon); err != nil {
		log.Warn("whether the node was cordoned is lost: it is not", "err", err)
	}
	d.cordoned.Store(cordon)
	d.gateway.SetLeaving(cordon)
	d.retired = d.countRetired()
	if err := d.openGossip(); err != nil {
		return nil, nil, nil, err
	}
	if d.issue, err = d.openIssuance(); err != nil {
		return nil, nil, nil, err
	}
	if d.issue != nil {
		undo = append(undo, func() { d.issue.listener.Close() })
	}
	path = cmp.Or(socket, d.want.file.Socket, filepath.Join(runtimeDir(), "slicewire.sock"))
	l, err := listenControl(path)
	if err != nil {
		return nil, nil, nil, err
	}
	ctl := &control{listener: l, daemon: d, cordoned: d, host: d, trust: d, policed: d, captured: d, names: d, hubbed: d, certificates: d.Certificates, log: log}
	undo = append(undo, func() { l.Close(); os.Remove(path) })
	shown, err := d.openMetrics()
	if err != nil {
		return nil, nil, nil, err
	}
	if shown != nil {
		undo = append(undo, func() { d.metrics.Close() })
	}
	// A listener that cannot be opened is a fault of the configuration: said now,
	// not after the node has told others that it is there.
	if err := d.reconcile(); err != nil {
		undo = append(undo, d.stopSlices)
		return nil, nil, nil, err
	}
	parts := []part{
		{"gateway", d.gateway.Run},
		{"slices", d.loop},
		{"gossip", d.gossip.Run},
		{"records", d.persistRecords},
		{"checks", d.checkBackends},
		{"traces", d.serveTraces},
		{"certificate", d.renewals},
		{"gossip keys", d.keepGossipKeys},
		{"control", func(ctx context.Context) error { return ctl.run(ctx, path) }},
	}
	if d.issue != nil {
		parts = append(parts, part{"join", d.issue.server.Run}, part{"pods", d.askForPods})
	}
	if shown != nil {
		parts = append(parts, part{"metrics", shown.Run})
	}
	parts = append(parts, d.hub.parts()...)
	return d, append(parts, d.cluster.parts()...), undoAll, nil
}

func listenTunnels(addr netip.AddrPort) (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("listen for tunnels on udp %v: %w", addr, err)
	}
	return conn, nil
}
