package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"slicewire/api"
)

// Exit codes of `slicewire run` beside those of its program, which it passes on
// (128 and the signal's number for one that a signal ended).
const (
	exitLost     = 75  // the daemon or the slice ended during the run
	exitNoStart  = 126 // the program is there and cannot be started
	exitNotFound = 127
	exitSignal   = 128
)

// runEndGrace is how long a program may take to end by SIGTERM once its slice
// is gone; then it is killed.
const runEndGrace = 3 * time.Second

// errLost says that the attachment ended during a run.
var errLost = errors.New("the slice is gone and the program was ended")

const namespaceFlag = "Kubernetes namespace it is in, for policies (not needed where the slice has one at this site)"

func newRunCommand(opts *clientOptions) *cobra.Command {
	var slice, name, namespace string
	cmd := &cobra.Command{
		Use:   "run [--slice SLICE] [--name NAME] -- COMMAND [ARG...]",
		Short: "Run a program on a slice: own address, names, UDP, ICMP, incoming connections",
		Long: "Runs a program in a network namespace of its own whose only network is the slice. It needs\n" +
			"no privilege: only a kernel that lets users make namespaces, and a place among those who may\n" +
			"connect to the daemon's socket. The program has an overlay address of its own, the slice's\n" +
			"names, UDP, ICMP and ports below 1024; it sees neither the host's interfaces nor its loopback.\n" +
			"With --name it finds the same address every time, while nobody else has it.\n\n" +
			"The program keeps user, folder, files, terminal and environment. Signals are passed on; those\n" +
			"that a terminal sends reach it directly. When it ends, so does all that it started.\n\n" +
			"Exit code: the program's own; 128+N when signal N ended it; 126 when it cannot be started and\n" +
			"127 when there is none; 75 when the daemon or the slice ended during the run; before that 4 for\n" +
			"a slice that is not there, 5 when this user may not, 7 without a daemon and 1 for the rest.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			req := api.WorkloadRequest{Kind: api.WorkloadRun, Slice: slice, Name: name, Namespace: namespace, Command: filepath.Base(args[0]), Device: runDevice}
			code, err := runProgram(cmd.Context(), opts.socket, req, args, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if code != 0 {
				return &exitError{code: code}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&slice, "slice", "", "slice (may be left out where the node has only one)")
	cmd.Flags().StringVar(&name, "name", "", "name in status; the same name finds the same address")
	cmd.Flags().StringVar(&namespace, "namespace", "", namespaceFlag)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// runDevice is the name of the interface that a run's program sees.
const runDevice = "sw0"

// runProgram runs one program on a slice and returns its exit code. This
// process stays outside the new namespaces, holds the connection that is the
// attachment's life, passes signals on and waits. It cannot become the program
// itself: a process with more than one thread, as every Go process is, may not
// enter a new user namespace.
func runProgram(ctx context.Context, socket string, req api.WorkloadRequest, args []string, stderr io.Writer) (int, error) {
	// The process inside is killed when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	conn, err := newClient(socket).workload(ctx, req)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	offer, _, err := conn.receive()
	if err != nil || offer.Offer == nil {
		return 0, fmt.Errorf("the daemon's offer: %w", cmpErr(err, errors.New(cmp.Or(offer.Error, "none"))))
	}
	terminal := inForeground()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	cmd, inside, err := startInside(args)
	if err != nil {
		return 0, explainNamespaces(err, offer.Offer.Proxy, os.ReadFile)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	err = handOver(conn, inside, linkMessage{Offer: offer.Offer, Terminal: terminal})
	inside.Close()
	if err != nil {
		_ = cmd.Process.Kill() // it may have ended
		<-ended                //nolint:errcheck // it was killed
		return 0, fmt.Errorf("run on slice %s: %w", offer.Offer.Slice, err)
	}
	lost := make(chan string, 1)
	hung := make(chan struct{})
	go func() {
		defer close(hung)
		m, _, err := conn.receive()
		if err == nil {
			lost <- m.Error
			return
		}
		lost <- "the daemon is gone"
	}()
	code, err := accompany(cmd.Process, ended, lost, signals, terminal)
	// The daemon hangs up when the name and the address are free again.
	_ = conn.conn.SetReadDeadline(time.Now().Add(leavePatience)) // it may have ended
	_ = conn.conn.CloseWrite()
	<-hung
	return code, err
}

// leavePatience is how long a run waits for the daemon to forget it.
const leavePatience = 2 * time.Second

// startInside starts this program anew as the first process of new user,
// network, mount and process namespaces, with a socket to speak to it. Killing
// it ends all that is in them, and it is killed when this process ends, however
// that happens.
func startInside(args []string) (*exec.Cmd, *linkConn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", append([]string{insideVerb, "--"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs} // insideSocket
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		// A user who is not root keeps these across the exec only as ambient ones.
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN, unix.CAP_SETPCAP},
		Pdeathsig:   syscall.SIGKILL,
	}
	if err := cmd.Start(); err != nil {
		ours.Close()
		return nil, nil, err
	}
	return cmd, ours, nil
}

func socketPair() (*linkConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, err := fileLinkConn(os.NewFile(uintptr(fds[0]), "inside"))
	theirs := os.NewFile(uintptr(fds[1]), "outside")
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// fileLinkConn makes a linkConn of a socket's file, which it closes.
func fileLinkConn(f *os.File) (*linkConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	uc, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), conn.Close())
	}
	return &linkConn{conn: uc}, nil
}

// handOver has the process inside make the device, gives that to the daemon
// and says inside that packets flow.
func handOver(daemon, inside *linkConn, offer linkMessage) error {
	if err := inside.send(offer, nil); err != nil {
		return fmt.Errorf("new namespaces: %w", err)
	}
	m, file, err := inside.receive()
	if err != nil {
		return fmt.Errorf("device: %w", err)
	}
	if file == nil {
		return fmt.Errorf("device: %s", cmp.Or(m.Error, "none was made"))
	}
	err = daemon.send(linkMessage{Medium: m.Medium}, file)
	file.Close()
	if err != nil {
		return fmt.Errorf("pass the device: %w", err)
	}
	ready, _, err := daemon.receive()
	if err != nil || !ready.Ready {
		return fmt.Errorf("the daemon: %w", cmpErr(err, errors.New(cmp.Or(ready.Error, "not ready"))))
	}
	return inside.send(linkMessage{Ready: true}, nil)
}

// accompany passes signals on until the program has ended, and ends it when
// its slice is lost.
func accompany(p *os.Process, ended <-chan error, lost <-chan string, signals <-chan os.Signal, terminal bool) (int, error) {
	var why error
	var kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			if why != nil {
				return 0, why
			}
			return programCode(err)
		case s := <-signals:
			if !fromTerminal(s, terminal) {
				_ = p.Signal(s) // it may have ended
			}
		case text := <-lost:
			lost = nil
			why = &exitError{exitLost, fmt.Errorf("%w: %s", errLost, cmp.Or(text, "no reason given"))}
			_ = p.Signal(syscall.SIGTERM)
			grace := time.NewTimer(runEndGrace)
			defer grace.Stop()
			kill = grace.C
		case <-kill:
			_ = p.Kill() // and with it everything in its namespaces
		}
	}
}

// programCode is the exit code that the process inside has passed on.
func programCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case !errors.As(err, &exit):
		return 0, err
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return exitSignal + int(ws.Signal()), nil
	}
	return exit.ExitCode(), nil
}

// workload asks for a place on a slice; the connection then carries
// linkMessages.
func (c *client) workload(ctx context.Context, req api.WorkloadRequest) (*linkConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.path)
	if err != nil {
		return nil, c.explain(err)
	}
	fail := func(err error) (*linkConn, error) { return nil, errors.Join(err, conn.Close()) }
	body, err := json.Marshal(req)
	if err != nil {
		return fail(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://slicewire/v1/workload", bytes.NewReader(body))
	if err != nil {
		return fail(err)
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", upgradeName)
	if err := r.Write(conn); err != nil {
		return fail(c.explain(err))
	}
	buffered := bufio.NewReader(conn)
	resp, err := http.ReadResponse(buffered, r)
	if err != nil {
		return fail(c.explain(err))
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		return fail(refusal(resp))
	}
	ahead, err := buffered.Peek(buffered.Buffered()) // the offer may be there already
	if err != nil {
		return fail(err)
	}
	return &linkConn{conn: conn.(*net.UnixConn), buf: bytes.Clone(ahead)}, nil
}
