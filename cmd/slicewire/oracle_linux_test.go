package main

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A kernelRouter is a network namespace that forwards between two TUNs.
type kernelRouter struct {
	t    *testing.T
	legs [2]int // descriptors
	buf  []byte
}

// newKernelRouter makes it in a thread of its own, which ends with it.
func newKernelRouter(t *testing.T) *kernelRouter {
	t.Helper()
	k := &kernelRouter{t: t, legs: [2]int{-1, -1}, buf: make([]byte, 1<<16)}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not fit for anything else
		made <- k.make()
	}()
	if err := <-made; err != nil {
		if errors.Is(err, unix.EPERM) && os.Getenv("CI") == "" {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, fd := range k.legs {
			unix.Close(fd)
		}
	})
	return k
}

func (k *kernelRouter) make() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	for i, name := range []string{"near", "far"} {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		k.legs[i] = fd
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return err
		}
	}
	script := `set -e
ip link set lo up
for d in near far; do
  ip link set $d mtu 1420 txqueuelen 1000
  echo 0 > /proc/sys/net/ipv6/conf/$d/accept_dad
  echo 0 > /proc/sys/net/ipv6/conf/$d/router_solicitations
  ip link set $d up
done
ip addr add 10.1.0.1/16 dev near; ip addr add fd00:1::1/32 dev near nodad
ip addr add 10.2.0.1/16 dev far; ip addr add fd00:2::1/32 dev far nodad
for f in near far all; do echo 0 > /proc/sys/net/ipv4/conf/$f/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/$f/send_redirects; done
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
echo 0 > /proc/sys/net/ipv4/icmp_ratelimit
echo 0 > /proc/sys/net/ipv6/icmp/ratelimit
for f in icmp_msgs_per_sec icmp_msgs_burst; do [ ! -w /proc/sys/net/ipv4/$f ] || echo 1000000000 > /proc/sys/net/ipv4/$f || true; done
`
	if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
		return errors.New(strings.TrimSpace(string(out)) + ": " + err.Error())
	}
	return nil
}

// route gives the kernel a packet by its near leg. Forwarding is done when the
// write returns, but for a moment now and then, which wait is for.
func (k *kernelRouter) route(p []byte, wait time.Duration) (near, far [][]byte) {
	_, _ = unix.Write(k.legs[0], p) // what is no IP packet is refused, which is a verdict, too
	for end := time.Now().Add(wait); ; {
		near, far = append(near, k.read(k.legs[0])...), append(far, k.read(k.legs[1])...)
		if len(near)+len(far) > 0 || time.Now().After(end) {
			return near, far
		}
		runtime.Gosched()
	}
}

// read takes what is in a leg's queue, but for what the kernel says on its own.
func (k *kernelRouter) read(fd int) (out [][]byte) {
	for {
		n, err := unix.Read(fd, k.buf)
		if err != nil || n <= 0 {
			return out
		}
		p := k.buf[:n]
		if p[0]>>4 == 6 && n >= 40 && p[24] == 0xff {
			continue // multicast listener reports
		}
		out = append(out, slices.Clone(p))
	}
}

func TestRouterAgreesWithLinux(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("a namespace with TUNs needs root here")
	}
	const seed = 9
	k := newKernelRouter(t)
	compareRouters(t, seed, packetsToTry(t, 20_000), func(p []byte, reason string, passed bool) (near, far [][]byte, skip string) {
		wait := time.Duration(0)
		switch { // then something should come
		case passed && reason == "":
			wait = 50 * time.Millisecond
		case passed && reason != "no-route":
			wait = 5 * time.Millisecond
		}
		near, far = k.route(p, wait)
		return near, far, ""
	}, excuseLinux)
}

// excuseLinux says why two verdicts may differ, or nothing.
func excuseLinux(p []byte, reason string, ours, their verdict) string {
	v4 := p[0]>>4 == 4
	answers := reason == "ttl" || reason == "no-route" || reason == "too-big"
	switch {
	case slices.Contains(stricter, reason) && ours == (verdict{}):
		return "ours is stricter: " + reason
	case answers && ours == (verdict{}) && laterFragment(p) && their.far == "":
		return "ours says nothing about later fragments"
	case reason == "no-route" && ours == (verdict{}) && their.far == "" && special(p):
		return "ours says nothing about addresses that no network has"
	case answers && ours == (verdict{}) && protocolOf(p) == 51:
		return "ours says nothing about what AH may hide"
	case v4 && reason == "no-route" && their == (verdict{}):
		return "Linux limits what it says of missing routes"
	case !v4 && (zeroHost(p[8:24]) || zeroHost(p[24:40])):
		return "to Linux it is an anycast address of its own (RFC 4291 2.6.1)"
	case !v4 && p[6] == 0:
		return "Linux reads hop-by-hop options, ours passes them on (RFC 8200 4.3)"
	case reason == "no-route" && back(p):
		return "Linux sends back by the leg it came from; ours has no way there"
	case reason == "" && ours.err == their.err && onlyASum(ours.far, their.far):
		return "a checksum"
	}
	return ""
}

// zeroHost reports whether an address is the first of one of the legs' networks.
func zeroHost(a []byte) bool { return !slices.ContainsFunc(a[4:], func(b byte) bool { return b != 0 }) }
