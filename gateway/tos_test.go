package gateway

import (
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"slicewire/overlay"
	"slicewire/overlay/overlaytest"
)

// A classRouter stands between two nodes: it notes the classes of what it
// passes on, and marks it as having met congestion if told to.
type classRouter struct {
	near, far *net.UDPConn
	congested atomic.Bool
	mu        sync.Mutex
	seen      map[byte]int // classes of data from near to far
}

func demandOption(t *testing.T, c *net.UDPConn, level, name, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, value) }); e != nil {
			err = e
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

func addrOf(c *net.UDPConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func newClassRouter(t *testing.T, host string, a, b netip.AddrPort) *classRouter {
	r := &classRouter{near: listen(t, host), far: listen(t, host), seen: make(map[byte]int)}
	level, recv, set := unix.IPPROTO_IP, unix.IP_RECVTOS, unix.IP_TOS
	if a.Addr().Is6() {
		level, recv, set = unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, unix.IPV6_TCLASS
	}
	var wg sync.WaitGroup
	pass := func(from, to *net.UDPConn, dst netip.AddrPort, note bool) {
		demandOption(t, from, level, recv, 1)
		wg.Go(func() {
			buf, oob := make([]byte, 1<<16), make([]byte, 128)
			for {
				n, on, _, _, err := from.ReadMsgUDPAddrPort(buf, oob)
				if err != nil {
					return
				}
				_, class := segmentSize(oob[:on], n)
				if note && carriesPacket(buf[:n]) {
					r.mu.Lock()
					r.seen[class]++
					r.mu.Unlock()
				}
				if r.congested.Load() && class&3 != 0 {
					class |= 3
				}
				if raw, err := to.SyscallConn(); err == nil {
					_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, set, int(class)) })
				}
				_, _ = to.WriteToUDPAddrPort(buf[:n], dst)
			}
		})
	}
	pass(r.near, r.far, b, true)
	pass(r.far, r.near, a, false)
	t.Cleanup(func() { r.near.Close(); r.far.Close(); wg.Wait() })
	return r
}

func (r *classRouter) take() map[byte]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.seen
	r.seen = make(map[byte]int)
	return x
}

// classed is a packet of a class from one side of the pair to the other.
func classed(class byte, v6 bool, size int) []byte {
	src, dst := "10.1.1.1:5", "10.1.2.1:6"
	if v6 {
		src, dst = "[fd00:0:0:1::1]:5", "[fd00:0:0:2::1]:6"
	}
	p := overlaytest.UDP(netip.MustParseAddrPort(src), netip.MustParseAddrPort(dst), make([]byte, size))
	if v6 {
		p[0], p[1] = 0x60|class>>4, class<<4
	} else {
		p[1] = class
	}
	overlaytest.Fix(p)
	return p
}

func TestTrafficClassesCrossTheTunnel(t *testing.T) {
	for _, c := range []struct {
		name string
		host string
		show OuterTOS
		want func(class byte) byte
	}{
		{"ECN", "127.0.0.1:0", TOSECN, func(c byte) byte { return c & 3 }},
		{"all", "127.0.0.1:0", TOSAll, func(c byte) byte { return c }},
		{"over IPv6", "[::1]:0", TOSAll, func(c byte) byte { return c }},
		{"off", "127.0.0.1:0", TOSOff, func(byte) byte { return 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var nodes [2]*node
			var links [2]*memLink
			var keys [2][32]byte
			for i := range nodes {
				conn := listen(t, c.host)
				g, err := New(Config{Conn: conn, Log: testLog(), OuterTOS: c.show})
				if err != nil {
					t.Fatal(err)
				}
				nodes[i], links[i], keys[i] = &node{Gateway: g, t: t, addr: addrOf(conn)}, newMemLink(1024), newKey(t)
			}
			r := newClassRouter(t, c.host, nodes[0].addr, nodes[1].addr)
			nodes[0].run().set(Tunnel{Slice: "red", PrivateKey: keys[0], Inside: links[0],
				Peers: []Peer{peer(keys[1], addrOf(r.near), "10.1.2.0/24", "fd00:0:0:2::/64")}})
			nodes[1].run().set(Tunnel{Slice: "red", PrivateKey: keys[1], Inside: links[1],
				Peers: []Peer{peer(keys[0], addrOf(r.far), "10.1.1.0/24", "fd00:0:0:1::/64")}})
			eventually(t, "handshake", func() bool { return nodes[0].hasSession() && nodes[1].hasSession() })
			r.take()
			for _, v6 := range []bool{false, true} {
				for size := range 40 { // every padding
					class := byte(0xb8 | size&3)
					links[0].send(t, classed(class, v6, size))
					if got := links[1].receive(t); classOf(got) != class {
						t.Fatalf("class %x came as %x", class, classOf(got))
					}
					if seen := r.take(); len(seen) != 1 || seen[c.want(class)] != 1 {
						t.Fatalf("class %x of %d bytes was shown as %v", class, size, seen)
					}
				}
			}
			if c.show == TOSOff {
				return
			}
			r.congested.Store(true)
			for _, v6 := range []bool{false, true} {
				for size := range 40 {
					links[0].send(t, classed(0xb9+byte(size&1), v6, size)) // ECT(1), ECT(0)
					got := links[1].receive(t)
					if classOf(got) != 0xbb || !overlaytest.ChecksumsOK(got) {
						t.Fatalf("congestion was lost: %x", got)
					}
				}
			}
			// A train of mixed classes keeps them apart.
			r.congested.Store(false)
			for i := range 60 {
				links[0].send(t, classed(byte(i%4), false, 500))
			}
			for i := range 60 {
				if got := links[1].receive(t); classOf(got) != byte(i%4) {
					t.Fatalf("packet %d: class %x", i, classOf(got))
				}
			}
		})
	}
}

func TestDecapsulation(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for inner := range byte(4) {
			p := classed(0xb8|inner, v6, 33)
			ok := decapsulate(p)
			if ok != (inner != 0) {
				t.Errorf("inner %d: passes %v", inner, ok)
			}
			if ok && (classOf(p) != 0xbb || !overlaytest.ChecksumsOK(p)) {
				t.Errorf("inner %d: %x", inner, p)
			}
		}
	}
	// Every checksum there is.
	p := classed(1, false, 0)
	for i := range 1 << 16 {
		q := append([]byte(nil), p...)
		binary.BigEndian.PutUint16(q[4:], uint16(i))
		overlaytest.Fix(q)
		decapsulate(q)
		if s := append([]byte(nil), q...); true {
			overlaytest.Fix(s)
			if string(s) != string(q) {
				t.Fatalf("id %x: sum %x%x, want %x%x", i, q[10], q[11], s[10], s[11])
			}
		}
	}
	var drops overlay.Drops
	buf := make([]byte, overlay.Headroom+28, 200)
	copy(buf[overlay.Headroom:], classed(0, false, 0))
	fill(buf[:cap(buf)][len(buf)+overhead-8:], congested)
	if rest := markCongested([][]byte{buf}, &drops); len(rest) != 0 || drops.Get(overlay.DropCongestion) != 1 {
		t.Errorf("%d pass, %v", len(rest), drops.Snapshot())
	}
}

func BenchmarkClasses(b *testing.B) {
	buf := make([]byte, 2048)
	copy(buf[overlay.Headroom:], classed(2, false, 1300))
	b.ReportAllocs()
	for b.Loop() {
		p := buf[overlay.Headroom : overlay.Headroom+1328]
		putOuter(buf, len(p), classOf(p)&3)
		if outerOf(buf[:1328+overhead:2048]) != 0 { // no message type here
			b.Fatal("class")
		}
	}
}
