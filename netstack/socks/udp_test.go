package socks

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"slicewire/overlay"
)

// a udpClient is an association's other end.
type udpClient struct {
	t       testing.TB
	control net.Conn
	relay   netip.AddrPort
	sock    *net.UDPConn
}

// associateWith asks for an association. claim is the port that the client
// says it sends from; -1 means the true one.
func associateWith(t testing.TB, s *Server, claim int) *udpClient {
	t.Helper()
	u := &udpClient{t: t, control: connect(t, s)}
	u.sock = udpSocket(t)
	port := uint16(claim)
	if claim < 0 {
		port = addrPortOf(u.sock.LocalAddr()).Port()
	}
	u.control.Write(append([]byte(hello+"\x05\x03\x00\x01\x00\x00\x00\x00"), byte(port>>8), byte(port)))
	reply := make([]byte, 12)
	if _, err := io.ReadFull(u.control, reply); err != nil {
		t.Fatal(err)
	}
	bound, _, err := parseTarget(reply[5:])
	if err != nil || reply[3] != 0 {
		t.Fatalf("reply %x", reply)
	}
	u.relay = netip.AddrPortFrom(bound.addr, bound.port)
	if !u.relay.Addr().IsLoopback() {
		t.Fatalf("the relay is at %v", u.relay)
	}
	return u
}

func udpSocket(t testing.TB) *net.UDPConn { return udpSocketAt(t, 1, 0) }

func udpSocketAt(t testing.TB, host byte, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, host), Port: int(port)})
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(deadline))
	t.Cleanup(func() { c.Close() })
	return c
}

func (u *udpClient) send(header, payload string) {
	u.t.Helper()
	if _, err := u.sock.WriteToUDPAddrPort([]byte(header+payload), u.relay); err != nil {
		u.t.Fatal(err)
	}
}

func (u *udpClient) receive() (src netip.AddrPort, payload string) {
	u.t.Helper()
	buf := make([]byte, 64<<10)
	n, from, err := u.sock.ReadFromUDPAddrPort(buf)
	if err != nil {
		u.t.Fatal(err)
	}
	if from != u.relay {
		u.t.Errorf("a datagram from %v, not from the relay %v", from, u.relay)
	}
	tgt, data, err := parseDatagram(buf[:n])
	if err != nil {
		u.t.Fatalf("%v in %x", err, buf[:n])
	}
	return netip.AddrPortFrom(tgt.addr, tgt.port), string(data)
}

func header(ap string) string {
	return string(appendAddr([]byte{0, 0, 0}, netip.MustParseAddrPort(ap)))
}

func nameHeader(name string, port byte) string {
	return "\x00\x00\x00\x03" + string(rune(len(name))) + name + "\x00" + string(rune(port))
}

func TestDatagramsGoThereAndBack(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echoUDP(t, "10.1.0.5:53")
	sl.echoUDP(t, "[fd00::5]:53")
	sl.names["dns.slice.local"] = []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("fd00::5")}
	for _, listener := range []net.Listener{tcpListener(t), unixListener(t)} {
		s := start(t, sl, Config{Listener: listener})
		for _, claim := range []int{0, -1} {
			u := associateWith(t, s, claim)
			big := string(bytes.Repeat([]byte{7}, 60000))
			for _, c := range []struct{ header, payload, from string }{
				{header("10.1.0.5:53"), "four", "10.1.0.5:53"},
				{header("[fd00::5]:53"), "six", "[fd00::5]:53"},
				{nameHeader("dns.slice.local", 53), "name", "10.1.0.5:53"},
				{nameHeader("10.1.0.5", 53), "address as name", "10.1.0.5:53"},
				{header("10.1.0.5:53"), "", "10.1.0.5:53"},
				{header("10.1.0.5:53"), big, "10.1.0.5:53"},
			} {
				u.send(c.header, c.payload)
				src, got := u.receive()
				if src.String() != c.from || got != "re: "+c.payload {
					t.Errorf("%.10q came back as %.20q from %v, want from %s", c.payload, got, src, c.from)
				}
			}
			u.control.Close()
		}
		eventually(t, "associations gone with their control connections", func() bool { return s.Stats().Associations == 0 })
		if st := s.Stats(); st.DatagramsUp != 12 || st.DatagramsDn != 12 || len(st.Dropped) != 0 {
			t.Errorf("stats %+v", st)
		}
	}
}

func TestUnwantedDatagramsAreDroppedAndCounted(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echoUDP(t, "10.1.0.5:53")
	s := start(t, sl, Config{})
	u := associateWith(t, s, 0)
	good := header("10.1.0.5:53")
	u.send(good, "first")
	u.receive()
	other, neighbour := udpSocket(t), udpSocketAt(t, 2, addrPortOf(u.sock.LocalAddr()).Port())
	want := map[string]uint64{}
	for _, c := range []struct {
		name string
		send func()
		why  overlay.Drop
	}{
		{"another port of the client's host", func() { other.WriteToUDPAddrPort([]byte(good+"x"), u.relay) }, overlay.DropSource},
		{"the client's port on another host", func() { neighbour.WriteToUDPAddrPort([]byte(good+"x"), u.relay) }, overlay.DropSource},
		{"a fragment", func() { u.send("\x00\x00\x01"+good[3:], "x") }, overlay.DropFragment},
		{"nothing", func() { u.send("", "") }, overlay.DropMalformed},
		{"half a header", func() { u.send(good[:7], "") }, overlay.DropMalformed},
		{"reserved bytes", func() { u.send("\x01"+good[1:], "x") }, overlay.DropMalformed},
		{"an unknown address type", func() { u.send("\x00\x00\x00\x05"+good[4:], "x") }, overlay.DropMalformed},
		{"port 0", func() { u.send(header("10.1.0.5:0"), "x") }, overlay.DropMalformed},
		{"an unknown name", func() { u.send(nameHeader("nope.slice.local", 53), "x") }, overlay.DropNoRoute},
		{"the host's loopback", func() { u.send(header("127.0.0.1:53"), "x") }, overlay.DropNoRoute},
		{"a host that is not there", func() { u.send(header("10.1.0.99:53"), "x") }, overlay.DropSendError},
		{"an answer from who was never asked", func() {
			u.send(good, whoami)
			_, me := u.receive()
			udpSocket(t).WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort(me))
		}, overlay.DropSource},
	} {
		want[c.why.String()]++
		c.send()
		eventually(t, c.name+" counted", func() bool { return s.Stats().Dropped[c.why.String()] == want[c.why.String()] })
	}
	u.send(good, "last")
	if _, got := u.receive(); got != "re: last" {
		t.Errorf("after all that: %q", got)
	}
}

func TestANameStaysWithItsAddressInAnAssociation(t *testing.T) {
	checkLeaks(t)
	sl := newSlice()
	sl.echoUDP(t, "10.1.0.5:53")
	sl.echoUDP(t, "10.1.0.6:53")
	a, b := netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.1.0.6")
	s := start(t, sl, Config{})
	as := &association{s: s, ctx: t.Context(), names: map[string]*cachedName{}}
	name := target{name: "dns.slice.local", port: 53}
	expire := func() {
		for _, n := range as.names {
			n.until = time.Time{}
		}
	}
	for _, c := range []struct {
		says []netip.Addr
		want netip.Addr
	}{
		{[]netip.Addr{a, b}, a},
		{[]netip.Addr{b, a}, a}, // the answers rotate, the flow stays
		{[]netip.Addr{b}, b},    // its endpoint left
		{[]netip.Addr{a, b}, b},
	} {
		sl.mu.Lock()
		sl.names[name.name] = c.says
		sl.mu.Unlock()
		expire()
		if got, err := as.lookup(name); err != nil || got != c.want {
			t.Errorf("%v: %v %v, want %v", c.says, got, err, c.want)
		}
	}
	asked := len(sl.asked)
	as.lookup(name)
	if len(sl.asked) != asked {
		t.Error("a fresh name is asked again")
	}
	for i := range 3 * maxNames {
		n := string(rune('a'+i%26)) + string(rune('a'+i/26)) + ".slice.local"
		sl.names[n] = []netip.Addr{a}
		as.lookup(target{name: n, port: 1})
	}
	if len(as.names) > maxNames {
		t.Errorf("%d names are kept", len(as.names))
	}
	as.peers = map[netip.Addr]struct{}{}
	for i := range 2 * maxPeers {
		as.remember(netip.AddrFrom4([4]byte{10, 2, byte(i >> 8), byte(i)}))
	}
	if len(as.peers) > maxPeers {
		t.Errorf("%d peers are kept", len(as.peers))
	}
}

func TestAnIdleAssociationEndsAndSaysSo(t *testing.T) {
	checkLeaks(t)
	s := start(t, newSlice(), Config{UDPIdle: 50 * time.Millisecond})
	u := associateWith(t, s, 0)
	if _, err := u.control.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the control connection: %v", err)
	}
	eventually(t, "association gone", func() bool { return s.Stats().Associations == 0 })
}

func TestTrafficKeepsAnAssociationAndChatterDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &association{s: &Server{cfg: Config{UDPIdle: time.Minute}}}
		control, client := net.Pipe()
		defer control.Close()
		defer client.Close()
		begin := time.Now()
		a.touch()
		go func() {
			for range 3 {
				time.Sleep(40 * time.Second) // virtual
				a.touch()
			}
			for range 5 {
				time.Sleep(10 * time.Second)
				client.Write([]byte("what is written here means nothing"))
			}
		}()
		a.watch(control)
		if got := time.Since(begin); got != 3*40*time.Second+time.Minute {
			t.Errorf("ended after %v", got)
		}
	})
}

func TestTooManyAssociationsAreRefused(t *testing.T) {
	checkLeaks(t)
	s := start(t, newSlice(), Config{MaxAssociations: 1})
	associateWith(t, s, 0)
	c := connect(t, s)
	io.WriteString(c, hello+"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00")
	if got, err := io.ReadAll(c); err != nil || len(got) != 12 || got[3] != 1 {
		t.Errorf("%x, %v", got, err)
	}
}

func BenchmarkDatagram(b *testing.B) {
	sl := newSlice()
	sl.echoUDP(b, "10.1.0.5:53")
	s := start(b, sl, Config{})
	u := associateWith(b, s, 0)
	msg := []byte(header("10.1.0.5:53") + string(make([]byte, 1000)))
	buf := make([]byte, 2000)
	u.sock.SetDeadline(time.Time{})
	b.ReportAllocs()
	for b.Loop() {
		u.sock.WriteToUDPAddrPort(msg, u.relay)
		n, _, err := u.sock.ReadFromUDPAddrPort(buf)
		if err != nil || n != len(msg)+4 {
			b.Fatalf("%d bytes, %v", n, err)
		}
	}
}
