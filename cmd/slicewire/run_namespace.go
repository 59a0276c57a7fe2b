package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slicewire/api"
	"slicewire/netstack/port"
)

const resolvPath = "/etc/resolv.conf"

// otherResolvers are folders of the host's resolvers, whose sockets the C
// library asks before resolv.conf. They are not for programs on a slice.
var otherResolvers = []string{"/run/systemd/resolve", "/run/nscd"}

// resolvConf is what the resolver of a program on a slice reads. A name with
// one dot, service.namespace, is first looked for on the slice.
func resolvConf(offer api.WorkloadOffer) string {
	return port.ResolvConf(offer.DNS, offer.Search) + "options ndots:2 timeout:2\n"
}

// ownMounts gives the mount namespace its own /proc and resolv.conf. Nothing of
// it is seen outside, and no file is written anywhere that outlives it.
func ownMounts(resolv string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	// Refused where the host's /proc is masked, as in most containers. The old
	// one then stays, and with it the numbers that processes have outside.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	target, err := filepath.EvalSymlinks(resolvPath)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing or leads nowhere, and cannot be put in place for the program: create an empty one", resolvPath)
	}
	if err != nil {
		return err
	}
	placed := false
	for _, dir := range otherResolvers {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		if err := mountTmpfs(dir); err != nil {
			return err
		}
		if filepath.Dir(target) == dir {
			if err := os.WriteFile(target, []byte(resolv), 0o644); err != nil {
				return err
			}
			placed = true
		}
	}
	if placed {
		return nil
	}
	return overmount(target, resolv)
}

// overmount puts a file with the given text in target's place. The file lives
// in a file system in memory that is mounted on target's own folder for this
// moment: no other place is sure to be there.
func overmount(target, text string) error {
	place, err := os.OpenFile(target, unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer place.Close()
	dir := filepath.Dir(target)
	if err := mountTmpfs(dir); err != nil {
		return err
	}
	source := filepath.Join(dir, "resolv.conf")
	err = os.WriteFile(source, []byte(text), 0o644)
	if err == nil {
		err = unix.Mount(source, fmt.Sprintf("/proc/self/fd/%d", place.Fd()), "", unix.MS_BIND, "")
	}
	if err != nil {
		err = fmt.Errorf("mount over %s: %w", target, err)
	}
	return errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH))
}

func mountTmpfs(dir string) error {
	if err := unix.Mount("slicewire", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=64k"); err != nil {
		return fmt.Errorf("mount on %s: %w", dir, err)
	}
	return nil
}

// allowEcho lets the program's group open ICMP sockets, for a ping that has no
// capability of its own. Where /proc/sys is read-only it is left as it is: the
// program has CAP_NET_RAW in its namespace.
func allowEcho(path string, gid int) {
	_ = os.WriteFile(path, fmt.Appendf(nil, "%d %d", gid, gid), 0)
}

// explainNamespaces says what to do when the kernel refuses new namespaces.
// proxy, if any, is the slice's other way in.
func explainNamespaces(cause error, proxy string, read func(string) ([]byte, error)) error {
	refused := errors.Is(cause, unix.EPERM) || errors.Is(cause, unix.EACCES) || errors.Is(cause, unix.ENOSPC) || errors.Is(cause, unix.EINVAL) || errors.Is(cause, unix.EUSERS)
	if !refused {
		return fmt.Errorf("new namespaces: %w", cause)
	}
	advice := "a container's or system's policy forbids it"
	for _, s := range []struct{ name, bad, good string }{
		{"user.max_user_namespaces", "0", "10000"},
		{"kernel.unprivileged_userns_clone", "0", "1"},
		{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
	} {
		value, err := read("/proc/sys/" + strings.ReplaceAll(s.name, ".", "/"))
		if err == nil && strings.TrimSpace(string(value)) == s.bad {
			advice = fmt.Sprintf("as root: sysctl -w %s=%s", s.name, s.good)
			break
		}
	}
	other := "set proxy: for the slice in the node file and use that"
	if proxy != "" {
		other = "use the slice's proxy at " + proxy
	}
	return &exitError{exitNotAllowed, fmt.Errorf("this user may not make the namespaces that run needs (%w): %s; or %s", cause, advice, other)}
}
