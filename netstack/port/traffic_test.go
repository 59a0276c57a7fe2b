package port

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"slicewire/overlay/overlaytest"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should take milliseconds, on a machine that is busy with others.
const patience = 60 * time.Second

func TestTwoNamespacesThroughTwoPorts(t *testing.T) {
	for _, c := range []struct {
		name     string
		one, two opener
	}{
		{"tun and tun", orPacket(OpenTUN), orPacket(OpenTUN)},
		{"tun and packet socket", orPacket(OpenTUN), OpenPacket},
		{"packet socket and packet socket", OpenPacket, OpenPacket},
		{"portable and tun", orPacket(OpenPortable), orPacket(OpenTUN)},
		{"tap and tun", orPacket(OpenTAP), orPacket(OpenTUN)},
	} {
		for _, offload := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, offload %v", c.name, offload), func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				t.Run("", func(t *testing.T) {
					a, b, _ := join(t, c.one, c.two, Config{Offload: offload, MTU: 1400})
					for _, to := range []netip.Addr{b.v4, b.v6} {
						pingOnce(t, a.ns, to)
						transfer(t, a.ns, b.ns, to, 4<<20)
						datagrams(t, a.ns, b.ns, to)
					}
					transfer(t, b.ns, a.ns, a.v4, 4<<20)
					transfer(t, b.ns, a.ns, a.v6, 4<<20)
					for _, s := range []*site{a, b} {
						// No refusal on the way: what was joined was taken.
						if tcp, udp := s.port.Offloads(); tcp != s.port.frame.vnet || udp != tcp {
							t.Errorf("%s: offloads: TCP %v, UDP %v", s.port.Name(), tcp, udp)
						}
						drops := s.port.Drops().Snapshot()
						for _, reason := range []string{"malformed", "too-big", "send-error", "protocol"} {
							if drops[reason] != 0 {
								t.Errorf("%s: lost packets: %v", s.port.Name(), drops)
							}
						}
					}
				})
			})
		}
	}
}

// A stream of 64 MiB in each direction at once, over IPv4 one way and IPv6 the
// other.
func TestBulkBothWays(t *testing.T) {
	a, b, _ := join(t, orPacket(OpenTUN), OpenPacket, Config{Offload: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		transfer(t, b.ns, a.ns, a.v6, 64<<20)
	}()
	transfer(t, a.ns, b.ns, b.v4, 64<<20)
	<-done
}

// transfer sends size bytes from one namespace to an address in another and
// compares their digests.
func transfer(t testing.TB, from, to Namespace, addr netip.Addr, size int64) {
	t.Helper()
	var l net.Listener
	err := to.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	type result struct {
		n   int64
		sum []byte
		err error
	}
	got := make(chan result, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		h := sha256.New()
		n, err := io.Copy(h, c)
		got <- result{n, h.Sum(nil), err}
	}()
	var c net.Conn
	err = from.Do(func() (err error) {
		c, err = (&net.Dialer{Timeout: patience}).Dial("tcp", l.Addr().String())
		return err
	})
	if err != nil {
		t.Error(err)
		l.Close()
		<-got
		return
	}
	c.SetDeadline(time.Now().Add(patience))
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8([32]byte{7}), size)
	c.Close()
	r := <-got
	if err := errors.Join(err, r.err); err != nil || r.n != size || !bytes.Equal(r.sum, h.Sum(nil)) {
		t.Errorf("to %v: %d of %d bytes, digests equal %v, %v", addr, r.n, size, bytes.Equal(r.sum, h.Sum(nil)), err)
	}
}

// datagrams sends super-packets of datagrams, which the kernel or the port has
// to cut, and expects each datagram as it was.
func datagrams(t testing.TB, from, to Namespace, addr netip.Addr) {
	t.Helper()
	const size, perSend, sends = 1200, 16, 8
	var server, client net.PacketConn
	err := to.Do(func() (err error) {
		server, err = net.ListenPacket("udp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	err = from.Do(func() (err error) {
		client, err = net.ListenPacket("udp", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := client.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	rng := rand.NewChaCha8([32]byte{9})
	buf := make([]byte, 2*size)
	for i := range sends {
		msg := make([]byte, size*perSend-i*100) // the last datagram is shorter
		rng.Read(msg)
		if _, err := client.WriteTo(msg, server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(patience))
		for k := 0; len(msg) > 0; k++ {
			n, _, err := server.ReadFrom(buf)
			want := msg[:min(size, len(msg))]
			if err != nil || !bytes.Equal(buf[:n], want) {
				t.Fatalf("to %v: send %d datagram %d: %d bytes of %d, %v", addr, i, k, n, len(want), err)
			}
			msg = msg[len(want):]
		}
	}
}

// pingOnce sends an echo request from a raw socket and waits for its answer.
func pingOnce(t testing.TB, from Namespace, to netip.Addr) {
	t.Helper()
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	var c net.Conn
	err := from.Do(func() (err error) {
		c, err = net.Dial(network, to.String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local, ok := netip.AddrFromSlice(c.LocalAddr().(*net.IPAddr).IP)
	if !ok {
		t.Fatalf("local address %v", c.LocalAddr())
	}
	local = local.Unmap()
	body := []byte("slicewire")
	echo := overlaytest.Echo(local, to, false, 77, 1, body)
	echo = echo[len(echo)-len(body)-8:]
	if echo[0] != request {
		t.Fatalf("not an echo request: %x", echo)
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(echo); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1500)
	for {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatalf("ping %v: %v", to, err)
		}
		if n >= len(echo) && bytes.HasSuffix(buf[:n], body) && buf[n-len(echo)] == reply {
			return
		}
	}
}

func TestDatagramsLargerThanTheMTU(t *testing.T) {
	a, b, _ := join(t, orPacket(OpenTUN), OpenPacket, Config{Offload: true, MTU: 1280})
	var c net.Conn
	err := a.ns.Do(func() (err error) {
		c, err = net.Dial("udp", netip.AddrPortFrom(b.v4, 9).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 1252)); err != nil {
		t.Errorf("1280 bytes with headers: %v", err)
	}
	if _, err := c.Write(make([]byte, 1253)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("one more: %v", err)
	}
	transfer(t, a.ns, b.ns, b.v6, 1<<20)
	transfer(t, b.ns, a.ns, a.v4, 1<<20)
}
