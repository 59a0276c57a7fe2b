package gateway

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slicewire/overlay"
)

// patience is how long anything may take before a test gives up.
const patience = 8 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A memLink is a Link between a gateway and a test, which plays the router.
type memLink struct {
	out    chan []byte // packets going outside
	in     chan []byte // packets that came inside
	lost   atomic.Int64
	wrote  atomic.Int64
	bytes  atomic.Int64
	sink   bool // count only
	closed chan struct{}
	once   sync.Once
}

func newMemLink(depth int) *memLink {
	return &memLink{out: make(chan []byte, depth), in: make(chan []byte, depth), closed: make(chan struct{})}
}

func (l *memLink) Read(bufs [][]byte, sizes []int) (int, error) {
	var p []byte
	select {
	case p = <-l.out:
	case <-l.closed:
		return 0, net.ErrClosed
	}
	n := 0
	for {
		sizes[n] = copy(bufs[n][overlay.Headroom:], p)
		if n++; n == len(bufs) {
			return n, nil
		}
		select {
		case p = <-l.out:
		default:
			return n, nil
		}
	}
}

func (l *memLink) Write(bufs [][]byte) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
	}
	l.wrote.Add(int64(len(bufs)))
	for _, b := range bufs {
		l.bytes.Add(int64(len(b) - overlay.Headroom))
		if l.sink {
			continue
		}
		select {
		case l.in <- append([]byte(nil), b[overlay.Headroom:]...):
		default:
			l.lost.Add(1)
		}
	}
	return nil
}

func (l *memLink) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *memLink) isClosed() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

// send hands a packet to the gateway, waiting for room.
func (l *memLink) send(t testing.TB, p []byte) {
	t.Helper()
	select {
	case l.out <- p:
	case <-time.After(patience):
		t.Fatal("the gateway takes no packets")
	}
}

// receive returns the next packet that came inside.
func (l *memLink) receive(t testing.TB) []byte {
	t.Helper()
	select {
	case p := <-l.in:
		return p
	case <-time.After(patience):
		t.Fatal("no packet arrives")
		return nil
	}
}

// packet returns an IP packet of size bytes with a sequence number behind its
// header and the rest derived from it.
func packet(src, dst string, seq uint32, size int) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	p := make([]byte, size)
	h := 20
	if s.Is4() {
		p[0], p[8], p[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(p[2:], uint16(size))
		copy(p[12:], s.AsSlice())
		copy(p[16:], d.AsSlice())
	} else {
		h = 40
		p[0], p[6], p[7] = 0x60, 17, 64
		binary.BigEndian.PutUint16(p[4:], uint16(size-40))
		copy(p[8:], s.AsSlice())
		copy(p[24:], d.AsSlice())
	}
	binary.BigEndian.PutUint32(p[h:], seq)
	for i := h + 4; i < size; i++ {
		p[i] = byte(uint32(i)*31 + seq*7)
	}
	return p
}

// sequence reads packet's number back.
func sequence(p []byte) uint32 {
	if p[0]>>4 == 4 {
		return binary.BigEndian.Uint32(p[20:])
	}
	return binary.BigEndian.Uint32(p[40:])
}

// A node is a running gateway.
type node struct {
	*Gateway
	t    testing.TB
	addr netip.AddrPort
	stop func()
}

func listen(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	network := "udp"
	if netip.MustParseAddrPort(addr).Addr().Is4() {
		network = "udp4"
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func testLog() *slog.Logger {
	if os.Getenv("GATEWAY_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.DiscardHandler)
}

// newNode returns a gateway on addr ("ip:port"), not yet running.
func newNode(t testing.TB, addr string, limits ...int) *node {
	t.Helper()
	cfg := Config{}
	if len(limits) == 2 {
		cfg.OutsideLimit, cfg.InsideLimit = limits[0], limits[1]
	}
	return newNodeOf(t, addr, cfg)
}

// newNodeOf is a node with a socket and a log, and else as cfg says.
func newNodeOf(t testing.TB, addr string, cfg Config) *node {
	t.Helper()
	c := listen(t, addr)
	cfg.Conn, cfg.Log = c, testLog()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return &node{Gateway: g, t: t, addr: netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}
}

// run starts the gateway; it is stopped at the end of the test at the latest.
func (n *node) run() *node {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	var once sync.Once
	n.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					n.t.Errorf("run: %v", err)
				}
			case <-time.After(patience):
				n.t.Error("the gateway does not end")
			}
		})
	}
	n.t.Cleanup(n.stop)
	return n
}

func (n *node) set(tunnels ...Tunnel) *node {
	n.t.Helper()
	if err := n.Set(tunnels); err != nil {
		n.t.Fatal(err)
	}
	return n
}

func newKey(t testing.TB) [32]byte {
	t.Helper()
	k, err := NewPrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func prefixes(all ...string) []netip.Prefix {
	var x []netip.Prefix
	for _, s := range all {
		x = append(x, netip.MustParsePrefix(s))
	}
	return x
}

func peer(key [32]byte, at netip.AddrPort, prefix ...string) Peer {
	p := Peer{Name: "peer", PublicKey: PublicKey(key), Prefixes: prefixes(prefix...)}
	if at.IsValid() {
		p.Endpoints = []netip.AddrPort{at}
	}
	return p
}

// eventually polls until f holds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("never: %s", what)
		}
	}
}

// hasSession reports whether every peer of every tunnel had a handshake.
func (n *node) hasSession() bool {
	for _, s := range n.Status() {
		for _, p := range s.Peers {
			if p.LastHandshake.IsZero() {
				return false
			}
		}
	}
	return true
}

// A pair is two running nodes with one slice.
type pair struct {
	a, b         *node
	la, lb       *memLink
	ka, kb       [32]byte
	confA, confB Tunnel
}

func newPair(t testing.TB, addr string, depth int) *pair {
	t.Helper()
	p := &pair{
		a: newNode(t, addr), b: newNode(t, addr),
		la: newMemLink(depth), lb: newMemLink(depth),
		ka: newKey(t), kb: newKey(t),
	}
	p.confA = Tunnel{Slice: "red", PrivateKey: p.ka, Inside: p.la,
		Peers: []Peer{peer(p.kb, p.b.addr, "10.1.2.0/24", "fd00:0:0:2::/64")}}
	p.confB = Tunnel{Slice: "red", PrivateKey: p.kb, Inside: p.lb,
		Peers: []Peer{peer(p.ka, p.a.addr, "10.1.1.0/24", "fd00:0:0:1::/64")}}
	p.a.run().set(p.confA)
	p.b.run().set(p.confB)
	eventually(t, "handshake", func() bool { return p.a.hasSession() && p.b.hasSession() })
	return p
}

func withPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

func hexKey(k [32]byte) string { return fmt.Sprintf("%x", k[:]) }
