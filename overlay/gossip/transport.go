package gossip

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of what strangers can make this node hold before they have proved
// that they know the gossip key.
const (
	maxStreams          = 256 // open incoming streams
	maxStreamsPerSource = 64
	maxStreamBytes      = maxMessage + 256<<10 // of one encrypted frame
	maxPacketBytes      = 2 << 10              // members send 1400
	ioTimeout           = 5 * time.Second
	dialTimeout         = 2 * time.Second
	bindAttempts        = 10 // UDP and TCP need the same port
)

// The beginning of memberlist's packets and streams: a label, then an encrypted
// frame. Version 1 is AES-GCM without padding.
const (
	labelByte     = 244
	encryptedByte = 10
	cipherVersion = 1
	cipherBytes   = 1 + 12 + 16 // version, nonce, tag
)

var errFrame = errors.New("not a gossip frame of this mesh")

// transport is memberlist's network: one UDP and one TCP socket on one port.
//
// It exists because memberlist's own takes any number of streams, reads up to
// 20 MiB from each before it knows who sends, and falls over an encrypted frame
// that holds nothing. Here a frame must begin as the mesh's frames do and must
// hold something, and streams are bounded in number, size and time.
type transport struct {
	network   Network
	udp       net.PacketConn
	tcp       net.Listener
	advertise netip.AddrPort
	label     []byte
	packets   chan *memberlist.Packet
	streams   chan net.Conn
	session   func(context.Context, *transport, *conn) // serves a stream of a leaf
	ctx       context.Context                          // ends with shutdown; for dials
	cancel    context.CancelFunc
	wg        sync.WaitGroup

	mu     sync.Mutex // guards what follows
	conns  map[*conn]struct{}
	count  map[netip.Addr]int // incoming streams by source
	opened int                // sum of count
}

// listen opens both sockets. An unset advertise, or its port 0, stands for the
// bound address.
func listen(ctx context.Context, network Network, bind, advertise netip.AddrPort, label string) (*transport, error) {
	var err error
	for range bindAttempts {
		var t *transport
		if t, err = listenOnce(ctx, network, bind); err == nil {
			bound := addrPortOf(t.tcp.Addr())
			t.advertise = bound
			if advertise.Addr().IsValid() {
				port := advertise.Port()
				if port == 0 {
					port = bound.Port()
				}
				t.advertise = netip.AddrPortFrom(advertise.Addr(), port)
			}
			t.label = append([]byte{labelByte, byte(len(label))}, label...)
			return t, nil
		}
		if bind.Port() != 0 {
			break
		}
	}
	return nil, fmt.Errorf("gossip address %v: %w", bind, err)
}

func listenOnce(ctx context.Context, network Network, bind netip.AddrPort) (*transport, error) {
	tcp, err := network.Listen(ctx, bind)
	if err != nil {
		return nil, err
	}
	port := addrPortOf(tcp.Addr()).Port()
	udp, err := network.ListenPacket(ctx, netip.AddrPortFrom(bind.Addr(), port))
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	t := &transport{
		network: network, udp: udp, tcp: tcp,
		packets: make(chan *memberlist.Packet), streams: make(chan net.Conn),
		conns: make(map[*conn]struct{}), count: make(map[netip.Addr]int),
	}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return t, nil
}

// serve starts receiving. Shutdown ends it.
func (t *transport) serve() {
	t.wg.Go(t.receive)
	t.wg.Go(t.accept)
}

// retry waits a little after a socket error and reports whether to go on.
func (t *transport) retry(failures int) bool {
	timer := time.NewTimer(min(time.Second, time.Duration(failures)*5*time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

func (t *transport) receive() {
	buf := make([]byte, maxPacketBytes+1)
	for failures := 0; ; {
		n, from, err := t.udp.ReadFrom(buf)
		if err != nil {
			if failures++; !t.retry(failures) {
				return
			}
			continue
		}
		failures = 0
		if n > maxPacketBytes || !t.framed(buf[:n]) {
			continue
		}
		p := &memberlist.Packet{
			Buf:  append([]byte(nil), buf[:n]...),
			From: net.UDPAddrFromAddrPort(addrPortOf(from)), Timestamp: time.Now(),
		}
		select {
		case t.packets <- p:
		case <-t.ctx.Done():
			return
		}
	}
}

// framed reports whether a packet has the mesh's label and can hold something.
func (t *transport) framed(p []byte) bool {
	n := len(t.label)
	return len(p) > n+cipherBytes && string(p[:n]) == string(t.label) && p[n] == cipherVersion
}

func (t *transport) accept() {
	for failures := 0; ; {
		inner, err := t.tcp.Accept()
		if err != nil {
			if failures++; !t.retry(failures) {
				return
			}
			continue
		}
		failures = 0
		source := addrPortOf(inner.RemoteAddr()).Addr()
		c := &conn{Conn: inner, t: t, source: source, prefix: t.label}
		if !t.open(c) {
			_ = inner.Close()
			continue
		}
		t.wg.Go(func() { t.sort(c) })
	}
}

// sort gives a stream to whom its first byte is for, in ioTimeout.
func (t *transport) sort(c *conn) {
	c.begin = make([]byte, 1)
	err := c.SetReadDeadline(time.Now().Add(ioTimeout))
	if err == nil {
		_, err = io.ReadFull(c.Conn, c.begin)
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return
	}
	if c.begin[0] == firstOfTLS {
		c.checked, c.head = true, c.begin
		t.session(t.ctx, t, c)
		return
	}
	select {
	case t.streams <- c:
	case <-t.ctx.Done():
		_ = c.Close()
	}
}

// trust has a stream count no more as one of a stranger.
func (t *transport) trust(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.conns[c]; ok {
		t.forgetLocked(c)
		c.source = netip.Addr{}
	}
}

func (t *transport) forgetLocked(c *conn) {
	if c.source.IsValid() {
		t.opened--
		if t.count[c.source]--; t.count[c.source] == 0 {
			delete(t.count, c.source)
		}
	}
}

// open takes note of a connection, unless there are too many or the transport
// is closing.
func (t *transport) open(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil {
		return false
	}
	if c.source.IsValid() {
		if t.opened >= maxStreams || t.count[c.source] >= maxStreamsPerSource {
			return false
		}
		t.opened++
		t.count[c.source]++
	}
	t.conns[c] = struct{}{}
	return true
}

func (t *transport) closed(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.conns[c]; !ok {
		return
	}
	delete(t.conns, c)
	t.forgetLocked(c)
}

// Shutdown closes the sockets and every stream and returns once nothing is
// received any more. Again does nothing.
func (t *transport) Shutdown() error {
	t.cancel()
	_ = t.tcp.Close()
	_ = t.udp.Close()
	t.mu.Lock()
	var conns []*conn
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
	t.wg.Wait()
	return nil
}

// FinalAdvertiseAddr returns where other members reach this one.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// PacketCh delivers the packets that were received.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh delivers the streams that were accepted.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// WriteTo sends one packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, fmt.Errorf("packet to %q: %w", addr, err)
	}
	_, err = t.udp.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return time.Now(), err
}

// WriteToAddress is WriteTo; names are of no use to IP.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, a.Addr)
}

// DialTimeout opens a stream. Everything on it has to be done in ioTimeout,
// unless the caller sets another deadline.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("stream to %q: %w", addr, err)
	}
	ctx, cancel := context.WithTimeout(t.ctx, min(timeout, dialTimeout))
	defer cancel()
	inner, err := t.network.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, t: t}
	if !t.open(c) {
		_ = inner.Close()
		return nil, fmt.Errorf("stream to %s: %w", addr, net.ErrClosed)
	}
	if err := inner.SetDeadline(time.Now().Add(ioTimeout)); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("stream to %s: %w", addr, err)
	}
	return c, nil
}

// DialAddressTimeout is DialTimeout; names are of no use to IP.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(a.Addr, timeout)
}

// conn is a stream whose first frame is checked before memberlist sees it.
// Only one goroutine reads at a time.
type conn struct {
	net.Conn
	t       *transport
	source  netip.Addr // of an incoming stream
	prefix  []byte     // label that has to come first
	checked bool
	begin   []byte // read before the check
	head    []byte // read and checked, but not yet given out
}

// Read gives out the checked beginning of the stream, then the rest.
func (c *conn) Read(p []byte) (int, error) {
	if !c.checked {
		if err := c.check(); err != nil {
			return 0, err
		}
		c.checked = true
	}
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *conn) check() error {
	n := len(c.prefix)
	head := make([]byte, n+1+4+1) // label, type, length, cipher version
	if _, err := io.ReadFull(io.MultiReader(bytes.NewReader(c.begin), c.Conn), head); err != nil {
		return err
	}
	size := binary.BigEndian.Uint32(head[n+1:])
	if string(head[:n]) != string(c.prefix) || head[n] != encryptedByte || head[n+5] != cipherVersion ||
		size <= cipherBytes || size > maxStreamBytes {
		return errFrame
	}
	c.head = head
	return nil
}

// Write closes the stream when it fails: memberlist forgets one that breaks
// while its label is written.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close()
	}
	return n, err
}

// Close closes the stream and makes room for another.
func (c *conn) Close() error {
	c.t.closed(c)
	return c.Conn.Close()
}
