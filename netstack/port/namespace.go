//go:build linux

package port

import (
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
)

// A Namespace says in which network namespace: the empty one is the current
// one, digits are a process, a text with a slash is a path, anything else is a
// name as `ip netns` gives it.
type Namespace string

// path returns the file that stands for the namespace, empty for the current.
func (ns Namespace) path() string {
	switch s := string(ns); {
	case s == "", strings.Contains(s, "/"):
		return s
	case strings.Trim(s, "0123456789") == "":
		return "/proc/" + s + "/ns/net"
	default:
		return "/run/netns/" + s
	}
}

// Do calls f in the namespace, on a thread of its own if that cannot come back.
// What f opens stays in the namespace; goroutines that f starts do not.
func (ns Namespace) Do(f func() error) error {
	if ns == "" {
		return f()
	}
	done := make(chan error, 1)
	go func() { done <- ns.enter(f) }()
	return <-done
}

// enter is the whole life of a goroutine.
func (ns Namespace) enter(f func() error) (err error) {
	runtime.LockOSThread()
	back := false
	defer func() {
		if back { // else the thread ends with the goroutine
			runtime.UnlockOSThread()
		}
	}()
	home, err := netns.Get()
	if err != nil {
		back = true
		return fmt.Errorf("current network namespace: %w", err)
	}
	defer home.Close()
	there, err := netns.GetFromPath(ns.path())
	if err != nil {
		back = true
		return fmt.Errorf("network namespace %q: %w", ns, err)
	}
	defer there.Close()
	if err := netns.Set(there); err != nil {
		back = true
		return fmt.Errorf("enter network namespace %q: %w", ns, err)
	}
	err = f()
	if e := netns.Set(home); e != nil {
		return errors.Join(err, fmt.Errorf("leave network namespace %q: %w", ns, e))
	}
	back = true
	return err
}
