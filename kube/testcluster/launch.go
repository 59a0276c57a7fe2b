package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The processes of a rig are this program again.
const (
	verbInit = "internal-init"
	verbRig  = "internal-rig"
	verbNode = "internal-node"
)

// endTime is how long a rig may take to end.
const endTime = 30 * time.Second

// up runs a rig until ctx or standard input ends, and calls up when all is ready.
func up(ctx context.Context, c config, up func(ready) error) (err error) {
	began := time.Now()
	var id [4]byte
	rand.Read(id[:])
	c.Name = "tc" + hex.EncodeToString(id[:])
	if c.HostLink, err = freeHostLink(); err != nil {
		return err
	}
	for _, dir := range []string{c.state(), c.imageDir(), filepath.Join(c.Dir, "logs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := makeCgroups(c.Name); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removeCgroups(c.Name), os.Remove(c.state())) }()

	conf := filepath.Join(c.Dir, "rig.json")
	if err := writeJSON(conf, c); err != nil {
		return err
	}
	r, err := launch(conf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.end()) }()
	if err := joinHost(&c, r.cmd.Process.Pid); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leaveHost(c.Name)) }()
	if _, err := io.WriteString(r.in, "go\n"); err != nil {
		return fmt.Errorf("start the rig: %w", err)
	}
	said, err := r.ready(ctx)
	if err != nil {
		return err
	}
	said.Seconds, said.PID = time.Since(began).Seconds(), r.cmd.Process.Pid
	if err := up(said); err != nil {
		return err
	}
	closed := make(chan struct{})
	go func() { // until standard input ends, which is at the latest when this process does
		_, _ = io.Copy(r.in, os.Stdin)
		close(closed)
	}()
	go func() { _, _ = io.Copy(os.Stdout, r.out) }() // ends with the rig
	select {
	case <-ctx.Done():
	case <-closed:
	case err := <-r.exited:
		r.exited <- err
		return fmt.Errorf("the rig has ended by itself: %w", err)
	}
	return nil
}

// A launched rig ends when in is closed.
type launched struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	exited chan error // one value
}

// launch starts a rig's first process in its namespaces. It waits for a line.
func launch(conf string) (*launched, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, verbInit, conf)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWUTS,
		Pdeathsig:  syscall.SIGKILL, Setpgid: true, // a Ctrl-C is for this process alone
	}
	r := &launched{cmd: cmd, exited: make(chan error, 1)}
	if r.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r.out = bufio.NewReader(out)
	started := make(chan error)
	go func() { // ends with the rig
		// Pdeathsig is sent when the thread that started a process ends: this one
		// stays.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_, err := cmd.Process.Wait()
			r.exited <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start a rig: %w", err)
	}
	return r, nil
}

func (r *launched) ready(ctx context.Context) (ready, error) {
	type said struct {
		ready
		err error
	}
	c := make(chan said, 1)
	go func() { // ends with the rig
		var s said
		line, err := r.out.ReadBytes('\n')
		if s.err = err; err == nil {
			s.err = json.Unmarshal(line, &s.ready)
		}
		c <- s
	}()
	select {
	case s := <-c:
		if errors.Is(s.err, io.EOF) {
			s.err = errors.New("the rig did not come up")
		}
		return s.ready, s.err
	case <-ctx.Done():
		return ready{}, ctx.Err()
	}
}

func (r *launched) end() error {
	r.in.Close()
	select {
	case err := <-r.exited:
		return err
	case <-time.After(endTime):
		return errors.Join(errors.New("the rig did not end in time and was killed"), r.cmd.Process.Kill())
	}
}

// freeHostLink finds link-local addresses (RFC 3927) that no interface has.
func freeHostLink() (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	for range 100 {
		var b [2]byte
		rand.Read(b[:])
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, 1 + b[0]%250, b[1] &^ 3}), 30)
		taken := false
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok && n.Contains(net.IP(p.Addr().Next().AsSlice())) {
				taken = true
			}
		}
		if !taken {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("no free link-local addresses for the link to the rig")
}

// hostLinkName is the link's name inside the rig.
const hostLinkName = "host0"

// joinHost makes the link between the caller's network namespace and a rig's.
func joinHost(c *config, pid int) error {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: hostLinkName, PeerNamespace: netlink.NsPid(pid)}
	veth.Name = c.Name
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add the link to the rig: %w", err)
	}
	return addressed(c.Name, netip.PrefixFrom(c.hostSide(), c.HostLink.Bits()))
}

// leaveHost removes the link. It would go by itself, a while after the rig.
func leaveHost(name string) error {
	link, err := netlink.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the link to the rig: %w", err)
	}
	return netlink.LinkDel(link)
}

// addressed gives a link an address and sets it up.
func addressed(name string, p netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	addr, err := netlink.ParseAddr(p.String())
	if err != nil {
		return err
	}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // nobody else is on the rig's links, and what is tentative cannot be bound to
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		return fmt.Errorf("give %s the address %v: %w", name, p, err)
	}
	return netlink.LinkSetUp(link)
}

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies lists where cgroups are made: all of version 1, or the one of
// version 2.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, nil
	}
	dirs, err := os.ReadDir(cgroupRoot)
	var out []string
	for _, d := range dirs {
		if d.IsDir() { // the others are links to one of several names
			out = append(out, filepath.Join(cgroupRoot, d.Name()))
		}
	}
	if err == nil && len(out) == 0 {
		err = errors.New("no cgroups are mounted in " + cgroupRoot)
	}
	return out, err
}

func makeCgroups(name string) error {
	all, err := hierarchies()
	for _, h := range all {
		if err := os.MkdirAll(filepath.Join(h, name), 0o755); err != nil {
			return fmt.Errorf("make a cgroup: %w", err)
		}
		if clone := filepath.Join(h, name, "cgroup.clone_children"); strings.HasSuffix(h, "/cpuset") {
			if err := os.WriteFile(clone, []byte("1"), 0); err != nil {
				return fmt.Errorf("make a cgroup: %w", err)
			}
		}
	}
	return err
}

// removeCgroups removes a tree of cgroups. Processes that were killed a moment
// ago may be in it still.
func removeCgroups(name string) error {
	all, err := hierarchies()
	deadline := time.Now().Add(5 * time.Second)
	for _, h := range all {
		root := filepath.Join(h, name)
		for {
			var dirs []string
			_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					dirs = append(dirs, path)
				}
				return nil
			})
			for i := len(dirs) - 1; i >= 0; i-- {
				_ = os.Remove(dirs[i])
			}
			if _, gone := os.Stat(root); os.IsNotExist(gone) {
				break
			}
			if time.Now().After(deadline) {
				err = errors.Join(err, fmt.Errorf("cgroup %s is left behind", root))
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return err
}
