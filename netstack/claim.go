package netstack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/ports"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// claims are the ports that get their socket when they are first called. A node
// publishes thousands of ports of which most are never called, and a socket of
// gVisor takes 5 KB before the goroutine that waits for it.
type claims struct {
	tcp interface { // gVisor's protocol
		QueuePacket(stack.TransportEndpoint, stack.TransportEndpointID, *stack.PacketBuffer)
	}

	mu    sync.Mutex
	ports map[claimed]*claim // guarded by mu; nil once the stack is closed
}

// claimed is a port of a transport.
type claimed struct {
	transport tcpip.TransportProtocolNumber
	addr      netip.AddrPort
}

// claim is a port that answers, with a socket or without one yet.
type claim struct {
	st   *Stack
	at   claimed
	open func() (io.Closer, stack.TransportEndpoint, error)

	// Guarded by claims.mu.
	sock     io.Closer // nil until the port was called
	ep       stack.TransportEndpoint
	reserved bool
}

func newClaims(s *stack.Stack) (*claims, error) {
	c := &claims{ports: make(map[claimed]*claim)}
	var ok bool
	if c.tcp, ok = s.TransportProtocolInstance(tcp.ProtocolNumber).(interface {
		QueuePacket(stack.TransportEndpoint, stack.TransportEndpointID, *stack.PacketBuffer)
	}); !ok {
		return nil, errors.New("netstack: gVisor's TCP takes no packets for a socket: another version is needed")
	}
	return c, nil
}

// OpenTCP has a TCP port of one of the stack's addresses answer. Its listener is
// made for the first connection that is asked for, which it gets, and handed to
// opened: at most once, not after Close has returned, with locks held, so opened
// must neither block nor call the stack. Close also closes the listener. It
// fails as ListenTCP does.
func (st *Stack) OpenTCP(addr netip.AddrPort, opened func(net.Listener)) (io.Closer, error) {
	return st.claim(opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(addr)), claimed{tcp.ProtocolNumber, addr}, func() (io.Closer, stack.TransportEndpoint, error) {
		l, err := st.listenTCP(addr)
		if err != nil {
			return nil, nil, err
		}
		opened(l)
		return l, l.ep.(stack.TransportEndpoint), nil
	})
}

// OpenUDP is OpenTCP for a UDP port, whose socket is made for the first datagram.
func (st *Stack) OpenUDP(addr netip.AddrPort, opened func(net.PacketConn)) (io.Closer, error) {
	return st.claim(opError("listen", "udp", nil, net.UDPAddrFromAddrPort(addr)), claimed{udp.ProtocolNumber, addr}, func() (io.Closer, stack.TransportEndpoint, error) {
		pc, err := st.listenUDP(addr)
		if err != nil {
			return nil, nil, err
		}
		opened(pc)
		return pc, pc.ep.(stack.TransportEndpoint), nil
	})
}

func (st *Stack) claim(fail func(error) error, at claimed, open func() (io.Closer, stack.TransportEndpoint, error)) (io.Closer, error) {
	c := &claim{st: st, at: at, open: open}
	x := st.claims
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ports == nil {
		return nil, fail(net.ErrClosed)
	}
	if x.ports[at] != nil {
		return nil, fail(syscall.EADDRINUSE)
	}
	// A port that cannot be had is said now and not when it is called.
	_, ep, err := st.bound(at.transport, at.addr)
	if err != nil {
		return nil, fail(err)
	}
	ep.Close()
	if terr := c.reserve(); terr != nil {
		return nil, fail(fault(terr))
	}
	x.ports[at] = c
	return c, nil
}

// Close gives the port back. Again, it does nothing.
func (c *claim) Close() error {
	x := c.st.claims
	x.mu.Lock()
	if x.ports[c.at] == c {
		delete(x.ports, c.at)
		c.release()
	}
	sock := c.sock
	c.sock = nil
	x.mu.Unlock()
	if sock == nil {
		return nil
	}
	return sock.Close() // without the lock: it may send
}

// called is given every packet of a transport that no socket takes.
func (st *Stack) called(at claimed, id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	ep := st.claims.take(at)
	if ep == nil {
		return false
	}
	if at.transport == tcp.ProtocolNumber {
		st.claims.tcp.QueuePacket(ep, id, pkt)
	} else {
		ep.HandlePacket(id, pkt)
	}
	return true
}

// take returns the socket of a claimed port, which it makes if need be; nil for
// other ports, and for one that does not open: its callers are refused.
func (x *claims) take(at claimed) stack.TransportEndpoint {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.ports[at]
	if c == nil {
		return nil
	}
	if c.sock == nil {
		c.release()
		sock, ep, err := c.open()
		if err != nil {
			c.st.log.Warn("port was called and does not open", "addr", at.addr, "err", err)
			_ = c.reserve() // or somebody dials from it: until that ends it does not open
			return nil
		}
		c.sock, c.ep = sock, ep
	}
	return c.ep
}

func (x *claims) has(at claimed) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.ports[at] != nil
}

// close has no port opened any more.
func (x *claims) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ports = nil
}

// calledTCP asks for a socket only when a connection is: of all else that finds
// none, no connection can come (RFC 9293, section 3.10.7.1).
func (st *Stack) calledTCP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	flags := header.TCP(pkt.TransportHeader().Slice()).Flags()
	if flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	return st.called(claimedBy(tcp.ProtocolNumber, id), id, pkt)
}

func (st *Stack) calledUDP(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	return st.called(claimedBy(udp.ProtocolNumber, id), id, pkt)
}

func claimedBy(transport tcpip.TransportProtocolNumber, id stack.TransportEndpointID) claimed {
	a, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	return claimed{transport, netip.AddrPortFrom(a, id.LocalPort)}
}

// reserve keeps the port from who dials out and takes any. What gVisor notes of
// a reservation takes as much as half a socket, so this is only done for ports
// that such a one could get.
func (c *claim) reserve() tcpip.Error {
	if first, _ := c.st.s.PortRange(); c.at.addr.Port() < first {
		return nil
	}
	_, err := c.st.s.ReservePort(c.st.s.SecureRNG(), c.reservation(), nil)
	c.reserved = err == nil
	return err
}

func (c *claim) release() {
	if c.reserved {
		c.st.s.ReleasePort(c.reservation())
		c.reserved = false
	}
}

func (c *claim) reservation() ports.Reservation {
	a := c.at.addr
	return ports.Reservation{
		Networks: []tcpip.NetworkProtocolNumber{family(a.Addr())}, Transport: c.at.transport,
		Addr: address(a.Addr()), Port: a.Port(), Flags: ports.Flags{TupleOnly: c.at.transport == tcp.ProtocolNumber},
	}
}
