package netstack

import (
	"net"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"
)

// conn is a TCP connection with the errors of the net package. Deadlines,
// addresses and half close are the adapter's.
type conn struct {
	*gonet.TCPConn
	ep     tcpip.Endpoint
	closed atomic.Bool
}

func newConn(wq *waiter.Queue, ep tcpip.Endpoint) *conn {
	_ = keepalive(ep) // an endpoint that died meanwhile says so at its first use
	return &conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep}
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.meaning("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.meaning("write", err)
}

func (c *conn) CloseWrite() error { return c.meaning("close", c.TCPConn.CloseWrite()) }
func (c *conn) CloseRead() error  { return c.meaning("close", c.TCPConn.CloseRead()) }

// Close ends the connection in the background as the kernel does: what was
// written is still delivered. Blocked calls return net.ErrClosed.
func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.TCPConn.Close()
}

// Abort ends the connection with a reset (RFC 9293, section 3.10.5): the other
// side's calls fail with ECONNRESET, and what is queued is thrown away. Close
// is still due.
func (c *conn) Abort() { c.ep.Abort() }

func (c *conn) meaning(op string, err error) error {
	if err == nil {
		return nil
	}
	if c.closed.Load() {
		return opError(op, "tcp", c.LocalAddr(), c.RemoteAddr())(net.ErrClosed)
	}
	return restore(err)
}

// listener accepts connections until it is closed.
type listener struct {
	wq     *waiter.Queue
	ep     tcpip.Endpoint
	addr   net.Addr
	once   sync.Once
	closed chan struct{}
}

func newListener(wq *waiter.Queue, ep tcpip.Endpoint, addr net.Addr) *listener {
	return &listener{wq: wq, ep: ep, addr: addr, closed: make(chan struct{})}
}

func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	fail := opError("accept", "tcp", nil, l.addr)
	for {
		ep, wq, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			return newConn(wq, ep), nil
		case *tcpip.ErrWouldBlock:
		default:
			return nil, fail(fault(err))
		}
		select {
		case <-l.closed:
			return nil, fail(net.ErrClosed)
		case <-ready:
		}
	}
}

// Close stops listening. Connections not yet accepted are reset.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.ep.Close()
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
