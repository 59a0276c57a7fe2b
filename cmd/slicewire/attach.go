package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slicewire/api"
	"slicewire/netstack/port"
	"slicewire/show"
)

func newAttachCommand(opts *clientOptions) *cobra.Command {
	var slice, netns, name, namespace string
	cmd := &cobra.Command{
		Use:   "attach [--slice SLICE] --netns PATH|PID|NAME [--name swN]",
		Short: "Put an existing network namespace on a slice",
		Long: "Makes a TUN in an existing network namespace, with addresses on the slice and routes to it.\n" +
			"The namespace and the name of the device decide the address: it is the same after a restart.\n" +
			"It stays until `slicewire detach`, or until the daemon or the slice ends. Needs root, and is for\n" +
			"root and the daemon's own user only.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			offer, err := attachNamespace(cmd.Context(), opts.socket, api.WorkloadRequest{Kind: api.WorkloadAttach, Slice: slice, Namespace: namespace, Netns: namespacePath(netns), Device: name})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is on slice %s: %v, %v\n", show.Clean(offer.Name), show.Clean(offer.Slice), offer.Address, offer.Address6)
			return err
		},
	}
	addNamespaceFlags(cmd, &slice, &netns, &name, "device to make (default: the first free of sw0, sw1, ...)")
	cmd.Flags().StringVar(&namespace, "namespace", "", namespaceFlag)
	return cmd
}

func newDetachCommand(opts *clientOptions) *cobra.Command {
	var req api.DetachRequest
	cmd := &cobra.Command{
		Use:   "detach [--slice SLICE] --netns PATH|PID|NAME [--name swN]",
		Short: "Take a network namespace off a slice",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Netns = namespacePath(req.Netns)
			return detachNamespace(cmd.Context(), opts.socket, req)
		},
	}
	addNamespaceFlags(cmd, &req.Slice, &req.Netns, &req.Device, "device to remove (default: all that were attached there)")
	return cmd
}

func addNamespaceFlags(cmd *cobra.Command, slice, netns, name *string, device string) {
	cmd.Flags().StringVar(slice, "slice", "", "slice (may be left out where the node has only one)")
	cmd.Flags().StringVar(netns, "netns", "", "network namespace: a path, a process or a name of ip-netns")
	cmd.Flags().StringVar(name, "name", "", device)
	_ = cmd.MarkFlagRequired("netns") // fails only for a flag that does not exist
}

// namespacePath is where the kernel shows the namespace: of a process, or by
// the name that ip-netns gave it, or as it says.
func namespacePath(netns string) string {
	if strings.Contains(netns, "/") {
		return filepath.Clean(netns)
	}
	if _, err := strconv.ParseUint(netns, 10, 31); err == nil {
		return filepath.Join("/proc", netns, "ns/net")
	}
	return filepath.Join("/run/netns", netns)
}

// attachNamespace makes the device with this process's rights and gives it to
// the daemon, which needs none.
func attachNamespace(ctx context.Context, socket string, req api.WorkloadRequest) (api.WorkloadOffer, error) {
	var none api.WorkloadOffer
	netns, device := req.Netns, req.Device
	if device == "" {
		if err := port.Namespace(netns).Do(func() (err error) { device, err = freeDevice(); return err }); err != nil {
			return none, explainNamespace(err)
		}
	}
	req.Device = device
	conn, err := newClient(socket).workload(ctx, req)
	if err != nil {
		return none, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.conn.SetDeadline(time.Unix(1, 0)) })()
	m, _, err := conn.receive()
	if err != nil || m.Offer == nil {
		return none, fmt.Errorf("the daemon's offer: %w", cmpErr(err, errors.New(cmp.Or(m.Error, "none"))))
	}
	file, undo, err := openGuarded(netns, portConfig(*m.Offer, device))
	if err != nil {
		_ = conn.send(linkMessage{Error: err.Error()}, nil) // the daemon frees the address
		return none, explainNamespace(err)
	}
	err = conn.send(linkMessage{Medium: mediumTUN}, file)
	file.Close()
	if err != nil {
		undo()
		return none, fmt.Errorf("pass the device: %w", err)
	}
	ready, _, err := conn.receive()
	if err != nil || !ready.Ready {
		undo()
		return none, fmt.Errorf("the daemon: %w", cmpErr(err, errors.New(cmp.Or(ready.Error, "not ready"))))
	}
	return *m.Offer, nil
}

// openGuarded makes the device in a namespace which may have other ways out:
// what is for the slice leaves by the device or not at all, also when the daemon
// and with it the device have gone. undo is for when nothing comes of it; it
// leaves the guards of a namespace that had them before.
func openGuarded(netns string, cfg port.Config) (file *os.File, undo func(), err error) {
	fresh := false
	err = port.Namespace(netns).Do(func() (err error) {
		if fresh, err = port.Guard(cfg.Routes); err == nil {
			file, err = port.OpenTUNFile(cfg)
		}
		return err
	})
	undo = func() {
		if fresh {
			_ = port.Namespace(netns).Do(port.Unguard) // what is left refuses what goes nowhere anyway
		}
	}
	if err != nil {
		undo()
	}
	return file, undo, err
}

// detachNamespace takes a namespace off its slices, and lets what was for them go
// where it went before.
func detachNamespace(ctx context.Context, socket string, req api.DetachRequest) error {
	err := newClient(socket).detach(ctx, req)
	if coded := new(exitError); err != nil && (!errors.As(err, &coded) || coded.code != exitUnreachable) {
		return err
	}
	clear := port.Namespace(req.Netns).Do(port.Unguard)
	if errors.Is(clear, fs.ErrNotExist) || errors.Is(clear, fs.ErrPermission) {
		clear = nil // the namespace has gone, or is root's alone: so are its routes
	}
	return errors.Join(err, clear)
}

// maxDevices bounds the search for a free name.
const maxDevices = 1000

// freeDevice returns the first name that no interface of the current namespace
// has.
func freeDevice() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	for i := range maxDevices {
		name := fmt.Sprintf("sw%d", i)
		if !slices.ContainsFunc(all, func(x net.Interface) bool { return x.Name == name }) {
			return name, nil
		}
	}
	return "", errors.New("no free device name: choose one with --name")
}

// explainNamespace gives what went wrong in a network namespace, or on the way
// there, the exit code it deserves.
func explainNamespace(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &exitError{exitUnreachable, err}
	case errors.Is(err, fs.ErrPermission):
		return &exitError{exitNotAllowed, fmt.Errorf("%w: attach needs root", err)}
	}
	return err
}

func (c *client) detach(ctx context.Context, req api.DetachRequest) error {
	body, err := c.do(ctx, "POST", "detach", req)
	if err != nil {
		return err
	}
	return body.Close()
}
