package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// netnsDir is where ip keeps the names of network namespaces.
const netnsDir = sandboxRun + "/netns/"

// underlayMTU is that of the Internet and of most clouds between sites.
const underlayMTU = 1500

// relayCongestion is what sockets use that choose nothing: programs that relay,
// and curl. RENO is the one that every kernel lets every namespace choose.
const relayCongestion = "reno"

// Addresses of the two sites on the underlay.
const (
	underlayA = "10.99.0.1"
	underlayB = "10.99.0.2"
)

// A lab holds what one system needs while it is measured: namespaces, links,
// daemons and files. close ends and removes all of it. One goroutine at a time
// uses a lab; several labs may be used at once.
type lab struct {
	tag     string // before the names of its namespaces, which others have as well
	dir     string // for configuration, keys and logs
	spaces  []string
	daemons []*daemon // in the order of their start: the system's and the probes'
}

// newLab makes an empty lab. It runs in the sandbox only. Labs that exist at the
// same time have different tags.
func newLab(tag string) (*lab, error) {
	dir, err := os.MkdirTemp(sandboxRun, "lab")
	if err != nil {
		return nil, err
	}
	return &lab{tag: tag, dir: dir}, nil
}

// path returns the path of a file of the lab.
func (l *lab) path(name string) string { return filepath.Join(l.dir, name) }

// netns returns the path of a namespace of the lab.
func (l *lab) netns(space string) string { return netnsDir + l.tag + space }

// write writes a file of the lab and returns its path.
func (l *lab) write(name, content string) (string, error) {
	path := l.path(name)
	return path, os.WriteFile(path, []byte(content), 0o600)
}

// space makes a network namespace with loopback up and the congestion control
// of relaying sockets set, so that no system depends on the machine's default.
func (l *lab) space(names ...string) error {
	for _, name := range names {
		if err := run("ip", "netns", "add", l.tag+name); err != nil {
			return err
		}
		l.spaces = append(l.spaces, name)
		if err := l.ip(name, "link", "set", "lo", "up"); err != nil {
			return err
		}
		if err := l.setting(name, "net/ipv4/tcp_congestion_control", relayCongestion); err != nil {
			return err
		}
	}
	return nil
}

// adopt gives a name to the network namespace that the youngest descendant of a
// process is in, so that the probes can be started there.
func (l *lab) adopt(name string, pid int) error {
	for {
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
		if err != nil {
			return err
		}
		f := strings.Fields(string(children))
		if len(f) == 0 {
			break
		}
		if pid, err = strconv.Atoi(f[len(f)-1]); err != nil {
			return err
		}
	}
	if err := run("ip", "netns", "attach", l.tag+name, strconv.Itoa(pid)); err != nil {
		return err
	}
	l.spaces = append(l.spaces, name)
	return l.setting(name, "net/ipv4/tcp_congestion_control", relayCongestion)
}

// link joins two namespaces by a veth pair and gives each end its address.
func (l *lab) link(a, addrA, b, addrB string) error {
	return l.linkMTU(a, addrA, b, addrB, underlayMTU)
}

// linkMTU is link with another MTU than the underlay's.
func (l *lab) linkMTU(a, addrA, b, addrB string, mtu int) error {
	devA, devB := "to-"+b, "to-"+a
	if err := run("ip", "link", "add", devA, "netns", l.tag+a, "type", "veth", "peer", "name", devB, "netns", l.tag+b); err != nil {
		return err
	}
	return errors.Join(l.address(a, devA, addrA, mtu), l.address(b, devB, addrB, mtu))
}

// address gives a device its address and MTU and sets it up.
func (l *lab) address(space, dev, addr string, mtu int) error {
	return errors.Join(
		l.ip(space, "addr", "add", addr, "dev", dev),
		l.ip(space, "link", "set", dev, "mtu", fmt.Sprint(mtu), "up"))
}

// forwarding lets the kernel of a namespace pass packets on.
func (l *lab) forwarding(spaces ...string) error {
	for _, s := range spaces {
		if err := l.setting(s, "net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
	}
	return nil
}

// setting writes a sysctl of a namespace.
func (l *lab) setting(space, name, value string) error {
	_, err := output(inside(context.Background(), l.tag+space, "sh", "-c", `echo "$1" > "/proc/sys/$0"`, name, value))
	return err
}

func (l *lab) ip(space string, args ...string) error {
	return run("ip", append([]string{"-n", l.tag + space}, args...)...)
}

// sites makes the two sites and the underlay between them.
func (l *lab) sites() error {
	if err := l.space("a", "b"); err != nil {
		return err
	}
	return l.link("a", underlayA+"/24", "b", underlayB+"/24")
}

// inside returns a command that runs in a namespace, named with its lab's tag.
// nsenter becomes the program: its process is the program's.
func inside(ctx context.Context, space, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + netnsDir + space, "--", name}, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// run runs a command to its end; its error names the command and what it said.
func run(name string, args ...string) error {
	_, err := output(exec.Command(name, args...))
	return err
}

// output runs cmd and returns its standard output; its error says what the
// command printed.
func output(cmd *exec.Cmd) ([]byte, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(errs.String() + out.String())
		if len(said) > 600 {
			said = said[:600]
		}
		return out.Bytes(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, said)
	}
	return out.Bytes(), nil
}

// A daemon is a process of the lab that runs until it is stopped.
type daemon struct {
	name    string
	cmd     *exec.Cmd
	logFile string
	done    chan struct{} // closed when it has ended
}

// start starts a program in a namespace.
func (l *lab) start(space, name string, argv ...string) (*daemon, error) {
	return l.startEnv(nil, space, name, argv...)
}

// startEnv is start with additions to the environment.
func (l *lab) startEnv(env []string, space, name string, argv ...string) (*daemon, error) {
	d := &daemon{name: name, logFile: l.path(name + ".log"), done: make(chan struct{})}
	log, err := os.Create(d.logFile)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own descriptor
	d.cmd = inside(context.Background(), l.tag+space, argv[0], argv[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(os.Environ(), env...)
	if err := d.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = d.cmd.Wait(); close(d.done) }() // how it ended is in its log
	l.daemons = append(l.daemons, d)
	return d, nil
}

func (d *daemon) pid() int { return d.cmd.Process.Pid }

func (d *daemon) ended() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

// tail returns the last lines of the daemon's log.
func (d *daemon) tail() string {
	data, err := os.ReadFile(d.logFile)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

// stopGrace is how long a daemon may take to end before it is killed.
const stopGrace = 3 * time.Second

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	grace := time.NewTimer(stopGrace)
	defer grace.Stop()
	select {
	case <-d.done:
	case <-grace.C:
		_ = d.cmd.Process.Kill()
		<-d.done
	}
}

// anyEnded names a daemon that ended although nobody stopped it.
func (l *lab) anyEnded() error {
	for _, d := range l.daemons {
		if d.ended() {
			return fmt.Errorf("%s ended:\n%s", d.name, d.tail())
		}
	}
	return nil
}

// logs returns the tails of all logs, for an error.
func (l *lab) logs() string {
	var b strings.Builder
	for _, d := range l.daemons {
		fmt.Fprintf(&b, "--- %s\n%s\n", d.name, d.tail())
	}
	return b.String()
}

// close ends all daemons, last first, and removes namespaces and files.
func (l *lab) close() error {
	for i := len(l.daemons) - 1; i >= 0; i-- {
		l.daemons[i].stop()
	}
	var errs []error
	for _, s := range l.spaces {
		errs = append(errs, run("ip", "netns", "del", l.tag+s))
	}
	return errors.Join(append(errs, os.RemoveAll(l.dir))...)
}

// poll asks again and again until ok says yes or ctx ends.
func poll(ctx context.Context, every time.Duration, ok func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		yes, err := ok()
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
