package main

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

func base64Of(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// procs starts processes and hears of those that end by themselves. Those that
// are not stopped go with the rig's PID namespace.
type procs struct {
	ended chan error // one each; nobody has to read them

	mu      sync.Mutex
	stopped map[*exec.Cmd]chan struct{} // closed when it has ended
}

func newProcs() *procs {
	return &procs{ended: make(chan error, 1024), stopped: make(map[*exec.Cmd]chan struct{})}
}

// stop kills a process and waits for its end.
func (p *procs) stop(cmd *exec.Cmd) error {
	ended := make(chan struct{})
	p.mu.Lock()
	p.stopped[cmd] = ended
	p.mu.Unlock()
	if err := cmd.Process.Kill(); err != nil {
		return fmt.Errorf("stop %s: %w", cmd.Path, err)
	}
	<-ended
	return nil
}

// start starts a program with a log of its own.
func (p *procs) start(logPath string, program string, args ...string) (*exec.Cmd, error) {
	cmd := exec.Command(program, args...)
	return cmd, p.startCmd(logPath, cmd)
}

func (p *procs) startCmd(logPath string, cmd *exec.Cmd) error {
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return err
	}
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	go func() { // ends with the process
		err := cmd.Wait()
		p.mu.Lock()
		stopped := p.stopped[cmd]
		delete(p.stopped, cmd)
		p.mu.Unlock()
		if stopped != nil {
			close(stopped)
			return
		}
		select {
		case p.ended <- fmt.Errorf("%s ended, see %s: %w", filepath.Base(cmd.Path), logPath, cmp.Or(err, errors.New("no error"))):
		default:
		}
	}()
	return nil
}

// runInit is process 1 of a rig. It starts the rig and takes the exit codes of
// all whose parents have gone, which is what a process 1 is for. When the rig has
// ended it ends, and the kernel everything else.
func runInit(conf string) error {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := ownMounts(); err != nil {
		return err
	}
	rig, err := os.StartProcess(self, []string{self, verbRig, conf}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return fmt.Errorf("start the rig: %w", err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil:
			return err
		case pid == rig.Pid && status.ExitStatus() == 0:
			return nil
		case pid == rig.Pid:
			os.Exit(1) // it has said why
		}
	}
}
