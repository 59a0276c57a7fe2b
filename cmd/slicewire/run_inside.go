package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/netstack/port"
)

// insideVerb is how `slicewire run` starts itself in the new namespaces; nobody
// else calls it.
const insideVerb = "run-inside"

// insideSocket is the descriptor on which the process inside speaks with the
// one outside.
const insideSocket = 3

func newRunInsideCommand() *cobra.Command {
	return &cobra.Command{
		Use: insideVerb, Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f := os.NewFile(insideSocket, "outside")
			if f == nil || os.Getpid() != 1 {
				return &exitError{exitUsage, errors.New("this verb is a part of slicewire run")}
			}
			conn, err := fileLinkConn(f)
			if err != nil {
				return err
			}
			return runInside(conn, args)
		},
	}
}

// runInside is the first process of the new namespaces. In this order:
//
//  1. it makes the slice's device and passes it outside;
//  2. the namespace gets its loopback, names and settings;
//  3. once packets flow, rights are given up and the program starts;
//  4. it passes signals on and reaps whatever loses its parent, until the
//     program ends; its own end is that of all other processes here.
func runInside(conn *linkConn, args []string) error {
	runtime.LockOSThread() // rights are given up on the thread that starts the program
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	m, _, err := conn.receive()
	if err != nil || m.Offer == nil {
		return cmpErr(err, errors.New("no offer"))
	}
	if err := furnish(conn, *m.Offer); err != nil {
		_ = conn.send(linkMessage{Error: err.Error()}, nil) // outside, it is said
		return &exitError{code: exitFailure}
	}
	ready, _, err := conn.receive()
	if err != nil || !ready.Ready {
		return &exitError{code: exitFailure} // outside has said why
	}
	conn.Close()
	path, err := exec.LookPath(args[0])
	if err != nil {
		return cannotStart(args[0], err)
	}
	if err := giveUpRights(); err != nil {
		return err
	}
	pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		Sys: &syscall.SysProcAttr{AmbientCaps: keptRights},
	})
	if err != nil {
		return cannotStart(args[0], err)
	}
	go func() {
		for s := range signals {
			if sig, ok := s.(syscall.Signal); ok && !fromTerminal(s, m.Terminal) {
				_ = syscall.Kill(pid, sig) // it may have ended
			}
		}
	}()
	return reap(pid)
}

// furnish makes the namespaces what the program should find.
func furnish(conn *linkConn, offer api.WorkloadOffer) error {
	file, medium, err := openDevice(offer, runDevice)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := port.LoopbackUp(); err != nil {
		return err
	}
	if err := ownMounts(resolvConf(offer)); err != nil {
		return err
	}
	allowEcho("/proc/sys/net/ipv4/ping_group_range", os.Getgid())
	return conn.send(linkMessage{Medium: medium}, file)
}

// cannotStart is a program that is not there or may not be started, with the
// exit code that shells give.
func cannotStart(name string, err error) error {
	code := exitNoStart
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		code = exitNotFound
	}
	return &exitError{code, fmt.Errorf("run %s: %w", name, err)}
}

// keptRights are what the program keeps inside its own namespaces, where they
// reach nothing of the host: ping and ports below 1024.
var keptRights = []uintptr{unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE}

// giveUpRights takes from this thread, and so from what it starts, every
// capability but keptRights, also as root and for good: nothing that the program
// executes gets any back.
func giveUpRights() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if c == keptRights[0] || c == keptRights[1] {
			continue
		}
		// EINVAL: this kernel has fewer.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up ambient capabilities: %w", err)
	}
	if err := keepOnly(keptRights); err != nil {
		return fmt.Errorf("give up inheritable capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	return nil
}

// keepOnly makes rights the only ones that this thread's programs inherit.
func keepOnly(rights []uintptr) error {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // 32 capabilities each
	if err := unix.Capget(&h, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	for _, c := range rights {
		data[c/32].Inheritable |= 1 << (c % 32)
	}
	return unix.Capset(&h, &data[0])
}

// reap waits for every child until pid has ended and returns its code.
func reap(pid int) error {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case got != pid:
		case ws.Signaled():
			return &exitError{code: exitSignal + int(ws.Signal())}
		case ws.ExitStatus() != 0:
			return &exitError{code: ws.ExitStatus()}
		default:
			return nil
		}
	}
}
