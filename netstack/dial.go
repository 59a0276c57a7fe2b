package netstack

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// How long a TCP connection is silent before it is probed, and how often then:
// a peer that vanished is noticed in about three minutes, not in two hours.
const (
	keepaliveIdle     = 60 * time.Second
	keepaliveInterval = 15 * time.Second
)

// backlog is how many connections may wait to be accepted on a listener.
const backlog = 1024

// DialTCP connects to dst from src, one of the stack's addresses; the zero
// Addr means the first of dst's family. It ends early with ctx. The connection
// has CloseWrite and CloseRead. Errors are *net.OpError; errors.Is finds
// syscall.ECONNREFUSED, ECONNRESET, EHOSTUNREACH and the context's error.
func (st *Stack) DialTCP(ctx context.Context, src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	fail := opError("dial", "tcp", nil, net.TCPAddrFromAddrPort(dst))
	src, err := st.source(src, dst)
	if err != nil {
		return nil, fail(err)
	}
	fail = opError("dial", "tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(src, 0)), net.TCPAddrFromAddrPort(dst))
	if err := ctx.Err(); err != nil {
		return nil, fail(err)
	}
	wq := new(waiter.Queue)
	ep, terr := st.s.NewEndpoint(tcp.ProtocolNumber, family(src), wq)
	if terr != nil {
		return nil, fail(fault(terr))
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr = ep.Bind(full(netip.AddrPortFrom(src, 0)))
	if terr == nil {
		terr = ep.Connect(full(dst))
	}
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, fail(ctx.Err())
		case <-ready:
		}
		terr = ep.LastError()
	}
	if terr != nil {
		ep.Close()
		return nil, fail(fault(terr))
	}
	return newConn(wq, ep), nil
}

// DialUDP makes a UDP socket that sends to dst and hears only from it. src is
// as for DialTCP.
func (st *Stack) DialUDP(src netip.Addr, dst netip.AddrPort) (net.Conn, error) {
	fail := opError("dial", "udp", nil, net.UDPAddrFromAddrPort(dst))
	src, err := st.source(src, dst)
	if err != nil {
		return nil, fail(err)
	}
	wq, ep, err := st.bound(udp.ProtocolNumber, netip.AddrPortFrom(src, 0))
	if err != nil {
		return nil, fail(err)
	}
	if terr := ep.Connect(full(dst)); terr != nil {
		ep.Close()
		return nil, fail(fault(terr))
	}
	return newPacketConn(wq, ep, netip.AddrPortFrom(src, 0), dst)
}

// ListenTCP listens on one of the stack's addresses. Port 0 means any free one.
// Close of the listener ends its Accept with net.ErrClosed.
func (st *Stack) ListenTCP(addr netip.AddrPort) (net.Listener, error) {
	if st.claims.has(claimed{tcp.ProtocolNumber, addr}) {
		return nil, opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(addr))(syscall.EADDRINUSE)
	}
	l, err := st.listenTCP(addr)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (st *Stack) listenTCP(addr netip.AddrPort) (*listener, error) {
	fail := opError("listen", "tcp", nil, net.TCPAddrFromAddrPort(addr))
	wq, ep, err := st.bound(tcp.ProtocolNumber, addr)
	if err != nil {
		return nil, fail(err)
	}
	var local tcpip.FullAddress
	terr := ep.Listen(backlog)
	if terr == nil {
		local, terr = ep.GetLocalAddress()
	}
	if terr != nil {
		ep.Close()
		return nil, fail(fault(terr))
	}
	return newListener(wq, ep, net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), local.Port))), nil
}

// ListenUDP makes a UDP socket on one of the stack's addresses. Port 0 means
// any free one. Addresses it reports and takes are *net.UDPAddr.
func (st *Stack) ListenUDP(addr netip.AddrPort) (net.PacketConn, error) {
	if st.claims.has(claimed{udp.ProtocolNumber, addr}) {
		return nil, opError("listen", "udp", nil, net.UDPAddrFromAddrPort(addr))(syscall.EADDRINUSE)
	}
	pc, err := st.listenUDP(addr)
	if err != nil {
		return nil, err
	}
	return pc, nil
}

func (st *Stack) listenUDP(addr netip.AddrPort) (*packetConn, error) {
	wq, ep, err := st.bound(udp.ProtocolNumber, addr)
	if err != nil {
		return nil, opError("listen", "udp", nil, net.UDPAddrFromAddrPort(addr))(err)
	}
	return newPacketConn(wq, ep, addr, netip.AddrPort{})
}

// bound makes an endpoint on one of the stack's addresses.
func (st *Stack) bound(transport tcpip.TransportProtocolNumber, addr netip.AddrPort) (*waiter.Queue, tcpip.Endpoint, error) {
	if err := st.own(addr.Addr()); err != nil {
		return nil, nil, err
	}
	wq := new(waiter.Queue)
	ep, terr := st.s.NewEndpoint(transport, family(addr.Addr()), wq)
	if terr != nil {
		return nil, nil, fault(terr)
	}
	if transport == tcp.ProtocolNumber {
		// As servers everywhere do: connections of an earlier listener that are in
		// TIME_WAIT do not keep its address.
		ep.SocketOptions().SetReuseAddress(true)
	}
	if terr = ep.Bind(full(addr)); terr != nil {
		ep.Close()
		return nil, nil, fault(terr)
	}
	return wq, ep, nil
}

// source picks the address to reach dst from.
func (st *Stack) source(src netip.Addr, dst netip.AddrPort) (netip.Addr, error) {
	if !dst.IsValid() || dst.Addr().Is4In6() || dst.Addr().Zone() != "" {
		return src, syscall.EADDRNOTAVAIL
	}
	if src.IsValid() {
		if src.Is4() != dst.Addr().Is4() {
			return src, syscall.EAFNOSUPPORT
		}
		return src, st.own(src)
	}
	if st.closed.Load() {
		return src, net.ErrClosed
	}
	for _, a := range *st.addrs.Load() {
		if a.Is4() == dst.Addr().Is4() {
			return a, nil
		}
	}
	return src, syscall.EADDRNOTAVAIL
}

// own reports an error unless the stack answers on a.
func (st *Stack) own(a netip.Addr) error {
	if st.closed.Load() {
		return net.ErrClosed
	}
	for _, x := range *st.addrs.Load() {
		if x == a {
			return nil
		}
	}
	return syscall.EADDRNOTAVAIL
}

// opError returns a function that says what was being done when err came.
func opError(op, network string, src, dst net.Addr) func(error) error {
	return func(err error) error {
		return &net.OpError{Op: op, Net: network, Source: src, Addr: dst, Err: err}
	}
}

// full is ap on the first interface.
func full(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicTrusted, Addr: address(ap.Addr()), Port: ap.Port()}
}

// keepalive makes a connection notice a peer that vanished.
func keepalive(ep tcpip.Endpoint) error {
	ep.SocketOptions().SetKeepAlive(true)
	idle, every := tcpip.KeepaliveIdleOption(keepaliveIdle), tcpip.KeepaliveIntervalOption(keepaliveInterval)
	for _, o := range []tcpip.SettableSocketOption{&idle, &every} {
		if err := ep.SetSockOpt(o); err != nil {
			return fmt.Errorf("netstack: set %T: %w", o, fault(err))
		}
	}
	return nil
}
