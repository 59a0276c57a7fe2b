package main

import (
	"bytes"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
)

// A canaryWatch looks for the canary in all that an underlay carries.
type canaryWatch struct{ looked, found atomic.Uint64 }

func (c *canaryWatch) look(p []byte) {
	c.looked.Add(1)
	if bytes.Contains(p, []byte(canary)) {
		c.found.Add(1)
	}
}

// judgeCanaries fails the test of an underlay on which the canary was seen, or
// where nobody looked.
func judgeCanaries(t testing.TB, where string, looked, found uint64) {
	t.Helper()
	switch {
	case found > 0:
		t.Errorf("%d of %d packets on %s had the canary in them", found, looked, where)
	case looked == 0 && !t.Failed():
		t.Errorf("nothing was carried by %s: no canary means nothing", where)
	default:
		t.Logf("no canary in %d packets on %s", looked, where)
	}
}

// That no canary was seen on a cable means something: one that is sent in the
// clear is found, whichever of its sockets it comes by.
func TestTheCableSeesWhatIsNotEncrypted(t *testing.T) {
	c := newCable(t)
	var nodes [2]*net.UDPConn
	var fronts [2]netip.AddrPort
	for i, name := range []string{"a", "b"} {
		s, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		nodes[i], fronts[i] = s, netip.MustParseAddrPort(c.plug(name, s.LocalAddr().String()))
	}
	buf := make([]byte, 2048)
	send := func(from int, to netip.AddrPort, payload []byte) (answer netip.AddrPort) {
		t.Helper()
		if _, err := nodes[from].WriteToUDPAddrPort(payload, to); err != nil {
			t.Fatal(err)
		}
		n, at, err := nodes[1-from].ReadFromUDPAddrPort(buf)
		if err != nil || !bytes.Equal(buf[:n], payload) {
			t.Fatalf("%q came, %v; want %q", buf[:n], err, payload)
		}
		return at
	}
	back := send(0, fronts[1], []byte("sealed"))
	if looked, found := c.canaries.looked.Load(), c.canaries.found.Load(); looked != 1 || found != 0 {
		t.Errorf("%d of %d packets before there was any", found, looked)
	}
	send(0, fronts[1], append([]byte("before it "), probePacket(1)...))
	send(1, back, probePacket(2))
	if looked, found := c.canaries.looked.Load(), c.canaries.found.Load(); looked != 3 || found != 2 {
		t.Errorf("%d of %d packets had it, want 2 of 3", found, looked)
	}
	c.canaries.found.Store(0) // else its end would fail this test, as it does any other
	c.close()
}
