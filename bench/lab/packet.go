package lab

import (
	"net"
	"net/netip"
	"os"
	"time"
)

// receiveBuffer is what a socket for packets holds that nobody has read, in
// bytes as the system counts them. It is Linux's default.
const (
	receiveBuffer = 212_992
	packetCost    = 768 // beside the bytes themselves
)

// A packetConn is a socket for packets.
type packetConn struct {
	host *Host
	at   netip.AddrPort
	in   inbox[packet]
}

type packet struct {
	from  netip.AddrPort
	bytes []byte
}

func newPacketConn(h *Host, at netip.AddrPort) *packetConn {
	c := &packetConn{host: h, at: at}
	c.in.init()
	return c
}

// deliver has a copy of p arrive at a time, unless the buffer is full.
func (c *packetConn) deliver(at time.Time, from netip.AddrPort, p []byte) bool {
	return c.in.put(at, packet{from, append([]byte(nil), p...)}, len(p)+packetCost, receiveBuffer)
}

// ReadFrom waits for a packet.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	p, err := c.in.take(func(now, _ time.Time) time.Time { return c.host.awake(now) })
	if err != nil {
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Addr: c.LocalAddr(), Err: err}
	}
	return copy(b, p.bytes), net.UDPAddrFromAddrPort(p.from), nil
}

// WriteTo sends a packet, which may be lost.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	u, ok := to.(*net.UDPAddr)
	if !ok || c.in.closed() {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: net.ErrClosed}
	}
	target := u.AddrPort()
	c.host.network.send(c.host, c.at, netip.AddrPortFrom(target.Addr().Unmap(), target.Port()), b)
	return len(b), nil
}

// Close ends ReadFrom and frees the port.
func (c *packetConn) Close() error {
	c.in.close()
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	if c.host.packets[c.at.Port()] == c {
		delete(c.host.packets, c.at.Port())
	}
	return nil
}

// LocalAddr returns where the socket is bound.
func (c *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.at) }

// SetDeadline bounds how long ReadFrom waits.
func (c *packetConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline bounds how long ReadFrom waits.
func (c *packetConn) SetReadDeadline(t time.Time) error {
	c.in.setDeadline(t)
	return nil
}

// SetWriteDeadline does nothing: WriteTo does not wait.
func (c *packetConn) SetWriteDeadline(time.Time) error { return nil }

var errDeadline = os.ErrDeadlineExceeded
