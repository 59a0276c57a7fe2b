package port

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"

	"slicewire/overlay"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain gives an ordinary user a user namespace in which the tests are root
// of their own networks. What is missing there is /dev/net/tun, if its mode
// says so: the pairs with a TUN are then made of the other kinds of port.
func TestMain(m *testing.M) {
	if os.Getuid() == 0 {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "as root, or where user namespaces are allowed:", err)
		os.Exit(1)
	}
}

// opener makes one kind of port.
type opener func(Namespace, Config) (*Port, error)

// mayTUN reports whether this user may open /dev/net/tun.
var mayTUN = sync.OnceValue(func() bool {
	f, err := os.OpenFile(tunDevice, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return err == nil
})

// orPacket returns a kind of TUN, or the one that needs no device.
func orPacket(o opener) opener {
	if mayTUN() {
		return o
	}
	return OpenPacket
}

// newNamespace makes an empty network namespace, which goes with the test.
func newNamespace(t testing.TB) Namespace {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNET)
		var f *os.File
		if err == nil {
			f, err = os.Open("/proc/thread-self/ns/net")
		}
		if err == nil {
			err = LoopbackUp()
		}
		c <- result{f, err}
	}()
	r := <-c
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.f.Close() })
	return Namespace(fmt.Sprintf("/proc/self/fd/%d", r.f.Fd()))
}

// A site is a namespace with a port.
type site struct {
	ns     Namespace
	port   *Port
	v4, v6 netip.Addr
}

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i := range s {
		out[i] = netip.MustParsePrefix(s[i])
	}
	return out
}

// siteConfig is the configuration of site n, 1 or 2.
func siteConfig(n int, cfg Config) Config {
	cfg.Addrs = prefixes(fmt.Sprintf("10.9.%d.1/24", n), fmt.Sprintf("fd09:%d::1/64", n))
	cfg.Routes = prefixes("10.9.0.0/16", "fd09::/16")
	return cfg
}

// join makes two sites and connects their ports, each with its pump, until the
// test ends. most gets the size of the largest packet seen.
func join(t testing.TB, one, two opener, cfg Config) (a, b *site, most *int) {
	t.Helper()
	sites := make([]*site, 2)
	for i, open := range []opener{one, two} {
		s := &site{ns: newNamespace(t)}
		c := siteConfig(i+1, cfg)
		s.v4, s.v6 = c.Addrs[0].Addr(), c.Addrs[1].Addr()
		p, err := open(s.ns, c)
		if err != nil {
			t.Fatal(err)
		}
		s.port, sites[i] = p, s
	}
	a, b = sites[0], sites[1]
	var pumps sync.WaitGroup
	var mu sync.Mutex
	most = new(int)
	pump := func(from, to *Port) {
		largest := carry(from, to)
		mu.Lock()
		*most = max(*most, largest)
		mu.Unlock()
	}
	pumps.Go(func() { pump(a.port, b.port) })
	pumps.Go(func() { pump(b.port, a.port) })
	t.Cleanup(func() {
		for _, s := range sites {
			if err := s.port.Close(); err != nil {
				t.Error(err)
			}
		}
		pumps.Wait()
		mu.Lock()
		defer mu.Unlock()
		if limit := max(cfg.MTU, 0); limit > 0 && *most > limit {
			t.Errorf("a packet of %d bytes at MTU %d", *most, limit)
		}
	})
	return a, b, most
}

// carry moves packets until from is closed and returns the size of the largest,
// or of the data in those that it stands for.
func carry(from, to *Port) (largest int) {
	bufs := make([][]byte, overlay.BatchSize)
	whole := make([][]byte, overlay.BatchSize)
	for i := range whole {
		whole[i] = make([]byte, overlay.Headroom+overlay.MaxPacket)
	}
	sizes := make([]int, overlay.BatchSize)
	for {
		n, err := from.Read(whole, sizes)
		if err != nil {
			return largest
		}
		for i := range n {
			bufs[i] = whole[i][:overlay.Headroom+sizes[i]]
			if piece := int(overlay.MetaOf(whole[i]).Piece); piece == 0 {
				largest = max(largest, sizes[i])
			} else {
				largest = max(largest, piece)
			}
		}
		if to.Write(bufs[:n]) != nil {
			return largest
		}
	}
}

// interfaces returns the names of those in ns, without lo.
func interfaces(t testing.TB, ns Namespace) (names []string) {
	t.Helper()
	err := ns.Do(func() error {
		return withNetlink(func(h *netlink.Handle) error {
			links, err := h.LinkList()
			for _, l := range links {
				if l.Attrs().Name != "lo" {
					names = append(names, l.Attrs().Name)
				}
			}
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
