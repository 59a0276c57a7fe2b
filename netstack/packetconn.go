package netstack

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// packetConn is a UDP socket. One that was dialled is a net.Conn, and hears of
// ICMP errors as ECONNREFUSED and the like, which gVisor's own net adapter
// does not wake up for.
type packetConn struct {
	wq          *waiter.Queue
	ep          tcpip.Endpoint
	local       *net.UDPAddr
	remote      net.Addr // nil when not connected
	read, write deadline
	closed      atomic.Bool
}

// newPacketConn takes over ep, which is bound to the address of local and, if
// remote is valid, connected.
func newPacketConn(wq *waiter.Queue, ep tcpip.Endpoint, local, remote netip.AddrPort) (*packetConn, error) {
	at, err := ep.GetLocalAddress()
	if err != nil {
		ep.Close()
		return nil, opError("listen", "udp", nil, net.UDPAddrFromAddrPort(local))(fault(err))
	}
	c := &packetConn{wq: wq, ep: ep, local: net.UDPAddrFromAddrPort(netip.AddrPortFrom(local.Addr(), at.Port))}
	if remote.IsValid() {
		c.remote = net.UDPAddrFromAddrPort(remote)
	}
	return c, nil
}

func (c *packetConn) LocalAddr() net.Addr  { return c.local }
func (c *packetConn) RemoteAddr() net.Addr { return c.remote }

func (c *packetConn) SetReadDeadline(t time.Time) error  { c.read.set(t); return nil }
func (c *packetConn) SetWriteDeadline(t time.Time) error { c.write.set(t); return nil }
func (c *packetConn) SetDeadline(t time.Time) error      { c.read.set(t); c.write.set(t); return nil }

func (c *packetConn) Read(b []byte) (int, error) {
	return c.receive(b, nil)
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var from tcpip.FullAddress
	n, err := c.receive(b, &from)
	if err != nil {
		return n, nil, err
	}
	return n, &net.UDPAddr{IP: from.Addr.AsSlice(), Port: int(from.Port)}, nil
}

// Await waits, until the read deadline, for something to read, be it an error;
// who has no buffer yet needs none until then.
func (c *packetConn) Await() error {
	const wanted = waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp
	err := c.await(&c.read, wanted, func() tcpip.Error {
		if !c.closed.Load() && c.ep.Readiness(wanted) == 0 {
			return &tcpip.ErrWouldBlock{}
		}
		return nil
	})
	if err != nil {
		return opError("read", "udp", c.local, c.remote)(err)
	}
	return nil
}

// receive reads one datagram; what does not fit in b is lost.
func (c *packetConn) receive(b []byte, from *tcpip.FullAddress) (int, error) {
	n := 0
	err := c.await(&c.read, waiter.ReadableEvents, func() tcpip.Error {
		w := tcpip.SliceWriter(b)
		res, err := c.ep.Read(&w, tcpip.ReadOptions{NeedRemoteAddr: from != nil})
		if _, empty := err.(*tcpip.ErrBadBuffer); empty && len(b) == 0 {
			err = nil
		}
		n = res.Count
		if err == nil && from != nil {
			*from = res.RemoteAddr
		}
		return err
	})
	if err != nil {
		return 0, opError("read", "udp", c.local, c.remote)(err)
	}
	return n, nil
}

func (c *packetConn) Write(b []byte) (int, error) {
	return c.send(b, c.remote, tcpip.WriteOptions{})
}

// WriteTo sends to a *net.UDPAddr of the socket's family.
func (c *packetConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, opError("write", "udp", c.local, addr)(errors.New("not a UDP address"))
	}
	ip := to.IP
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	if len(ip) != len(c.local.IP) {
		return 0, opError("write", "udp", c.local, addr)(errors.New("not of the socket's family"))
	}
	full := tcpip.FullAddress{Addr: tcpip.AddrFromSlice(ip), Port: uint16(to.Port)}
	return c.send(b, addr, tcpip.WriteOptions{To: &full})
}

func (c *packetConn) send(b []byte, to net.Addr, opts tcpip.WriteOptions) (int, error) {
	err := c.await(&c.write, waiter.WritableEvents, func() tcpip.Error {
		_, err := c.ep.Write(bytes.NewReader(b), opts)
		return err
	})
	if err != nil {
		return 0, opError("write", "udp", c.local, to)(err)
	}
	return len(b), nil
}

// await calls try until it does not ask to wait.
func (c *packetConn) await(d *deadline, events waiter.EventMask, try func() tcpip.Error) error {
	var ready chan struct{}
	for {
		passed := d.passed()
		select {
		case <-passed:
			return os.ErrDeadlineExceeded
		default:
		}
		err := try()
		if err == nil {
			return nil
		}
		if c.closed.Load() {
			return net.ErrClosed
		}
		switch err.(type) {
		case *tcpip.ErrWouldBlock:
		case *tcpip.ErrClosedForReceive, *tcpip.ErrClosedForSend:
			return net.ErrClosed // a datagram socket ends no other way
		default:
			return fault(err)
		}
		if ready == nil {
			var entry waiter.Entry
			entry, ready = waiter.NewChannelEntry(events | waiter.EventErr | waiter.EventHUp)
			c.wq.EventRegister(&entry)
			defer c.wq.EventUnregister(&entry)
			continue // it may have become ready before it was registered
		}
		select {
		case <-passed:
			return os.ErrDeadlineExceeded
		case <-ready:
		}
	}
}

// Close ends the socket; blocked calls return net.ErrClosed.
func (c *packetConn) Close() error {
	if !c.closed.Swap(true) {
		c.ep.Close()
	}
	return nil
}

// deadline is a time that may be moved. The zero value never passes.
type deadline struct {
	mu    sync.Mutex
	timer *time.Timer
	done  chan struct{} // nil until someone asks; closed when the time has come
}

// passed returns a channel that is closed when the deadline that stands now has
// passed.
func (d *deadline) passed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done == nil {
		d.done = make(chan struct{})
	}
	return d.done
}

// set moves the deadline; the zero Time takes it away. Calls that wait already
// keep waiting on the channel they have, so it is replaced only once closed.
func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.done == nil {
		d.done = make(chan struct{})
	}
	select {
	case <-d.done:
		d.done = make(chan struct{})
	default:
	}
	if t.IsZero() {
		return
	}
	done := d.done
	if wait := time.Until(t); wait > 0 {
		var mine *time.Timer
		mine = time.AfterFunc(wait, func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.timer == mine { // else it was moved while we came
				close(done)
				d.timer = nil
			}
		})
		d.timer = mine
		return
	}
	close(done)
}
