package main

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that reach a run's program as if it had been started
// without slicewire. SIGTSTP and SIGCONT are not among them: a terminal sends
// them to the program directly, and stops this process too, as it should.
var passedOn = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
}

// fromTerminal reports whether a terminal has sent s to the program as well,
// which then gets it once and not twice. terminal says that this process is in
// the terminal's foreground group, as then is the program.
func fromTerminal(s os.Signal, terminal bool) bool {
	return terminal && slices.Contains([]os.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH}, s)
}

// inForeground reports whether this process is in the foreground group of its
// terminal.
func inForeground() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return false // no terminal
	}
	defer tty.Close()
	group, err := unix.IoctlGetInt(int(tty.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
