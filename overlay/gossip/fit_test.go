package gossip

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
)

func TestStreamsFitAnyWay(t *testing.T) {
	leakCheck(t)
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		tr, err := listen(t.Context(), system{}, netip.MustParseAddrPort(addr), netip.AddrPort{}, "mesh")
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Shutdown()
		out, err := tr.DialTimeout(tr.advertise.String(), patience)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		in, err := tr.tcp.(*net.TCPListener).AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		// The loopback carries 64 KiB: nothing but the option makes segments short.
		for name, conn := range map[string]syscall.Conn{"dialled": out.(*conn).Conn.(syscall.Conn), "accepted": in} {
			if got := socketOption(t, conn, syscall.IPPROTO_TCP, syscall.TCP_MAXSEG); got <= 0 || got > streamSegment {
				t.Errorf("%s, %s: segments of %d", addr, name, got)
			}
			if got := socketOption(t, conn, syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER); got != syscall.IP_PMTUDISC_DONT {
				t.Errorf("%s, %s: IP_MTU_DISCOVER is %d", addr, name, got)
			}
		}
		if got := socketOption(t, tr.udp.(*net.UDPConn), syscall.IPPROTO_IP, syscall.IP_MTU_DISCOVER); got != syscall.IP_PMTUDISC_DONT {
			t.Errorf("%s, packets: IP_MTU_DISCOVER is %d", addr, got)
		}
		message := bytes.Repeat([]byte("gossip"), 20_000)
		var written sync.WaitGroup
		written.Go(func() {
			if _, err := out.Write(message); err != nil {
				t.Errorf("%s: %v", addr, err)
			}
		})
		got := make([]byte, len(message))
		if _, err := io.ReadFull(in, got); err != nil {
			t.Errorf("%s: %v", addr, err)
		} else if !bytes.Equal(got, message) {
			t.Errorf("%s: other bytes arrived than were sent", addr)
		}
		written.Wait()
	}
}

func socketOption(t *testing.T, conn syscall.Conn, level, name int) (value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var errOption error
	err = raw.Control(func(fd uintptr) { value, errOption = syscall.GetsockoptInt(int(fd), level, name) })
	if err != nil || errOption != nil {
		t.Fatal(err, errOption)
	}
	return value
}
