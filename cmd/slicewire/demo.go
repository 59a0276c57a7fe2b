package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

//go:embed demodata/demo.yaml demodata/kubeslice/*.yaml
var demoManifests embed.FS

// demoSites are the sites of the demo, in the order in which their daemons are
// started. The first one exports the services.
var demoSites = []string{"worker-1", "worker-2", "worker-3"}

func newDemoCommand() *cobra.Command {
	var once, keep bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show three sites on this machine: no root, no Kubernetes, no TUN device",
		Long: "Starts three daemons on loopback, configured with KubeSlice manifests, exports a\n" +
			"service at one site, finds it by name and uses it at another through the encrypted\n" +
			"slice, and shows that a second slice with the same subnet sees nothing of it.\n" +
			"Then it shows live status until Ctrl-C; with --once it ends and exits 0 or 1.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The daemons are told to end when the thread that started them
			// does (PDEATHSIG); this one lives as long as the demo.
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			d, err := newDemo(cmd.OutOrStdout())
			if err != nil {
				return err
			}
			err = d.run(ctx, once)
			return errors.Join(err, d.close(keep))
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "check everything and end: exit 0 when all is well, 1 when not")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the folder with configuration and logs")
	return cmd
}

// A demo is one run: a temporary folder, the services that are exported, and a
// daemon process for each site.
type demo struct {
	dir      string
	out      io.Writer
	began    time.Time
	services *demoServices
	nodes    map[string]*demoNode // by site
}

// A demoNode is one daemon and the ports it was given.
type demoNode struct {
	site    string
	config  string
	socket  string
	logFile string
	gossip  string
	tunnel  string
	slices  map[string]demoSlice
	forward string // local port that leads to iperf-server; empty where the site has none
	process *exec.Cmd
	exited  chan error    // its end, for wait
	done    chan struct{} // closed with it, for everybody else
}

type demoSlice struct{ proxy, dns string }

func newDemo(out io.Writer) (*demo, error) {
	dir, err := os.MkdirTemp("", "slicewire-demo-")
	if err != nil {
		return nil, err
	}
	d := &demo{dir: dir, out: out, began: time.Now(), nodes: make(map[string]*demoNode)}
	if err := d.prepare(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return d, nil
}

// say prints a line of progress with the time since the start.
func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.out, "%6.2fs  %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

func (d *demo) run(ctx context.Context, once bool) error {
	d.say("three sites in %s: certificates signed by a new mesh CA, KubeSlice manifests unpacked", d.dir)
	if err := d.services.start(); err != nil {
		return err
	}
	started := time.Now()
	for _, site := range demoSites {
		if err := d.nodes[site].start(); err != nil {
			return err
		}
		d.say("%s: daemon started, pid %d, tunnels on udp %s", site, d.nodes[site].process.Process.Pid, d.nodes[site].tunnel)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	for _, n := range d.nodes {
		go func() {
			select {
			case <-ctx.Done():
			case <-n.done:
				cancel(fmt.Errorf("the daemon of %s ended:\n%s", n.site, n.tail()))
			}
		}()
	}
	err := d.show(ctx, started)
	if err == nil && !once {
		err = d.watch(ctx)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, context.Canceled) {
		if once {
			return errors.New("interrupted")
		}
		return nil
	}
	return err
}

// show runs the checks, one after another; the first that fails ends the demo.
func (d *demo) show(ctx context.Context, started time.Time) error {
	steps := []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"first byte", func(ctx context.Context) (string, error) { return d.firstByte(ctx, started) }},
		{"name", d.checkName},
		{"socks5", d.checkProxy},
		{"port", d.checkForward},
		{"ping", d.checkPing},
		{"isolation", d.checkIsolation},
		{"policy", d.checkPolicy},
		{"qos", d.checkQoS},
	}
	for _, s := range steps {
		said, err := s.do(ctx)
		if err != nil {
			fmt.Fprintf(d.out, "FAIL     %-10s  %v\n", s.name, err)
			return fmt.Errorf("%s: %w", s.name, err)
		}
		for i, line := range strings.Split(said, "\n") {
			if i == 0 {
				fmt.Fprintf(d.out, "ok       %-10s  %s\n", s.name, line)
			} else {
				fmt.Fprintf(d.out, "         %-10s  %s\n", "", line)
			}
		}
	}
	for _, site := range demoSites {
		s, err := newClient(d.nodes[site].socket).status(ctx)
		if err != nil {
			return fmt.Errorf("status of %s: %w", site, err)
		}
		fmt.Fprintf(d.out, "\n$ slicewire status --socket %s\n", d.nodes[site].socket)
		if err := printStatus(d.out, "table", s); err != nil {
			return err
		}
	}
	return nil
}

// close ends everything that the demo started and removes its folder.
func (d *demo) close(keep bool) error {
	var errs []error
	for _, n := range d.nodes {
		n.interrupt()
	}
	for _, site := range demoSites {
		if n := d.nodes[site]; n != nil {
			errs = append(errs, n.wait())
		}
	}
	errs = append(errs, d.services.close())
	if keep {
		fmt.Fprintf(d.out, "kept: %s\n", d.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// start runs the daemon as a process of its own, logging to a file.
func (n *demoNode) start() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log, err := os.Create(n.logFile)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	n.process = exec.Command(self, "daemon", "--config", n.config)
	n.process.Stdout, n.process.Stderr = log, log
	// Its own process group: Ctrl-C reaches only the demo, which then ends the
	// daemons in order.
	n.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := n.process.Start(); err != nil {
		return fmt.Errorf("start the daemon of %s: %w", n.site, err)
	}
	process, exited, done := n.process, make(chan error, 1), make(chan struct{})
	n.exited, n.done = exited, done // another start replaces them
	go func() { exited <- process.Wait(); close(done) }()
	return nil
}

func (n *demoNode) interrupt() {
	if n.process != nil && n.process.Process != nil {
		_ = n.process.Process.Signal(syscall.SIGTERM) // it may be gone already
	}
}

// demoStopGrace is how long a daemon may take to end: what SIGTERM promises.
const demoStopGrace = 5 * time.Second

// wait waits for the daemon to end; one that does not is killed and reported.
func (n *demoNode) wait() error {
	if n.exited == nil {
		return nil
	}
	grace := time.NewTimer(demoStopGrace)
	defer grace.Stop()
	select {
	case err := <-n.exited:
		if err != nil {
			return fmt.Errorf("the daemon of %s: %w\n%s", n.site, err, n.tail())
		}
		return nil
	case <-grace.C:
		return errors.Join(fmt.Errorf("the daemon of %s did not end within %v", n.site, demoStopGrace), n.process.Process.Kill())
	}
}

// tail returns the last lines of the daemon's log.
func (n *demoNode) tail() string {
	data, err := os.ReadFile(n.logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}

// unpackManifests writes the embedded manifests below dir, as they are.
func unpackManifests(dir string) error {
	data, err := fs.Sub(demoManifests, "demodata")
	if err != nil {
		return err
	}
	return os.CopyFS(dir, data)
}
