package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/kube/cni"
	"slicewire/netstack/port"
)

// asPlugin reports whether a container runtime has started this program: under
// the plugin's name, or with a command of the interface in the environment and
// nothing else said.
func asPlugin(args []string) bool {
	return filepath.Base(args[0]) == cni.Type || len(args) == 1 && os.Getenv("CNI_COMMAND") != ""
}

// runPlugin is the plugin as a runtime starts it.
func runPlugin(ctx context.Context, socket string) int {
	open := func(configured string) cni.Daemon {
		if configured != "" {
			return &podDaemon{configured}
		}
		return &podDaemon{socket}
	}
	return cni.Run(ctx, open, "slicewire "+versionString()+": puts containers on slices")
}

// podDaemon is the daemon as the plugin needs it, by its socket.
type podDaemon struct{ socket string }

// away names an error for the plugin when there is no daemon.
func away(err error) error {
	if coded := new(exitError); errors.As(err, &coded) && coded.code == exitNoDaemon {
		return fmt.Errorf("%w: %w", cni.ErrAway, err)
	}
	return err
}

func (d *podDaemon) State(ctx context.Context) (cni.State, error) {
	s, err := newClient(d.socket).status(ctx)
	if err != nil {
		return cni.State{}, away(err)
	}
	return podState(&s), nil
}

// podState is what the plugin wants of a status.
func podState(s *api.Status) cni.State {
	out := cni.State{Cordoned: s.Cordoned}
	for i := range s.Slices {
		x := &s.Slices[i]
		out.Slices = append(out.Slices, cni.Slice{Name: x.Name, Namespaces: x.Namespaces, Allowed: x.Allowed})
		for _, w := range x.Workloads {
			if w.Kind == api.WorkloadAttach {
				out.Attached = append(out.Attached, cni.Attached{Slice: x.Name, Netns: w.Netns, Device: w.Device, Address: w.Address})
			}
		}
	}
	return out
}

func (d *podDaemon) Attach(ctx context.Context, r cni.Request) (cni.Place, error) {
	req := api.WorkloadRequest{Kind: api.WorkloadAttach, Slice: r.Slice, Namespace: r.Namespace, Netns: r.Netns, Device: r.Device, Address: r.Address}
	if r.Pod != "" {
		req.Command = "pod " + r.Pod
	}
	offer, err := attachNamespace(ctx, d.socket, req)
	if err != nil {
		return cni.Place{}, away(err)
	}
	return cni.Place{Slice: offer.Slice, Address: offer.Address, Address6: offer.Address6, MTU: offer.MTU, Routes: portConfig(offer, r.Device).Routes}, nil
}

func (d *podDaemon) Detach(ctx context.Context, slice, netns, device string) error {
	err := detachNamespace(ctx, d.socket, api.DetachRequest{Slice: slice, Netns: netns, Device: device})
	if coded := new(exitError); errors.As(err, &coded) && coded.code == exitUnreachable {
		return nil
	}
	return away(err)
}

func (d *podDaemon) Present(netns, device string, want ...netip.Addr) error {
	return port.Namespace(netns).Do(func() error {
		link, err := net.InterfaceByName(device)
		if err != nil {
			return fmt.Errorf("interface %s in %s: %w", device, netns, err)
		}
		have, err := link.Addrs()
		if err != nil {
			return fmt.Errorf("addresses of %s: %w", device, err)
		}
		for _, a := range want {
			if !slices.ContainsFunc(have, func(x net.Addr) bool { p, err := netip.ParsePrefix(x.String()); return err == nil && p.Addr() == a }) {
				return fmt.Errorf("interface %s in %s has no address %v", device, netns, a)
			}
		}
		return nil
	})
}

func newCNICommand(opts *clientOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cni",
		Short: "Put pods on slices as container runtimes ask for it (CNI)",
		Long: "Without a verb it is the plugin of the Container Network Interface: a runtime starts it, with CNI_COMMAND\n" +
			"and what belongs to it in the environment and the network's configuration on standard input. The same\n" +
			"program under the name " + cni.Type + " is the plugin, too.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if code := runPlugin(cmd.Context(), opts.socket); code != 0 {
				return &exitError{code: code} // said on standard output, as the specification wants it
			}
			return nil
		},
	}
	cmd.AddCommand(newCNIKeepCommand(opts), newCNIUninstallCommand())
	return cmd
}

// A cniKeep is one `slicewire cni keep`.
type cniKeep struct {
	state, confDir, binDir, socket string
	stay                           bool
}

func newCNIKeepCommand(opts *clientOptions) *cobra.Command {
	var k cniKeep
	cmd := &cobra.Command{
		Use:   "keep [--conf-dir DIR] [--bin-dir DIR]",
		Short: "Install the plugin on this node, and put pods back on their slices after the daemon was restarted",
		Long: "Runs on a node, as root, as long as pods there are to be on slices. Once the daemon answers it puts this\n" +
			"program into --bin-dir as " + cni.Type + " and the plugin at the end of the first network in --conf-dir, and\n" +
			"again whenever it is gone from there. When it ends the plugin is taken out, unless --stay.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return k.run(ctx, opts.socket, slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil)))
		},
	}
	f := cmd.Flags()
	f.StringVar(&k.state, "state", cni.DefaultState, "folder of the records of attached pods, as the plugin has it")
	f.StringVar(&k.confDir, "conf-dir", "", "folder of the node's network configurations (/etc/cni/net.d); empty: none is changed")
	f.StringVar(&k.binDir, "bin-dir", "", "folder of the node's plugins (/opt/cni/bin); empty: none is put there")
	f.StringVar(&k.socket, "node-socket", "", "the daemon's socket as the node sees it (default: --socket)")
	f.BoolVar(&k.stay, "stay", false, "leave the plugin installed at the end")
	return cmd
}

func (k *cniKeep) run(ctx context.Context, socket string, log *slog.Logger) error {
	if k.socket == "" {
		k.socket = socket
	}
	failing := false
	install := func() {
		wrote, err := k.install()
		if wrote {
			log.Info("plugin installed", "folder", k.confDir)
		}
		if err != nil && !failing {
			log.Warn("plugin not installed", "err", err)
		}
		failing = err != nil
	}
	keeper := cni.Keeper{State: k.state, Daemon: &podDaemon{socket}, Log: log, Ready: install}
	err := keeper.Run(ctx)
	if k.confDir == "" || k.stay {
		return err
	}
	return errors.Join(err, cni.Uninstall(k.confDir))
}

// install puts the program in place before a configuration names it.
func (k *cniKeep) install() (wrote bool, err error) {
	if k.binDir != "" {
		if err := installProgram(filepath.Join(k.binDir, cni.Type)); err != nil {
			return false, err
		}
	}
	if k.confDir == "" {
		return false, nil
	}
	return cni.Install(k.confDir, map[string]any{"socket": k.socket, "state": k.state})
}

// installProgram copies this program unless one of the same size and age is
// there.
func installProgram(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	mine, err := os.Stat(self)
	if err != nil {
		return err
	}
	if there, err := os.Stat(to); err == nil && there.Size() == mine.Size() && there.ModTime().Equal(mine.ModTime()) {
		return nil
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	tmp := to + ".new" // in the same folder, so that it can be moved
	err = errors.Join(os.WriteFile(tmp, data, 0o755), os.Chtimes(tmp, mine.ModTime(), mine.ModTime()))
	if err == nil {
		err = os.Rename(tmp, to)
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("install the plugin: %w", err)
	}
	return nil
}

func newCNIUninstallCommand() *cobra.Command {
	var confDir, binDir string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take the plugin out of a node's networks",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			err := cni.Uninstall(confDir)
			if rm := os.Remove(filepath.Join(binDir, cni.Type)); !errors.Is(rm, os.ErrNotExist) {
				err = errors.Join(err, rm)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&confDir, "conf-dir", "/etc/cni/net.d", "folder of the node's network configurations")
	cmd.Flags().StringVar(&binDir, "bin-dir", "/opt/cni/bin", "folder of the node's plugins")
	return cmd
}
