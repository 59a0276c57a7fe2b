package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// insideSandbox marks the process that runs in the namespaces.
const insideSandbox = "SLICEWIRE_PEERS_SANDBOX"

// sandboxRun is the folder that becomes private to the sandbox: named network
// namespaces, UAPI sockets and the run's own files live below it and vanish
// with the mount namespace.
const sandboxRun = "/run"

// inSandbox reports whether this process runs in the namespaces already.
func inSandbox() bool { return os.Getenv(insideSandbox) != "" }

// sandboxCommand returns this program, with args, in new PID, mount, network
// and, for an ordinary user, user namespaces. When the returned process ends,
// by whatever cause, the kernel kills everything that was started in it; when
// this process dies, so does the returned one. Start it from a locked thread.
func sandboxCommand(args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), insideSandbox+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // Ctrl-C reaches the parent, which passes it on
	}
	if os.Geteuid() != 0 {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	return cmd, nil
}

// runSandboxed runs this program with args in the sandbox, passes interrupts on
// to it and returns its exit code.
func runSandboxed(args []string) (int, error) {
	cmd, err := sandboxCommand(args...)
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("make the namespaces (root, or user namespaces, are needed): %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s) // it may be gone already
		case err := <-done:
			var exit *exec.ExitError
			if err != nil && !errors.As(err, &exit) {
				return 1, err
			}
			return cmd.ProcessState.ExitCode(), nil
		}
	}
}

// enterSandbox finishes the namespaces from inside: mounts that do not spread,
// a /proc that shows only what runs here, and a private /run.
func enterSandbox() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", sandboxRun, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", sandboxRun, err)
	}
	return nil
}

// untilInterrupted returns a context that ends with Ctrl-C or SIGTERM.
func untilInterrupted() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
