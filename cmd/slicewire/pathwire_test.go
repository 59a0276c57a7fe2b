package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"slicewire/bench/lab"
	"slicewire/netstack/port"
)

// A wired underlay has every node in a network namespace of its own. All that
// connects them is a TUN in each, whose packets a lab.Wire carries: tunnels,
// gossip and joining.
type wired struct {
	t      *testing.T
	wire   *lab.Wire
	spaces map[*labNode]port.Namespace
	addrs  map[*labNode]netip.Addr
	files  []*os.File
	cancel func()
	ended  chan error

	mu     sync.Mutex // guards what follows
	normal lab.Policy
	broken map[[2]netip.Addr]bool // from, to
}

// Ports in namespaces are nobody else's.
const (
	wiredTunnel = 51820
	wiredGossip = 7946
	wiredProxy  = 1080
)

// inOwnNamespaces reports whether the test may make network namespaces; else it
// runs it where it may, and reports its failure here.
func inOwnNamespaces(t *testing.T) bool { return os.Getuid() == 0 || inNamespaces(t) }

// newWired returns an underlay whose links are all alike.
func newWired(t *testing.T, link lab.Link) *wired {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed of the wire: %d", seed)
	w := &wired{
		t: t, wire: lab.NewWire(seed, []byte(canary)), spaces: make(map[*labNode]port.Namespace), addrs: make(map[*labNode]netip.Addr),
		ended: make(chan error, 1), normal: lab.Everywhere(link), broken: make(map[[2]netip.Addr]bool),
	}
	w.wire.Set(w.normal)
	return w
}

func (w *wired) lay(nodes []*labNode) {
	w.t.Helper()
	for i, n := range nodes {
		addr := netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})
		w.addrs[n], w.spaces[n] = addr, w.namespace()
		n.tunnel = fmt.Sprintf("%v:%d", addr, wiredTunnel)
		n.gossip = fmt.Sprintf("%v:%d", addr, wiredGossip)
		n.proxy = fmt.Sprintf("127.0.0.1:%d", wiredProxy)
		n.advertise = n.tunnel
		open := port.OpenTUN
		if syscall.Access("/dev/net/tun", 6) != nil {
			open = port.OpenPacket
		}
		p, err := open(w.spaces[n], port.Config{Name: "wire0", MTU: 1500, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}})
		if err != nil {
			w.t.Fatal(err)
		}
		if err := w.wire.Plug(addr, p); err != nil {
			w.t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	go func() { w.ended <- w.wire.Run(ctx) }()
}

// namespace makes an empty network namespace that goes with the underlay.
func (w *wired) namespace() port.Namespace {
	w.t.Helper()
	var f *os.File
	var err error
	var wait sync.WaitGroup
	wait.Go(func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		if err = syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return
		}
		if f, err = os.Open("/proc/thread-self/ns/net"); err == nil {
			err = port.LoopbackUp()
		}
	})
	wait.Wait()
	if err != nil {
		w.t.Fatal(err)
	}
	w.files = append(w.files, f)
	return port.Namespace(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

func (w *wired) do(n *labNode, f func() error) error { return w.spaces[n].Do(f) }

func (w *wired) cut(from, to *labNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken[[2]netip.Addr{w.addrs[from], w.addrs[to]}] = true
	w.setLocked()
}

// part cuts the links between these nodes and all others, both ways.
func (w *wired) part(side ...*labNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	in := make(map[*labNode]bool)
	for _, n := range side {
		in[n] = true
	}
	for n, from := range w.addrs {
		for o, to := range w.addrs {
			if in[n] != in[o] {
				w.broken[[2]netip.Addr{from, to}] = true
			}
		}
	}
	w.setLocked()
}

// heal ends all cuts.
func (w *wired) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.broken)
	w.setLocked()
}

func (w *wired) setLocked() {
	broken := make(map[[2]netip.Addr]bool, len(w.broken))
	for way := range w.broken {
		broken[way] = true
	}
	w.wire.Set(func(from, to netip.Addr) lab.Link {
		l := w.normal(from, to)
		l.Cut = l.Cut || broken[[2]netip.Addr{from, to}]
		return l
	})
}

func (w *wired) close() {
	if w.cancel == nil {
		return
	}
	c := w.wire.Counts()
	w.cancel()
	if err := <-w.ended; err != nil {
		w.t.Errorf("the wire: %v", err)
	}
	for _, f := range w.files {
		f.Close()
	}
	if c.Canaries > 0 {
		w.t.Errorf("%d of %d packets on the wire had the canary in them", c.Canaries, c.Packets)
	}
	if c.Packets == 0 || c.Full > 0 {
		w.t.Errorf("the wire: %+v", c)
	}
}

// theUsual is a link of 20 ms, 5 ms more or less, that loses 1 %.
var theUsual = lab.Link{Delay: 15 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.01}
