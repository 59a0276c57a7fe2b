package gateway

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestLeading(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sizes string // comma-separated, NxS for N of S
		want  int
	}{
		{"one", "1x100", 1},
		{"all equal", "10x1452", 10},
		{"no more than 64", "100x100", 64},
		{"no more than 65000 bytes", "64x1452", 44},
		{"a shorter one ends the message", "5x1000,1x10,5x1000", 6},
		{"a longer one begins another", "5x1000,1x1001", 5},
		{"an empty one does not count as shorter", "5x1000,1x0", 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var bufs [][]byte
			for f := range strings.SplitSeq(tt.sizes, ",") {
				var n, size int
				if _, err := fmt.Sscanf(f, "%dx%d", &n, &size); err != nil {
					t.Fatal(err)
				}
				for range n {
					bufs = append(bufs, make([]byte, size))
				}
			}
			if got := leading(bufs); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestSockaddrsGoThereAndBack(t *testing.T) {
	for _, s := range []string{"192.0.2.1:51820", "[2001:db8::1]:1", "[fe80::1%7]:65535"} {
		a := netip.MustParseAddrPort(s)
		for _, inet6 := range []bool{false, true} {
			var b [unix.SizeofSockaddrInet6]byte
			n := putSockaddr(&b, a, inet6)
			if !inet6 && a.Addr().Is6() {
				if n != 0 {
					t.Errorf("%v can be reached over IPv4", a)
				}
				continue
			}
			if got := parseSockaddr(&b); got != a {
				t.Errorf("%v comes back as %v", a, got)
			}
		}
	}
	e := newEndpoint(netip.MustParseAddrPort("[::ffff:192.0.2.1]:5"), true)
	if e.DstIP() != netip.MustParseAddr("192.0.2.1") || e.DstToString() != "192.0.2.1:5" || len(e.DstToBytes()) != 6 {
		t.Errorf("mapped address: %v %v %x", e.DstIP(), e, e.DstToBytes())
	}
}

func TestSendWithoutSegmentation(t *testing.T) {
	out, in := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	defer in.Close()
	s, err := newSocket(out, testLog())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	// A socket that sends no checksum cannot segment: EINVAL.
	setOption(t, out, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	to := newEndpoint(in.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort(), false)
	var bufs [][]byte
	for i := range 40 {
		bufs = append(bufs, bytes.Repeat([]byte{byte(i)}, 100))
	}
	for range 2 {
		if lost := s.send(bufs, to); lost != 0 {
			t.Fatalf("%d lost", lost)
		}
		got := make([]byte, 200)
		for i := range bufs {
			if n, err := in.Read(got); err != nil || !bytes.Equal(got[:n], bufs[i]) {
				t.Fatalf("packet %d: %d bytes of %d, %v", i, n, got[0], err)
			}
		}
	}
	if !to.noGSO.Load() || !s.gso.Load() {
		t.Error("this path should be without segmentation, others not")
	}
	if lost := s.send([][]byte{make([]byte, 65508), {1}}, to); lost != 1 {
		t.Errorf("%d lost, want the one that is too long", lost)
	}
	six := newEndpoint(netip.MustParseAddrPort("[::1]:1"), false)
	if lost := s.send(bufs, six); lost != len(bufs) {
		t.Error("an IPv4 socket reached IPv6")
	}
}

func TestTrainsOfMessagesTooLongForThePathGoOneByOne(t *testing.T) {
	out, in := listen(t, "[::1]:0"), listen(t, "[::1]:0")
	defer in.Close()
	s, err := newSocket(out, testLog())
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	// As on a device with this MTU: a message is cut into fragments, but a
	// train's is not: EMSGSIZE, of older kernels EINVAL.
	setOption(t, out, unix.IPPROTO_IPV6, unix.IPV6_MTU, 1280)
	to := newEndpoint(in.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort(), true)
	for _, size := range []int{1452, 100} {
		bufs := [][]byte{bytes.Repeat([]byte{1}, size), bytes.Repeat([]byte{2}, size)}
		if lost := s.send(bufs, to); lost != 0 {
			t.Fatalf("%d of %d bytes lost", lost, size)
		}
		got := make([]byte, 2000)
		for i := range bufs {
			if n, err := in.Read(got); err != nil || !bytes.Equal(got[:n], bufs[i]) {
				t.Fatalf("packet %d: %d bytes of %d, %v", i, n, got[0], err)
			}
		}
	}
	if !to.noGSO.Load() || !s.gso.Load() {
		t.Error("this path should be without segmentation, others not")
	}
}

func TestRoutersMayCutOuterIPv4(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} { // IPv4 goes through sockets of both families
		conn := listen(t, addr)
		s, err := newSocket(conn, testLog())
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		if got := option(t, conn, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER); got != unix.IP_PMTUDISC_OMIT {
			t.Errorf("%s: IP_MTU_DISCOVER is %d", addr, got)
		}
		if !s.inet6 {
			continue
		}
		// What a router says of an IPv6 way is heeded: it cuts nothing itself.
		if got := option(t, conn, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER); got != unix.IPV6_PMTUDISC_WANT {
			t.Errorf("%s: IPV6_MTU_DISCOVER is %d", addr, got)
		}
	}
}

// control runs do on the socket's descriptor.
func control(t *testing.T, conn syscall.Conn, do func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errDo error
	if err := raw.Control(func(fd uintptr) { errDo = do(int(fd)) }); err != nil || errDo != nil {
		t.Fatal(err, errDo)
	}
}

func setOption(t *testing.T, conn syscall.Conn, level, name, value int) {
	t.Helper()
	control(t, conn, func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) })
}

func option(t *testing.T, conn syscall.Conn, level, name int) (value int) {
	t.Helper()
	control(t, conn, func(fd int) (err error) {
		value, err = unix.GetsockoptInt(fd, level, name)
		return err
	})
	return value
}

func FuzzControlMessages(f *testing.F) {
	f.Add(make([]byte, 64), 100)
	c := newTxCall()
	gro := bytes.Clone(c.ctrl[0])
	gro[12] = unix.UDP_GRO
	f.Add(gro, 5000)
	f.Fuzz(func(t *testing.T, ctrl []byte, n int) {
		aligned := make([]byte, controlBytes)
		ctrl = aligned[:copy(aligned, ctrl)]
		if got, _ := segmentSize(ctrl, n); got != n && (got <= 0 || got > n) {
			t.Fatalf("segments of %d in %d", got, n)
		}
	})
}
